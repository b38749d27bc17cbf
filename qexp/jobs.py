"""One run: validate, walk the line, leave a Record behind whatever happens, show the table."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qexp.config import Experiment
from qexp.errors import FAILED, INTERRUPTED, OK, ConfigError, QexpError, StoreError
from qexp.pipeline import Outcome, run_line
from qexp.provenance import git_state, versions
from qexp.records import Record, outputs_root, read, records_folder, write
from qexp.runtime import Runtime
from qexp.store import digest
from qexp.tracking.mirror import Mirror, mirror_of
from qexp.wording import explain


@dataclass
class Job:
    """A tree of words on its way to a Record.

    ``sweep``: the run is one of several; ``data=auto`` then never falls back on the sample.
    """

    tree: Mapping[str, Any]
    sweep: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    experiment: Experiment | None = None
    runtime: Runtime | None = None
    mirror: Mirror | None = None

    def run(self) -> int:
        """Do it; print the table or the error; return the exit code."""
        started, error = datetime.now(UTC), None
        try:
            self._walk()
        except (Exception, KeyboardInterrupt) as problem:
            error = problem
        record = self._record(started, error)
        try:
            path = _file(record)
        except QexpError as problem:
            _print_error(error or problem)
            return FAILED
        code = self._tell(record, path, error)
        try:
            if self.mirror is not None:
                self.mirror.ends(record)
        except KeyboardInterrupt as problem:
            _print_error(problem)
            return INTERRUPTED
        return code

    def _tell(self, record: Record, path: Path, error: BaseException | None) -> int:
        """Print the table or the error; the exit code."""
        if error is not None:
            _print_error(error)
            print(f"record: {path}", file=sys.stderr)
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        self._show(record)
        print(f"record: {path}", file=sys.stderr)
        return OK if record.parity is None or record.parity["passed"] else FAILED

    def _walk(self) -> None:
        try:
            self.experiment = Experiment.model_validate(self.tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        self.runtime = Runtime.at(outputs_root(), self.experiment.machine)
        self.mirror = mirror_of(self.experiment, self.runtime.screen, outputs_root())
        if self.mirror is not None:
            self.runtime = replace(self.runtime, follower=self.mirror)
        run_line(self.experiment, self.runtime, self.outcome, sweep=self.sweep)

    def _record(self, started: datetime, error: BaseException | None) -> Record:
        found, runtime = self.outcome, self.runtime
        known = self.experiment.model_dump(mode="json") if self.experiment else dict(self.tree)
        return Record(
            key=found.key(self.experiment) if self.experiment else digest(known),
            status="failed" if error else "ok",
            error=_failure(error) if error else None,
            experiment=known,
            started=started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            data=found.data,  # type: ignore[arg-type]
            model=found.model,
            scores=found.scores,
            scoring=found.scoring,
            parity=found.parity,  # type: ignore[arg-type]
            latency=found.latency,
            host=found.host,
            bytes=found.bytes,
            sites=found.sites,  # type: ignore[arg-type]
            stages=[asdict(visit) for visit in runtime.visits] if runtime else [],  # type: ignore[misc]
            versions=versions(),
            git=git_state(),  # type: ignore[arg-type]
            warnings=list(runtime.screen.warnings) if runtime else [],
        )

    def _show(self, record: Record) -> None:
        from qexp.reporting.runs import print_run

        print_run(record)


def _file(record: Record) -> Path:
    """Write the Record; a failed rerun goes beside the result of an earlier run and never over it."""
    folder = records_folder(outputs_root())
    if record.status == "failed" and (folder / f"{record.key}.json").exists():
        with suppress(StoreError):  # what cannot be read is no result that could be lost
            if read(folder / f"{record.key}.json").status == "ok":
                return write(replace(record, key=f"{record.key}-failed"), folder)
    return write(record, folder)


def _failure(error: BaseException) -> Any:
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error) or type(error).__name__, "traceback": text}


def _print_error(error: BaseException) -> None:
    """One line for what the user can mend; a traceback for what only we can."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
    elif isinstance(error, QexpError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
