"""Dry runs: the stages that a command needs, which of them are cached, and how long the others may take.

Jobs run through the real pipeline with a context that builds nothing. Cache keys follow from the inputs, so
they are known before any artifact exists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from qexp.artifacts import Stage, digest
from qexp.artifacts.manifest import MANIFEST
from qexp.artifacts.types import Artifact
from qexp.config import Experiment
from qexp.config.validation_errors import explain
from qexp.console import print_out
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.errors import ConfigError, QexpError
from qexp.pipeline.pipeline import resolve_inputs, run_pipeline
from qexp.pipeline.results import NullResults
from qexp.records.record import Record, outputs_root, read_all, records_folder
from qexp.reporting.table import NOT_REQUESTED, Table, joined, markdown

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")
Sources = tuple[SourceRows, Checkpoint | ScratchModel]
Features = tuple[str, ...]
"""Stage, task, model and budget, which determine most of a stage's duration."""


@dataclass(frozen=True)
class RequiredStage:
    """Artifact that a job needs."""

    stage: str
    key: str
    there: bool
    features: Features


@dataclass(frozen=True)
class DryRunContext(RunContext):
    """Context that builds nothing, and lists the stages that a run would need."""

    features: Features = ()
    needs: list[RequiredStage] = field(default_factory=list)

    def run_stage(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> A_co:
        """Return the artifact that the stage would build; its files may not exist."""
        key = stage.key(stage.inputs(*args, **kwargs))
        folder = self.store.root / stage.name / key
        exists = (folder / MANIFEST).is_file()
        self.needs.append(RequiredStage(stage.name, key, exists, (stage.name, *self.features)))
        return stage.artifact(folder, key)


@dataclass
class Plan:
    """Stages that a set of jobs needs."""

    jobs: list[list[RequiredStage]] = field(default_factory=list)
    problems: dict[str, list[int]] = field(default_factory=dict)
    """Jobs that cannot be planned, by error message."""
    count: int = 0
    """Number of jobs that were added."""
    _sources: dict[str, Sources] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every job could be planned."""
        return not self.problems

    def add(self, tree: Mapping[str, Any], *, sweep: bool = False) -> None:
        """Plan a job; an error is kept in ``problems``."""
        job, self.count = self.count, self.count + 1
        try:
            self.jobs.append(self._needs(tree, sweep))
        except QexpError as error:
            self.problems.setdefault(str(error), []).append(job)

    def show(self) -> None:
        """Print the table of stages, with durations from the Records in the outputs."""
        print_out(self.text(_evidence()))

    def text(self, evidence: Mapping[Features, float]) -> str:
        """Return a Markdown table of stages; ``evidence`` has seconds of earlier stages by features."""
        needs_by_stage: dict[str, list[RequiredStage]] = defaultdict(list)
        for need in (need for job in self.jobs for need in job):
            needs_by_stage[need.stage].append(need)
        rows, all_seconds = [], []
        for stage, needs in sorted(needs_by_stage.items()):
            distinct = {need.key: need for need in needs}.values()
            missing = [need for need in distinct if not need.there]
            seconds = [_expected(need.features, evidence) for need in missing]
            counts = (len(needs), len(distinct), len(distinct) - len(missing), len(missing))
            rows.append((stage, *map(str, counts), _time(seconds) if missing else NOT_REQUESTED))
            all_seconds += seconds
        columns = ("stage", "asked for", "different", "cached", "to build", "time")
        caption = (
            f"In all {_time(all_seconds)}, one stage after another, if each takes what such stages took."
        )
        title = f"plan of {self.count} job{'s' if self.count > 1 else ''}"
        notes = (f"cannot run: job {joined(jobs)}: {problem}" for problem, jobs in self.problems.items())
        return markdown(Table(title, columns, rows=tuple(rows), caption=(caption,), notes=tuple(notes)))

    def _needs(self, tree: Mapping[str, Any], sweep: bool) -> list[RequiredStage]:
        try:
            experiment = Experiment.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        base = RunContext.at(outputs_root(), experiment.machine)
        features = (experiment.task.name, experiment.model.name, experiment.budget.name)
        ctx = DryRunContext(base.machine, base.store, base.console, features=features)
        run_pipeline(experiment, ctx, NullResults(), *self._rows_and_checkpoint(experiment, sweep))
        return ctx.needs

    def _rows_and_checkpoint(
        self, experiment: Experiment, sweep: bool
    ) -> tuple[SourceRows, Checkpoint | ScratchModel]:
        """Read rows and checkpoint once for all jobs that share them."""
        sections = {
            name: getattr(experiment, name).model_dump(mode="json") for name in ("data", "task", "model")
        }
        key = digest(sections)
        if key not in self._sources:
            self._sources[key] = resolve_inputs(experiment, sweep=sweep)
        return self._sources[key]


@dataclass
class DryRunLauncher:
    """Launcher that plans jobs instead of launching them."""

    plan: Plan
    compose: Callable[[Sequence[str]], Mapping[str, Any]]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Plan all jobs; returns no results."""
        for overrides in job_overrides:
            self.plan.add(self.compose(overrides), sweep=True)
        return []


def _evidence() -> dict[Features, float]:
    """Return the median seconds of stages that were built, by every prefix of their features."""
    folder = records_folder(outputs_root())
    records = read_all(folder)[0] if folder.is_dir() else []
    seconds: dict[Features, list[float]] = defaultdict(list)
    for record in records:
        for stage in (stage for stage in record.stages if stage["state"] == "built"):
            features = (stage["stage"], *_features(record))
            for length in range(1, len(features) + 1):
                seconds[features[:length]].append(stage["seconds"])
    return {features: median(times) for features, times in seconds.items()}


def _features(record: Record) -> Iterable[str]:
    for section in ("task", "model", "budget"):
        yield str((record.experiment.get(section) or {}).get("name"))


def _expected(features: Features, evidence: Mapping[Features, float]) -> float | None:
    """Return the seconds of the most similar stages, those with the longest common prefix of features."""
    for length in range(len(features), 0, -1):
        if features[:length] in evidence:
            return evidence[features[:length]]
    return None


def _time(seconds: Sequence[float | None]) -> str:
    """Format a total such as ``1 h 5 min``, and add the number of stages without a known duration."""
    durations = [each for each in seconds if each is not None]
    minutes, rest = divmod(round(sum(durations)), 60)
    hours, minutes = divmod(minutes, 60)
    total = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    if len(durations) == len(seconds):
        return total
    unknown = f"{len(seconds) - len(durations)} stages of unknown length"
    return f"{total}, and {unknown}" if durations else unknown
