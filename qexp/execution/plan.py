"""Plans: what a set of jobs would build, as a table, without building anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from qexp.artifacts import digest
from qexp.config import Experiment
from qexp.config.validation_errors import explain
from qexp.console import print_out
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.errors import ConfigError, QexpError
from qexp.execution.dry_run import ExpectedTime, RequiredStage, required_stages
from qexp.execution.stage_times import Features, evidence
from qexp.execution.time_budget import within_minutes
from qexp.pipeline.description import describe, describe_settings
from qexp.pipeline.inputs import completed, resolve_inputs
from qexp.progress.durations import total_duration
from qexp.records.record import outputs_root
from qexp.reporting.table import NOT_REQUESTED, Table, joined, markdown

Sources = tuple[SourceRows, Checkpoint | ScratchModel]
MOST_LISTED = 8
"""Jobs that a plan describes."""
UNMEASURED = " budget.minutes takes less of this, by rates that the run measures first."


def describe_times(times: Sequence[ExpectedTime]) -> str:
    """Format a total such as ``1 h 5 min``; ``about`` precedes one by the rule."""
    text = total_duration([each.seconds for each in times])
    guessed = any(each.by_rule and each.seconds is not None for each in times)
    return f"about {text}" if guessed else text


def _caption(times: Sequence[ExpectedTime]) -> str:
    """Return a sentence on the time of all stages, one after another, and where it is from."""
    if not times:
        return "Nothing to build: every stage is cached."
    stages = f"{len(times)} stage{'s' if len(times) > 1 else ''} to build"
    unknown = [each for each in times if each.seconds is None]
    if len(unknown) == len(times):
        return f"{stages}, time unknown: none has run here yet."
    sources = []
    if any(not each.by_rule for each in times):
        sources.append("what such stages took here")
    if any(each.by_rule and each.seconds is not None for each in times):
        sources.append("rows, length, sizes of the model and the rate of matrix products of this machine")
    missing = f", and {len(unknown)} of unknown time" if unknown else ""
    return f"{stages}, one after another {describe_times(times)}{missing}: by {', else by '.join(sources)}."


@dataclass
class Plan:
    """Stages that a set of jobs needs."""

    jobs: list[list[RequiredStage]] = field(default_factory=list)
    problems: dict[str, list[int]] = field(default_factory=dict)
    """Jobs that cannot be planned, by error message."""
    count: int = 0
    """Number of jobs that were added."""
    titles: list[str] = field(default_factory=list)
    """What each job is: rows, bit-widths, recipe, and chosen settings."""
    _sources: dict[str, Sources] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every job could be planned."""
        return not self.problems

    def add(self, tree: Mapping[str, Any], *, sweep: bool = False, recipe: str | None = None) -> None:
        """Plan a job; an error is kept in ``problems``."""
        job, self.count = self.count, self.count + 1
        try:
            self.jobs.append(self._needs(tree, sweep, recipe))
        except QexpError as error:
            self.problems.setdefault(str(error), []).append(job)

    def show(self) -> None:
        """Print the table of stages, with durations from the Records in the outputs."""
        print_out(self.text(evidence(outputs_root())))

    def text(self, known: Mapping[Features, float]) -> str:
        """Return a Markdown table of stages; ``known`` has seconds of earlier stages by features."""
        needs_by_stage: dict[str, list[RequiredStage]] = defaultdict(list)
        for need in (need for job in self.jobs for need in job):
            needs_by_stage[need.stage].append(need)
        rows, times = [], []
        for stage, needs in sorted(needs_by_stage.items()):
            distinct = {need.key: need for need in needs}.values()
            missing = [need for need in distinct if not need.there]
            taken = [need.time(known) for need in missing]
            counts = (len(needs), len(distinct), len(distinct) - len(missing), len(missing))
            rows.append((stage, *map(str, counts), describe_times(taken) if missing else NOT_REQUESTED))
            times += taken
        columns = ("stage", "asked for", "different", "cached", "to build", "time")
        title = f"plan of {self.count} job{'s' if self.count > 1 else ''}"
        notes = (f"cannot run: job {joined(jobs)}: {problem}" for problem, jobs in self.problems.items())
        caption = (*self._listed(), _caption(times))
        return markdown(Table(title, columns, rows=tuple(rows), caption=caption, notes=tuple(notes)))

    def _listed(self) -> tuple[str, ...]:
        """Return what the jobs are, the first of them where they are many."""
        more = len(self.titles) - MOST_LISTED
        return (*self.titles[:MOST_LISTED], *([f"and {more} more"] if more > 0 else []))

    def _needs(self, tree: Mapping[str, Any], sweep: bool, recipe: str | None) -> list[RequiredStage]:
        try:
            experiment = Experiment.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None
        rows, checkpoint = self._rows_and_checkpoint(experiment, sweep)
        base = RunContext.at(outputs_root(), experiment.machine)
        experiment = completed(experiment, rows, checkpoint)
        title = f"{describe(experiment, rows, recipe)}; {describe_settings(experiment)}."
        if (minutes := experiment.budget.minutes) is not None:
            choice = within_minutes(experiment, rows, checkpoint, base, measure=False)
            experiment = choice.experiment if choice else experiment
            title += f" {choice.describe(minutes)}." if choice else UNMEASURED
        self.titles.append(title)
        return required_stages(experiment, base, rows, checkpoint)

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
            recipe = next((word[len("recipe=") :] for word in overrides if word.startswith("recipe=")), None)
            self.plan.add(self.compose(overrides), sweep=True, recipe=recipe)
        return []
