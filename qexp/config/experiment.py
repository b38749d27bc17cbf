"""Configuration of one run, and the resolution of its derived defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from qexp.config.base import FLOAT_BITS, Section
from qexp.config.calibration import AnyCalibrator, Calibration
from qexp.config.deploy import AnyDeploy, Budget, Gate, Machine, Numerics, TrainingSetup
from qexp.config.quantization import Placement, Quant, QuantizationConfig, Scheme
from qexp.config.recommended import YamlDefaults
from qexp.config.refinement import Refinement
from qexp.config.task import AnyTask, Data, Model, TranslationTask, score_name
from qexp.config.tracking import AnyTracker, NoTracker
from qexp.config.training import RANGE_RATE, AnyFinetune, AnyMethod, Control, Finetune, Qat

_NOT_IDENTITY: dict[str, Any] = {"machine": True, "tracker": True, "data": {"source", "root"}}


class Experiment(Section):
    """Configuration of one run: what is computed, and in ``machine`` and ``tracker``, how."""

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
    budget: Budget = Budget()
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of every draw: new head, order of rows, dropout, calibration rows."""

    machine: Machine = Machine()
    tracker: AnyTracker = NoTracker()

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
        if method.zero_points == "learned" and not self._has_zero_points:
            raise ValueError(
                "method.zero_points=learned: no activation has a fixed grid with a zero point, so there is "
                "none to learn; use scheme.activation.symmetric=false with a range per tensor, or "
                "method.zero_points=fixed"
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
    def _check_translation_benchmark(self) -> Self:
        if isinstance(self.task, TranslationTask) and self.deploy.kind == "engines":
            raise ValueError(
                f"deploy with runtimes and task={self.task.name}: engines of a translator are exported and "
                "gated, not timed; use deploy=onnx or deploy=none"
            )
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
    def _check_microbatch_size(self) -> Self:
        machine, rows = self.machine, self.finetune.batch_size
        if machine.parts > rows:
            raise ValueError(
                f"machine.devices={machine.devices} and machine.accumulate={machine.accumulate}: they split "
                f"each batch into {machine.parts} parts, but finetune.batch_size={rows}; lower them, so that "
                f"their product is at most {rows}, or raise finetune.batch_size"
            )
        return self

    @property
    def _has_zero_points(self) -> bool:
        """Whether any activation may have a zero point that is not computed anew for each batch."""
        own = (each.activation for each in self.quant.overrides.values())
        schemes = [self.scheme.activation, *(scheme for scheme in own if scheme is not None)]
        return any(not each.symmetric and each.granularity != "per_token" for each in schemes)

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
        names = [
            score_name(metric, split, self.task)
            for split in self.task.evaluation
            for metric in self.task.metrics
        ]
        return {
            "task": self.task.name, "model": self.model.name, "method": self.method.kind,
            "quant": self.quant.name, "metrics": names, "seed": self.seed, "budget": self.budget.name,
        }  # fmt: skip

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that determine the results, as plain JSON values."""
        tree = self.model_dump(mode="json", exclude=_NOT_IDENTITY)
        return tree | {"numerics": self.numerics.model_dump(mode="json")}


def resolve_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Replace open settings by values that follow from other sections.

    ``finetune`` takes null fields from ``model.finetune[task]``, ``model.finetune.default`` and
    ``task.finetune``, in this order, and ``method`` from ``task.qat``; a field that is still null gets its
    default. ``method: auto`` becomes ``qat``, or ``none`` with FP32; ``controlled`` becomes ``qat``,
    or ``control`` with FP32; ``deploy: auto`` becomes ``engines``, or ``none`` for a translation.
    A resolved tree is returned unchanged.

    Raises:
        ValueError: A recommended field does not exist; pydantic's error.
    """
    resolved = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    if all(isinstance(resolved.get(key), dict) for key in ("task", "model", "finetune", "method")):
        YamlDefaults.check(resolved["task"], resolved["model"])
        _resolve_finetune(resolved)
        _resolve_method(resolved)
    if all(isinstance(resolved.get(key), dict) for key in ("task", "deploy")):
        _resolve_deploy(resolved)
    return resolved


def _resolve_finetune(tree: dict[str, Any]) -> None:
    task_defaults = tree["task"].pop("finetune", None) or {}
    model_defaults = tree["model"].pop("finetune", None) or {}
    if tree["finetune"].get("kind") == "none":
        return
    for source in (
        model_defaults.get(tree["task"].get("name")),
        model_defaults.get("default"),
        task_defaults,
    ):
        _fill(tree["finetune"], source or {})
    tree["finetune"] = {field: value for field, value in tree["finetune"].items() if value is not None}


def _fill(section: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Set fields that are null or absent to the values of the source."""
    for field, value in source.items():
        if section.get(field) is None:
            section[field] = value


def _resolve_deploy(tree: dict[str, Any]) -> None:
    if tree["deploy"].get("kind") == "auto":
        exported = tree["task"].get("kind") != "translation"
        tree["deploy"] = {**tree["deploy"], "kind": "engines"} if exported else {"kind": "none"}


def _without_quantizers(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method that replaces ``auto`` or ``controlled`` with FP32."""
    if method["kind"] == "auto":
        return {"kind": "none"}
    qat_fields = set(Qat.model_fields) - set(Control.model_fields)
    return {field: value for field, value in method.items() if field not in qat_fields} | {"kind": "control"}


def _resolve_method(tree: dict[str, Any]) -> None:
    """Resolve the method from numbers only; other values are left to the validation of the fields."""
    quant = tree.get("quant")
    widths = quant if isinstance(quant, dict) else {}
    bits = [widths.get(field, 8) for field in ("weight_bits", "activation_bits")]
    method, rate = tree["method"], tree["finetune"].get("learning_rate", 4e-5)
    task_defaults = tree["task"].pop("qat", None) or {}
    if method.get("kind") in ("auto", "controlled"):
        unquantized = all(width == FLOAT_BITS for width in bits)
        tree["method"] = method = _without_quantizers(method) if unquantized else {**method, "kind": "qat"}
    if method.get("kind") not in ("qat", "control"):
        return
    _fill(method, task_defaults)
    if method.get("epochs") is None:
        method.pop("epochs", None)
    if method.get("learning_rate") is None and isinstance(rate, int | float):
        method["learning_rate"] = rate / 2
    rates = isinstance(method.get("learning_rate"), int | float) and method.get("kind") == "qat"
    if rates and method.get("range_learning_rate") is None:
        method["range_learning_rate"] = RANGE_RATE * method["learning_rate"]
