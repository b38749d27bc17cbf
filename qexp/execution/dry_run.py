"""Dry runs: the stages that a run needs, which of them are cached, and how long the others may take.

A run goes through the real pipeline with a context that builds nothing. Cache keys follow from the inputs, so
they are known before any artifact exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from qexp.artifacts import Stage
from qexp.artifacts.manifest import MANIFEST
from qexp.artifacts.types import Artifact
from qexp.config import Experiment
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.execution.stage_times import Features, StageRule, evidence, expected, rule_for
from qexp.naming import StageName
from qexp.pipeline.pipeline import run_pipeline
from qexp.pipeline.results import NullResults
from qexp.progress.activity import ExpectedStage

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")
ALIKE_IN_BUDGETS = {StageName.TOKENS, StageName.RANGES, StageName.ONNX, StageName.FP16}
"""Stages whose work does not depend on the budget."""


@dataclass(frozen=True)
class ExpectedTime:
    """Seconds that a stage may take, and whether a rule says so."""

    seconds: float | None
    by_rule: bool


@dataclass(frozen=True)
class RequiredStage:
    """Artifact that a job needs."""

    stage: str
    key: str
    there: bool
    features: Features
    estimate: float | None
    """Seconds by a rule from rows, length and model; None where there is no rule."""
    part: str = ""
    """Model or engine that the stage works on."""

    def time(self, known: Mapping[Features, float]) -> ExpectedTime:
        """Return the time of stages of the same task, model and budget, else by the rule, else of others."""
        same = expected(self.features, known, least=3 if self.stage in ALIKE_IN_BUDGETS else 4)
        if same is None and self.estimate is not None:
            return ExpectedTime(self.estimate, by_rule=True)
        return ExpectedTime(expected(self.features, known) if same is None else same, by_rule=False)


@dataclass(frozen=True)
class DryRunContext(RunContext):
    """Context that builds nothing, and lists the stages that a run would need."""

    features: Features = ()
    needs: list[RequiredStage] = field(default_factory=list)
    rule: StageRule | None = None

    def run_stage(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> A_co:
        """Return the artifact that the stage would build; its files may not exist."""
        key = stage.key(stage.inputs(*args, **kwargs))
        folder = self.store.root / stage.name / key
        exists = (folder / MANIFEST).is_file()
        estimate = self.rule.seconds(stage.name, self.part) if self.rule else None
        self.needs.append(
            RequiredStage(
                stage.name,
                key,
                there=exists,
                features=(stage.name, *self.features),
                estimate=estimate,
                part=self.part,
            )
        )
        return stage.artifact(folder, key)


def required_stages(
    experiment: Experiment, base: RunContext, rows: SourceRows, checkpoint: Checkpoint | ScratchModel
) -> list[RequiredStage]:
    """Return the stages that a run visits, in their order."""
    experiment = experiment.with_task(rows.task)
    features = (experiment.task.name, experiment.model.name, experiment.budget.name)
    rule = rule_for(experiment, rows, checkpoint)
    ctx = DryRunContext(base.machine, base.store, base.console, features=features, rule=rule)
    run_pipeline(experiment, ctx, NullResults(), rows=rows, checkpoint=checkpoint)
    return ctx.needs


def schedule(stages: Sequence[RequiredStage], outputs: Path) -> list[ExpectedStage]:
    """Return the stages of a run with their expected seconds, for its progress."""
    known = {} if all(stage.there for stage in stages) else evidence(outputs)
    return [ExpectedStage(stage.key, stage.there, stage.time(known).seconds) for stage in stages]
