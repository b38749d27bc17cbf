"""Configuration of one run, and the resolution of its derived defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from qexp.config.any_task import AnyTask
from qexp.config.base import Section
from qexp.config.batch_size import check_batches
from qexp.config.calibration import AnyCalibrator, Calibration
from qexp.config.deploy import (
    FLOOR_ROWS,
    Accept,
    AnyDeploy,
    Budget,
    DeployEngines,
    Gate,
    Machine,
    Numerics,
    TrainingSetup,
)
from qexp.config.dynamic import refuse_gate_rows, refuse_unread
from qexp.config.embedding import BiEncoderTask
from qexp.config.floats import refuse_for_floats
from qexp.config.quantization import Placement, Quant, QuantizationConfig, Scheme
from qexp.config.refinement import Refinement
from qexp.config.resolution import resolve_defaults
from qexp.config.search_engines import refuse_search_engines
from qexp.config.task import Data, Model, Task, score_name
from qexp.config.tracking import Tags, Trackers
from qexp.config.training import AnyFinetune, AnyMethod, ContinuedTraining, Finetune, NoFinetune, Qat
from qexp.config.translation import TranslationTask

_NOT_IDENTITY: dict[str, Any] = {
    "accept": True,
    "machine": True,
    "tracker": True,
    "tags": True,
    "note": True,
    "data": {*Data.model_fields} - {"train_rows"},  # rows are known by their content
    "budget": {"minutes"},  # what was chosen for them counts
}


class Experiment(Section):
    """Configuration of one run: what is computed, in ``machine`` how, and in the rest what it is called.

    ``accept`` judges what was computed.
    """

    task: AnyTask
    model: Model
    data: Data = Data()
    quant: Quant = Quant()
    scheme: Scheme = Scheme()
    calibrator: AnyCalibrator
    calibration: Calibration = Calibration()
    placement: Placement
    refinement: Refinement = Refinement()
    finetune: AnyFinetune
    method: AnyMethod
    deploy: AnyDeploy
    gate: Gate = Gate()
    accept: Accept = Accept()
    budget: Budget = Budget()
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of every draw: new head, order of rows, dropout, calibration rows."""

    machine: Machine = Machine()
    tracker: Trackers = Trackers()
    tags: Tags = ()
    """Words to find the run by: in ``qexp runs``, as names of runs, and on the page of a tracker."""
    note: str | None = Field(default=None, min_length=1)
    """Sentence about the run, for people."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, tree: Any) -> Any:
        return resolve_defaults(tree) if isinstance(tree, Mapping) else tree

    @model_validator(mode="after")
    def _check_contradictions(self) -> Self:
        if not self.quant.enabled and self.method.kind in ("ptq", "qat"):
            raise ValueError(
                f"method={self.method.kind} with quant=fp32: there is nothing to quantize; "
                "drop method=…, or choose bit-widths such as quant=w8a8"
            )
        if self.quant.enabled and self.method.kind == "control":
            raise ValueError(
                f"method=control with quant={self.quant.name}: the control is trained without quantizers; "
                "use quant=fp32, or method=qat"
            )
        return self

    @model_validator(mode="after")
    def _check_precisions(self) -> Self:
        deploy = self.deploy
        if self.quant.enabled or not isinstance(deploy, DeployEngines):
            return self
        if deploy.asked and all(precision == "int8" for _, precision in deploy.asked):
            raise ValueError(
                f"deploy.precisions=[{','.join(deploy.precisions)}] with quant=fp32: a float model has no "
                f"int8, and {' and '.join(deploy.runtimes)} have nothing else; ask for fp32 too, or choose "
                "bit-widths such as quant=w8a8"
            )
        return self

    @model_validator(mode="after")
    def _check_trainable_ranges(self) -> Self:
        method, machine = self.method, self.machine
        if not isinstance(method, Qat):
            return self
        if method.ranges == "ema" and machine.devices > 1:
            raise ValueError(
                f"method.ranges=ema with machine.devices={machine.devices}: ranges of each process would "
                "follow its own part of a batch; use machine.devices=1 with machine.accumulate, or "
                "method.ranges=learned"
            )
        if method.ranges == "ema" and machine.compile:
            raise ValueError(
                "method.ranges=ema with machine.compile=true: a compiled graph may see a value more than "
                "once, and its range would follow it each time; use machine.compile=false, or "
                "method.ranges=learned"
            )
        if method.gradient == "all" and machine.compile:
            raise ValueError(
                "method.gradient=all with machine.compile=true: a compiled graph would round far outside the "
                "range otherwise; use machine.compile=false, or method.gradient=range"
            )
        if method.zero_points == "learned" and not self._has_zero_points:
            raise ValueError(
                "method.zero_points=learned: no activation has a fixed grid with a zero point, so there is "
                "none to learn; use scheme.activation.symmetric=false with a range per tensor, or "
                "method.zero_points=fixed"
            )
        return self

    @model_validator(mode="after")
    def _check_training_start(self) -> Self:
        method, finetune = self.method, self.finetune
        if not isinstance(method, ContinuedTraining):
            return self
        if method.schedule == "continued" and finetune.schedule != "inverse_sqrt":
            raise ValueError(
                f"method.schedule=continued with finetune.schedule={finetune.schedule}: that rate has come "
                "down to 0, so there is none to go on with; use finetune.schedule=inverse_sqrt, or "
                "method.schedule=null"
            )
        pretrained = isinstance(method, Qat) and method.start == "pretrained"
        if pretrained and (isinstance(finetune, NoFinetune) or self.model.scratch):
            source = "finetune=none" if isinstance(finetune, NoFinetune) else f"model={self.model.name}"
            raise ValueError(
                f"method.start=pretrained with {source}: there is no pretrained model beside the fine-tuned "
                "one; use method.start=finetuned"
            )
        if pretrained and self.refinement.name != "none":
            raise ValueError(
                f"method.start=pretrained with refinement={self.refinement.name}: it refines the fine-tuned "
                "model, which is not trained on; use refinement=none, or method.start=finetuned"
            )
        return self

    @model_validator(mode="after")
    def _check_grids(self) -> Self:
        refuse_unread(self.quant_config, self.calibrator, self.calibration, self.refinement)
        refuse_gate_rows(self.quant_config, self.gate)
        refuse_for_floats(self)
        return self

    @model_validator(mode="after")
    def _check_padding(self) -> Self:
        if self.calibration.padding == "max_length" and isinstance(self.task, TranslationTask):
            raise ValueError(
                "calibration.padding=max_length with a translation: its two sequences have no length in "
                "common; use calibration.padding=batch or masked"
            )
        return self

    @model_validator(mode="after")
    def _check_refinement(self) -> Self:
        refinement, quant, sites = self.refinement, self.quant, self.placement.sites
        if not quant.enabled:
            return self
        weights = quant.quantizes_weights and "linear.weight" in sites
        if refinement.changes_weights and not weights:
            raise ValueError(
                f"refinement={refinement.name} with quant={quant.name} and placement={self.placement.name}: "
                "no weight of a linear layer is quantized; drop refinement=…, or choose bits below 32 and a "
                "placement with linear.weight"
            )
        inputs = quant.quantizes_activations and "linear.input" in sites
        if refinement.migration is not None and not (weights and inputs):
            raise ValueError(
                f"refinement.migration={refinement.migration} with quant={quant.name} and "
                f"placement={self.placement.name}: range moves from quantized inputs of linear layers into "
                "their quantized weights, and one of the two stays in floating point; set "
                "refinement.migration=null"
            )
        return self

    @model_validator(mode="after")
    def _check_embedding_bits(self) -> Self:
        quant, sites = self.quant, self.placement.sites
        own = quant.embedding_bits not in (None, quant.weight_bits)
        if quant.enabled and own and "embedding.weight" not in sites:
            raise ValueError(
                f"quant.embedding_bits={quant.embedding_bits} with placement={self.placement.name}: it "
                "leaves tables of embeddings in floating point; add embedding.weight to placement.sites, "
                "choose a placement that has it, or set quant.embedding_bits=null"
            )
        return self

    @model_validator(mode="after")
    def _check_search_engines(self) -> Self:
        refuse_search_engines(self.task, self.deploy)
        return self

    @model_validator(mode="after")
    def _check_from_scratch_task(self) -> Self:
        if self.model.scratch and not isinstance(self.task, TranslationTask):
            raise ValueError(
                f"model={self.model.name} with task={self.task.name}: models from scratch translate; choose "
                "a pretrained encoder, or task=translation"
            )
        if self.model.scratch and not isinstance(self.finetune, Finetune):
            raise ValueError(
                f"finetune={self.finetune.kind} with model={self.model.name}: a model from scratch has not "
                "learned anything; use finetune=full"
            )
        return self

    @model_validator(mode="after")
    def _check_embedding_training(self) -> Self:
        if not isinstance(self.method, ContinuedTraining):
            return self
        if not isinstance(self.task, BiEncoderTask):
            if weight := self.method.distillation.similarity:
                raise ValueError(
                    f"method.distillation.similarity={weight:g} with task={self.task.name}: similarities are "
                    "of vectors of texts; set it to 0, or choose task=embedding or task=retrieval"
                )
            return self
        if labels := self.method.distillation.labels:
            raise ValueError(
                f"method.distillation.labels={labels:g} with task={self.task.name}: "
                "an embedding learns from the FP32 model alone; set method.distillation.labels=0 and "
                "method.distillation.logits=1"
            )
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        check_batches(self.finetune, self.method, task=self.task, machine=self.machine)
        return self

    @property
    def _has_zero_points(self) -> bool:
        """Whether any activation may have a zero point that is not computed anew for each batch."""
        schemes = self.quant_config.activation_schemes
        return any(not each.symmetric and each.dynamic is None for each in schemes)

    @property
    def floor_rows(self) -> int | None:
        """Rows of each evaluation split in the noise floor; None is all, where rows keep their batches."""
        if self.quant_config.depends_on_batch:
            return self.gate_rows
        return min(FLOOR_ROWS, self.gate_rows or FLOOR_ROWS)

    @property
    def gate_rows(self) -> int | None:
        """Number of rows of each evaluation split that the gate compares; None is all."""
        limits = [each for each in (self.gate.rows, self.budget.evaluation_rows) if each is not None]
        return min(limits, default=None)

    @property
    def numerics(self) -> Numerics:
        """Settings of the machine that can change bits of a result."""
        return Numerics.of(self.machine)

    @property
    def training_setup(self) -> TrainingSetup:
        """Settings that all trainings of the run share."""
        return TrainingSetup(
            train_rows=self.data.train_rows,
            train_steps=self.budget.train_steps,
            seed=self.seed,
            numerics=self.numerics,
        )

    @property
    def quant_config(self) -> QuantizationConfig:
        """Sites and grids of the quantized model."""
        return QuantizationConfig(placement=self.placement, quant=self.quant, scheme=self.scheme)

    @property
    def labels(self) -> dict[str, Any]:
        """Names of the run in tables, as plain JSON values."""
        task = self.task
        names = [score_name(metric, split, task) for split in task.evaluation for metric in task.metrics]
        return {
            "task": self.task.name, "model": self.model.name, "method": self.method.kind,
            "quant": self.quant.name, "metrics": names, "seed": self.seed, "budget": self.budget.name,
        }  # fmt: skip

    def with_task(self, task: Task) -> Self:
        """Return the experiment with what the rows told of its task: classes, range and metrics."""
        return self.model_copy(update={"task": task})

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that determine the results, as plain JSON values."""
        tree = self.model_dump(mode="json", exclude=_NOT_IDENTITY)
        return tree | {"numerics": self.numerics.model_dump(mode="json")}
