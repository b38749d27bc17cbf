"""One run: validates the experiment, runs the pipeline, writes a Record, and prints the table.

What is refused before the first stage is no run: it leaves no Record, and the exit code is that of a wrong
command. Whatever ends later leaves one.
"""

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
from qexp.console import shown_path
from qexp.context import RunContext
from qexp.errors import FAILED, INTERRUPTED, INVALID, OK, ConfigError, QexpError
from qexp.execution.crash_records import (
    FIRST,
    PendingRecord,
    killed_failure,
    pending_record,
    record_dead_runs,
)
from qexp.execution.dry_run import required_stages, schedule
from qexp.execution.requirements import check_available
from qexp.execution.slurm import OUT_OF_TIME, restore_sigcont
from qexp.execution.sweep_log import JobResult, SweepLog
from qexp.execution.time_budget import within_minutes
from qexp.naming import MODEL_STAGES
from qexp.pipeline.description import announce
from qexp.pipeline.inputs import completed, resolve_inputs
from qexp.pipeline.pipeline import run_pipeline
from qexp.pipeline.results import RunResults
from qexp.records.outcome import GOES_ON
from qexp.records.provenance import git_state, versions
from qexp.records.record import (
    Record,
    delete_superseded_failure,
    failure_key,
    outputs_root,
    records_folder,
    save_record,
)
from qexp.records.schema import Failure, SweepJob
from qexp.tracking.mirror import Mirrors, mirrors_of


@dataclass(frozen=True)
class SweepPosition:
    """Position of a job in a sweep."""

    sweep_log: SweepLog
    job: int
    words: list[str]
    """Overrides of the job."""
    crowded: bool = False
    """Whether other jobs write to the same terminal, so that messages need a prefix."""

    @property
    def name(self) -> str:
        """Name and id of the sweep, which distinguish it from sweeps of the same name."""
        return f"{self.sweep_log.name}-{self.sweep_log.id}"

    @property
    def as_json(self) -> SweepJob:
        """Position in the form of a Record."""
        return {"name": self.sweep_log.name, "id": self.sweep_log.id, "job": self.job}


@dataclass
class Job:
    """Execution of one composed configuration, which ends in a Record.

    Attributes:
        tree: Composed configuration as plain values.
        sweep: Whether the run is part of a sweep; ``data=auto`` then never falls back on the sample.
    """

    tree: Mapping[str, Any]
    sweep: bool = False
    place: SweepPosition | None = None
    recipe: str | None = None
    """Recipe of the composed configuration, for its Record."""
    overrides: list[str] | None = None
    """Overrides that make the configuration again, for its Record; None if they are not all there is."""
    checked: bool = True
    """Whether a runtime or device that is not here is refused at once, and not recorded as a problem."""
    shown: bool = True
    """Whether to print the tables of the run."""
    threads: int | None = None
    """CPU threads if the experiment does not set them, for jobs that share a machine."""
    results: RunResults = field(default_factory=RunResults)
    experiment: Experiment | None = None
    first_key: str | None = None
    """Key of a Record that fails before the rows are read, which may complete the experiment."""
    runtime: RunContext | None = None
    began: bool = False
    """Whether the first stage was entered."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    mirrors: Mirrors = field(default_factory=Mirrors)

    def run(self) -> int:
        """Run the job, print its table or its error, and return the exit code."""
        restore_sigcont()
        outputs = outputs_root()
        try:
            record_dead_runs(outputs)
        except QexpError as problem:  # a problem with Records of other runs must not stop this one
            print(f"warning: {problem}", file=sys.stderr)
        try:
            with pending_record(outputs, self.place.sweep_log.folder if self.place else None) as pending:
                return self._run(pending)
        except QexpError as problem:
            _print_error(problem)
            return INVALID

    def _run(self, pending: PendingRecord) -> int:
        error: BaseException | None = None
        try:
            self._execute(pending)
        except (Exception, KeyboardInterrupt) as problem:
            error = problem
        if isinstance(error, QexpError) and not self.began:
            return self._refuse(error)
        record = self._record(_failure(error) if error else None)
        if error is None:
            record = _with_intervals(record)
        path = None
        try:
            path = save_record(record, records_folder(outputs_root()))
            if self.first_key and record.status == "ok":
                for key in (self.first_key, failure_key(record.key)):
                    delete_superseded_failure(key, records_folder(outputs_root()))
        except QexpError as problem:
            error = error or problem
        code = self._code(record, error)
        if error is not None:
            _print_error(error)
        elif self.shown:
            self._show(record)
        if path is not None:
            print(f"record: {shown_path(path)}", file=sys.stderr)
        try:
            self.mirrors.ends(record)
        except KeyboardInterrupt as problem:
            _print_error(problem)
            code = INTERRUPTED
        if self.place is not None:
            self.place.sweep_log.end(self._entry(self.place, record, code, error))
        return code

    def _refuse(self, error: QexpError) -> int:
        """Print why nothing was begun; in a sweep, its log keeps the first line for the summary."""
        if self.place is None or "\n" in str(error):
            _print_error(error)
        if (place := self.place) is not None:
            why = str(error).splitlines()[0]
            place.sweep_log.end(JobResult(job=place.job, words=place.words, code=INVALID, error=why))
        return INVALID

    def _execute(self, pending: PendingRecord) -> None:
        try:
            self.experiment = Experiment.model_validate(self.tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        self.first_key = RunResults().key(self.experiment)
        self._update_pending(pending, FIRST)
        self.runtime = RunContext.at(
            outputs_root(),
            self.experiment.machine,
            threads=self.threads,
            entering=lambda stage: self._enter(stage, pending),
            prefix=f"[{self.place.job}] " if self.place and self.place.crowded else "",
        )
        group = self.place.name if self.place else None
        self.mirrors = mirrors_of(self.experiment, self.runtime.console, outputs_root(), group=group)
        self.runtime = replace(self.runtime, listener=self.mirrors)
        if self.checked:
            check_available(self.experiment)
        rows, checkpoint = resolve_inputs(self.experiment, sweep=self.sweep)
        self.experiment = completed(self.experiment, rows, checkpoint)
        self.mirrors.update(self.experiment)
        announce(self.experiment, rows, self.runtime, self.recipe)
        choice = within_minutes(self.experiment, rows, checkpoint, self.runtime)
        if choice is not None and self.experiment.budget.minutes is not None:
            self.runtime.console.warn(choice.describe(self.experiment.budget.minutes))
            self.experiment = choice.experiment
            self.mirrors.update(self.experiment)
        self.results.start(rows, checkpoint)
        self.runtime.listener.found(self.results.key(self.experiment), rows.source)
        stages = required_stages(self.experiment, self.runtime, rows, checkpoint)
        with self.runtime.console.running(schedule(stages, outputs_root())):
            run_pipeline(
                self.experiment, self.runtime, results=self.results, rows=rows, checkpoint=checkpoint
            )

    def _enter(self, stage: str, pending: PendingRecord) -> None:
        self.began = True
        self._update_pending(pending, f"in {stage}")

    def _update_pending(self, pending: PendingRecord, when: str) -> None:
        pending.write(self._record(killed_failure(when)), self.place.words if self.place else [])

    @staticmethod
    def _code(record: Record, error: BaseException | None) -> int:
        if error is not None:
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        gates = [engine["gate"] for engine in record.engines.values() if "gate" in engine]
        return OK if all(gate["passed"] for gate in gates) else FAILED

    def _entry(
        self, place: SweepPosition, record: Record, code: int, error: BaseException | None
    ) -> JobResult:
        return JobResult(
            job=place.job,
            words=place.words,
            code=code,
            key=record.key,
            error=_first_line(error) if error else None,
            seconds=(record.finished_at - self.started).total_seconds(),
            stages=list(record.stages),
            score=self._score(),
        )

    def _score(self) -> float | None:
        """Return the primary metric of the last stage that was evaluated in torch, or None."""
        stages = [name for name in MODEL_STAGES if name in self.results.scores]
        return next(iter(self.results.scores[stages[-1]].values()), None) if stages else None

    def _record(self, failure: Failure | None) -> Record:
        results, runtime = self.results, self.runtime
        experiment = self.experiment.model_dump(mode="json") if self.experiment else dict(self.tree)
        return Record(
            key=results.key(self.experiment) if self.experiment else digest(experiment),
            status="failed" if failure else "ok",
            recipe=self.recipe,
            overrides=self.overrides,
            labels=self.experiment.labels if self.experiment else {},
            error=failure,
            experiment=experiment,
            started=self.started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            data=results.data,  # type: ignore[arg-type]
            model=results.model,
            scores=results.scores,
            scoring=results.scoring,
            shifts=results.shifts,
            caveats=results.caveats,
            parity=results.parity,  # type: ignore[arg-type]
            latency=results.latency,
            host=results.host,
            engines=results.engines,  # type: ignore[arg-type]
            bytes=results.bytes,
            sites=results.sites,  # type: ignore[arg-type]
            curves=results.curves,
            selection=results.selection,
            ranges=results.ranges,
            outliers=results.outliers,
            sweep=self.place.as_json if self.place else None,
            stages=[asdict(visit) for visit in runtime.visits] if runtime else [],  # type: ignore[misc]
            versions=versions(),
            git=git_state(),  # type: ignore[arg-type]
            warnings=list(runtime.console.warnings) if runtime else [],
        )

    def _show(self, record: Record) -> None:
        from qexp.reporting.formats.terminal import print_run

        print_run(record, outputs_root(), verdict=self.place is None)


def _with_intervals(record: Record) -> Record:
    """Return the Record with the intervals of its scores, which need the predictions in the store."""
    from qexp.reporting.verdict.score_intervals import score_intervals

    return replace(record, intervals=score_intervals(record, outputs_root()))


def _failure(error: BaseException) -> Failure:
    text = "".join(traceback.format_exception(error))
    cause = next((each for each in _chain(error) if type(each).__name__ == OUT_OF_TIME), error)
    return {"type": type(cause).__name__, "message": str(cause) or type(cause).__name__, "traceback": text}


def _first_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not str(error):
        return GOES_ON
    return _failure(error)["message"].splitlines()[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, as a library may wrap the error of a scheduler in its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _print_error(error: BaseException) -> None:
    """Print one line for an error that the user can fix, and a traceback for a programming mistake."""
    if isinstance(error, KeyboardInterrupt):
        print(str(error) or GOES_ON, file=sys.stderr)
    elif isinstance(error, QexpError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
