"""One run: validate, walk the line, leave a Record behind whatever happens, show the table."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from qexp.artifacts import digest
from qexp.config import Experiment
from qexp.config.validation_errors import explain
from qexp.context import Runtime
from qexp.errors import FAILED, INTERRUPTED, OK, ConfigError, QexpError
from qexp.execution.crash_records import FIRST, LastWords, bury, death, last_words
from qexp.execution.slurm import OUT_OF_TIME
from qexp.execution.sweep_log import Entry, Ledger
from qexp.pipeline.pipeline import announce, run_line, sources_of
from qexp.pipeline.results import Outcome
from qexp.records.provenance import git_state, versions
from qexp.records.record import Record, failure_key, file_record, forget_failure, outputs_root, records_folder
from qexp.records.schema import Failure, SweepJob
from qexp.reporting.run_view import TORCH_STAGES
from qexp.tracking.mirror import Mirror, mirror_of


@dataclass(frozen=True)
class Place:
    """Where a job stands in a sweep."""

    ledger: Ledger
    job: int
    words: list[str]
    """What tells it from the others."""
    crowded: bool = False
    """Whether other jobs write to the same terminal at the same time."""

    @property
    def name(self) -> str:
        """Of the sweep, with what tells it from others of that name."""
        return f"{self.ledger.name}-{self.ledger.id}"

    @property
    def as_json(self) -> SweepJob:
        """For its Record."""
        return {"name": self.ledger.name, "id": self.ledger.id, "job": self.job}


@dataclass
class Job:
    """A tree of words on its way to a Record.

    ``sweep``: the run is one of several; ``data=auto`` then never falls back on the sample.
    """

    tree: Mapping[str, Any]
    sweep: bool = False
    place: Place | None = None
    recipe: str | None = None
    """Name of the recipe that the tree was composed with, for its Record."""
    threads: int | None = None
    """CPU threads where the experiment leaves them open, for jobs that share a machine."""
    outcome: Outcome = field(default_factory=Outcome)
    experiment: Experiment | None = None
    runtime: Runtime | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    mirror: Mirror | None = None

    def run(self) -> int:
        """Do it; print the table or the error; return the exit code."""
        outputs = outputs_root()
        try:
            bury(outputs)
        except QexpError as problem:  # of other runs: no reason to stop this one
            print(f"warning: {problem}", file=sys.stderr)
        try:
            with last_words(outputs, self.place.ledger.folder if self.place else None) as words:
                return self._run(words)
        except QexpError as problem:
            _print_error(problem)
            return FAILED

    def _run(self, words: LastWords) -> int:
        error: BaseException | None = None
        try:
            self._walk(words)
        except (Exception, KeyboardInterrupt) as problem:
            error = problem
        record = self._record(_failure(error) if error else None)
        path = None
        try:
            path = file_record(record, records_folder(outputs_root()))
            if self.experiment and record.status == "ok":
                for key in (Outcome().key(self.experiment), failure_key(record.key)):
                    forget_failure(key, records_folder(outputs_root()))
        except QexpError as problem:
            error = error or problem
        code = self._code(record, error)
        if error is not None:
            _print_error(error)
        else:
            self._show(record)
        if path is not None:
            print(f"record: {path}", file=sys.stderr)
        try:
            if self.mirror is not None:
                self.mirror.ends(record)
        except KeyboardInterrupt as problem:
            _print_error(problem)
            code = INTERRUPTED
        if self.place is not None:
            self.place.ledger.end(self._entry(self.place, record, code, error))
        return code

    def _walk(self, words: LastWords) -> None:
        try:
            self.experiment = Experiment.model_validate(self.tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        self._say_if_killed(words, FIRST)
        self.runtime = Runtime.at(
            outputs_root(), self.experiment.machine, threads=self.threads,
            entering=lambda stage: self._say_if_killed(words, f"in {stage}"),
            prefix=f"[{self.place.job}] " if self.place and self.place.crowded else "",
        )  # fmt: skip
        group = self.place.name if self.place else None
        self.mirror = mirror_of(self.experiment, self.runtime.screen, outputs_root(), group=group)
        if self.mirror is not None:
            self.runtime = replace(self.runtime, follower=self.mirror)
        rows, checkpoint = sources_of(self.experiment, sweep=self.sweep)
        announce(self.experiment, rows, self.runtime, self.recipe)
        self.outcome.start(rows, checkpoint)
        self.runtime.follower.found(self.outcome.key(self.experiment), rows.source)
        run_line(self.experiment, self.runtime, self.outcome, rows, checkpoint)

    def _say_if_killed(self, words: LastWords, when: str) -> None:
        words.write(self._record(death(when)), self.place.words if self.place else [])

    @staticmethod
    def _code(record: Record, error: BaseException | None) -> int:
        if error is not None:
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        gates = [found["gate"] for found in record.engines.values() if "gate" in found]
        return OK if all(gate["passed"] for gate in gates) else FAILED

    def _entry(self, place: Place, record: Record, code: int, error: BaseException | None) -> Entry:
        return Entry(
            job=place.job,
            words=place.words,
            code=code,
            key=record.key,
            error=_failure(error)["message"].splitlines()[0] if error else None,
            seconds=(record.finished_at - self.started).total_seconds(),
            stages=list(record.stages),
            score=self._score(),
        )

    def _score(self) -> float | None:
        """The primary metric of the last stage that was evaluated in torch."""
        stages = [name for name in TORCH_STAGES if name in self.outcome.scores]
        return next(iter(self.outcome.scores[stages[-1]].values()), None) if stages else None

    def _record(self, failure: Failure | None) -> Record:
        found, runtime = self.outcome, self.runtime
        known = self.experiment.model_dump(mode="json") if self.experiment else dict(self.tree)
        return Record(
            key=found.key(self.experiment) if self.experiment else digest(known),
            status="failed" if failure else "ok",
            recipe=self.recipe,
            error=failure,
            experiment=known,
            started=self.started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            data=found.data,  # type: ignore[arg-type]
            model=found.model,
            scores=found.scores,
            scoring=found.scoring,
            caveats=found.caveats,
            parity=found.parity,  # type: ignore[arg-type]
            latency=found.latency,
            host=found.host,
            engines=found.engines,  # type: ignore[arg-type]
            bytes=found.bytes,
            sites=found.sites,  # type: ignore[arg-type]
            curves=found.curves,
            ranges=found.ranges,
            sweep=self.place.as_json if self.place else None,
            stages=[asdict(visit) for visit in runtime.visits] if runtime else [],  # type: ignore[misc]
            versions=versions(),
            git=git_state(),  # type: ignore[arg-type]
            warnings=list(runtime.screen.warnings) if runtime else [],
        )

    def _show(self, record: Record) -> None:
        from qexp.reporting.tables.run import print_run

        print_run(record)


def _failure(error: BaseException) -> Failure:
    text = "".join(traceback.format_exception(error))
    cause = next((each for each in _chain(error) if type(each).__name__ == OUT_OF_TIME), error)
    return {"type": type(cause).__name__, "message": str(cause) or type(cause).__name__, "traceback": text}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of: a library may put its own in the place of a scheduler's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _print_error(error: BaseException) -> None:
    """One line for what the user can mend; a traceback for what only we can."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
    elif isinstance(error, QexpError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
