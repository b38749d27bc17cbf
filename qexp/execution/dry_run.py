"""What a command would do: which stages are there, which are not, and how long those may take.

Jobs walk down the real line with a runtime that builds nothing; keys follow from what is read, so they are
known before any artifact is there.
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
from qexp.context import Runtime
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.sources.resolve import Rows
from qexp.errors import ConfigError, QexpError
from qexp.pipeline.pipeline import run_line, sources_of
from qexp.pipeline.results import Nothing
from qexp.records.record import Record, outputs_root, read_all, records_folder
from qexp.reporting.table import NOT_ASKED, Table, joined, markdown

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")
Sources = tuple[Rows, Checkpoint | Blueprint]
Features = tuple[str, ...]
"""Stage, task, model and budget: what most of a stage's time depends on."""


@dataclass(frozen=True)
class Need:
    """One artifact that a job needs."""

    stage: str
    key: str
    there: bool
    features: Features


@dataclass(frozen=True)
class Forecast(Runtime):
    """A runtime that builds nothing and notes what it would."""

    features: Features = ()
    needs: list[Need] = field(default_factory=list)

    def walk(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> A_co:
        """The artifact as it will be; its files need not be there."""
        key = stage.key(stage.inputs(*args, **kwargs))
        folder = self.store.root / stage.name / key
        there = (folder / MANIFEST).is_file()
        self.needs.append(Need(stage.name, key, there, (stage.name, *self.features)))
        return stage.artifact(folder, key)


@dataclass
class Plan:
    """What some jobs need, together."""

    jobs: list[list[Need]] = field(default_factory=list)
    problems: dict[str, list[int]] = field(default_factory=dict)
    """Jobs that cannot be planned, by what is wrong with them."""
    count: int = 0
    """Jobs that were added."""
    _sources: dict[str, Sources] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every job could be planned."""
        return not self.problems

    def add(self, tree: Mapping[str, Any], *, sweep: bool = False) -> None:
        """Walk one job; what is wrong with it is noted."""
        job, self.count = self.count, self.count + 1
        try:
            self.jobs.append(self._needs(tree, sweep))
        except QexpError as error:
            self.problems.setdefault(str(error), []).append(job)

    def show(self) -> None:
        """Print it."""
        print_out(self.text(_evidence()))

    def text(self, evidence: Mapping[Features, float]) -> str:
        """As a table of stages, with the seconds that such stages took before, by their features."""
        asked: dict[str, list[Need]] = defaultdict(list)
        for need in (need for job in self.jobs for need in job):
            asked[need.stage].append(need)
        rows, all_seconds = [], []
        for stage, needs in sorted(asked.items()):
            different = {need.key: need for need in needs}.values()
            missing = [need for need in different if not need.there]
            seconds = [_expected(need.features, evidence) for need in missing]
            counts = (len(needs), len(different), len(different) - len(missing), len(missing))
            rows.append((stage, *map(str, counts), _time(seconds) if missing else NOT_ASKED))
            all_seconds += seconds
        columns = ("stage", "asked for", "different", "cached", "to build", "time")
        caption = (
            f"In all {_time(all_seconds)}, one stage after another, if each takes what such stages took."
        )
        title = f"plan of {self.count} job{'s' if self.count > 1 else ''}"
        notes = (f"cannot run: job {joined(jobs)}: {problem}" for problem, jobs in self.problems.items())
        return markdown(Table(title, columns, tuple(rows), (caption,), tuple(notes)))

    def _needs(self, tree: Mapping[str, Any], sweep: bool) -> list[Need]:
        try:
            experiment = Experiment.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        plain = Runtime.at(outputs_root(), experiment.machine)
        features = (experiment.task.name, experiment.model.name, experiment.budget.name)
        forecast = Forecast(plain.machine, plain.store, plain.screen, features=features)
        run_line(experiment, forecast, Nothing(), *self._rows_and_checkpoint(experiment, sweep))
        return forecast.needs

    def _rows_and_checkpoint(
        self, experiment: Experiment, sweep: bool
    ) -> tuple[Rows, Checkpoint | Blueprint]:
        """Read once for all jobs that share them."""
        of = {name: getattr(experiment, name).model_dump(mode="json") for name in ("data", "task", "model")}
        key = digest(of)
        if key not in self._sources:
            self._sources[key] = sources_of(experiment, sweep=sweep)
        return self._sources[key]


@dataclass
class Planned:
    """A launcher that launches nothing."""

    plan: Plan
    compose: Callable[[Sequence[str]], Mapping[str, Any]]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Plan all jobs."""
        for words in job_overrides:
            self.plan.add(self.compose(words), sweep=True)
        return []


def _evidence() -> dict[Features, float]:
    """Median seconds of stages that were built, by their features, and by fewer and fewer of them."""
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
    """Seconds of the most similar stages; of another budget or model where there is nothing closer."""
    for length in range(len(features), 0, -1):
        if features[:length] in evidence:
            return evidence[features[:length]]
    return None


def _time(seconds: Sequence[float | None]) -> str:
    """``1 h 5 min``, with the number of stages of which nothing is known."""
    known = [each for each in seconds if each is not None]
    minutes, rest = divmod(round(sum(known)), 60)
    hours, minutes = divmod(minutes, 60)
    told = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    if len(known) == len(seconds):
        return told
    unknown = f"{len(seconds) - len(known)} stages of unknown length"
    return f"{told}, and {unknown}" if known else unknown
