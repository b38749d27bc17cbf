"""View of one Record with the facts that tables need.

Experiments are read as plain dictionaries with a fallback for absent fields, because a Record may be older
than the current :class:`qexp.config.Experiment`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from qexp.naming import MODEL_STAGES, is_simulated, quant_name, short_format
from qexp.records.record import Record
from qexp.reporting.costs import costs_of

FLOAT_BITS = 32
"""Bit-width that means "not quantized" (:data:`qexp.config.FLOAT_BITS`; a test compares the two)."""
TRAINED = ("control", "qat")
"""Stages that continue training from the FP32 model."""
STAGES_OF_METHOD = {
    "none": ("fp32",), "control": ("fp32", "control"), "ptq": ("fp32", "ptq"), "qat": ("fp32", "ptq", "qat"),
}  # fmt: skip
"""Stages that a method promises a score of, in order; the last one is exported."""

_HOW = (
    *("tracker", "accept", "tags", "note", "data.source", "data.root"),
    *("machine.threads", "machine.checkpoint_seconds", "machine.progress"),
)
"""Settings that change no result; other settings of the machine do: precision, split of a batch, device."""
_CLOCK = ("deploy.batch_sizes", "deploy.real", "deploy.runs", "deploy.warmup", "deploy.seconds")
"""Settings of how often and in which batches engines are timed; the newest measurement stands for all."""
_NOT_IN_SETTINGS = (
    *_HOW,
    *("seed", "deploy", "task.name", "model.name", "budget.name"),
    *("quant.weight_bits", "quant.activation_bits", "quant.label", "method.distillation"),
)
OF_QUANTIZATION = ("quant.", "scheme.", "calibrator.", "calibration.", "placement.", "refinement.")
"""Prefixes of the settings that matter to quantized models only."""
DISTILLATION = "method.distillation"
"""Distillation from a teacher, as a single setting; runs without a teacher do not have it."""


@dataclass(frozen=True, order=True)
class Quantity:
    """One number that a run can have."""

    name: Literal[
        "score",
        "difference",
        "average",
        "size",
        "latency",
        "memory",
        "load_time",
        "task_score",
        "task_average",
        "relative_loss",
    ]
    """``difference`` is QAT or its control minus FP32 for one seed, ``average`` is the mean over tasks,
    ``task_score`` and ``task_average`` belong to an overview, and ``relative_loss`` is the share of the FP32
    score that quantization costs."""
    stage: str
    """Stage of a score (``fp32 control ptq qat onnx``), of a difference (``qat-fp32`` or ``control-fp32``) or
    of a loss (``ptq``, ``qat`` or ``qat-control``); otherwise the graph (``fp32 int8``)."""
    metric: str = ""
    """Metric of a score, convention of an average, or statistic of a latency such as ``p50_ms``."""
    batch: str = ""
    """Batch size of a latency."""

    @property
    def unit(self) -> str:
        """Unit: ``percent``, ``points``, ``bytes``, ``s``, ``ms`` or ``rows/s``."""
        if self.name == "latency":
            return "ms" if self.metric.endswith("_ms") else "rows/s"
        units = {"difference": "points", "size": "bytes", "memory": "bytes", "load_time": "s"}
        return units.get(self.name, "percent")


@dataclass(frozen=True)
class RunView:
    """View of one Record for tables."""

    record: Record

    @cached_property
    def task(self) -> str:
        """Name of the task, or ``unknown``."""
        return str(self.find("task.name", "unknown"))

    @cached_property
    def model(self) -> str:
        """Full name of the model, or ``unknown``."""
        return str(self.find("model.name", "unknown"))

    @cached_property
    def seed(self) -> int:
        """Seed of the run; 0 if the Record has none."""
        return _whole(self.find("seed"), 0)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Tags that the user gave the run."""
        return tuple(map(str, self.find("tags") or ()))

    @property
    def refused(self) -> bool:
        """Whether the overrides never became a valid experiment, so that its values are unchecked."""
        return self.record.error is not None and self.record.error["type"] == "ConfigError"

    @cached_property
    def method(self) -> str:
        """Kind of method: ``none``, ``control``, ``ptq`` or ``qat``."""
        return str(self.find("method.kind", "none"))

    @cached_property
    def bits(self) -> tuple[int, int]:
        """Bit-widths of weights and activations."""
        weight, activation = self.find("quant.weight_bits"), self.find("quant.activation_bits")
        return _whole(weight, FLOAT_BITS), _whole(activation, FLOAT_BITS)

    @cached_property
    def widths(self) -> list[tuple[int, int]]:
        """Bit-widths of weights and activations, of the model and then of each override."""
        weight, activation = self.bits
        others: Mapping[str, Mapping[str, Any]] = self.find("quant.overrides") or {}
        pairs = [(each.get("weight_bits"), each.get("activation_bits")) for each in others.values()]
        return [self.bits, *((own or weight, of or activation) for own, of in pairs)]

    @cached_property
    def quant(self) -> str:
        """``fp32``, or a short form such as ``w4a8-mixed`` (as :attr:`qexp.config.Quant.name`)."""
        if label := self.record.labels.get("quant"):
            return str(label)
        weight, activation = self.bits
        formats = (self.find("quant.weight_format"), self.find("quant.activation_format"))
        table, overrides = self.find("quant.embedding_bits"), self.find("quant.overrides")
        if min(weight, activation, table or FLOAT_BITS) == FLOAT_BITS and not overrides:
            return "fp32"
        own = f"e{table}" if table not in (None, weight) else ""
        short = [short_format(*pair) for pair in zip(self.bits, formats, strict=True)]
        name = quant_name(short[0], short[1])
        return f"{name}{own}{'-' + self.find('quant.label', 'mixed') if overrides else ''}"

    @property
    def simulated(self) -> bool:
        """Whether no engine of a CPU gains anything from the bit-widths."""
        return is_simulated(self.bits, self.quant)

    @cached_property
    def budget(self) -> str:
        """Name of the budget; ``limited`` if a budget named full has a limit."""
        name = str(self.find("budget.name", "full"))
        limits = [
            value for field, value in leaves(self.find("budget")) if field != "name" and value is not None
        ]
        return "limited" if name == "full" and limits else name

    @cached_property
    def source(self) -> str | None:
        """Source of the rows, used or requested: ``local hub sample``; None if it was never decided."""
        requested = self.find("data.source", "auto")
        if self.record.data:
            return self.record.data["source"]
        return None if requested == "auto" else str(requested)

    @property
    def is_synthetic(self) -> bool | None:
        """Whether the rows are the built-in sample; None if the source was never decided."""
        return None if self.source is None else self.source == "sample"

    def caveat(self, stage: str, metric: str) -> str | None:
        """Return why a score is uninformative about the model; None if it is sound or the Record too old.

        The exported graph is the last model in another runtime, so its score has the same caveat.
        """
        if stage == "onnx":
            stage = next((name for name in reversed(MODEL_STAGES) if name in self.record.scores), stage)
        return self.record.caveats.get(stage, {}).get(metric)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of the task's scores, the primary one first (as :func:`qexp.config.score_name`)."""
        splits = list(self.find("task.evaluation", {"": ""}))
        names = self.record.labels.get("metrics") or [
            metric if len(splits) == 1 else f"{metric}@{split}"
            for split in splits
            for metric in self.find("task.metrics", ())
        ]
        measured = [name for scores in self.record.scores.values() for name in scores]
        return tuple(dict.fromkeys(names + measured))

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages that the run promises scores of, the exported one last."""
        return STAGES_OF_METHOD.get(self.method, tuple(self.record.scores))

    @property
    def deploy(self) -> str:
        """Kind of deployment, or ``none``."""
        return str(self.find("deploy.kind", "none"))

    @cached_property
    def identity(self) -> str:
        """JSON of the request; equal for runs of the same experiment, wherever their rows came from."""
        return json.dumps(_without(self._leaves, _HOW), sort_keys=True)

    @cached_property
    def settings(self) -> dict[str, str]:
        """Formatted settings that can distinguish rows, except for model and quant, by dotted path."""
        values = _without(self._leaves, _NOT_IN_SETTINGS)
        return {path: _printed(value) for path, value in values.items()} | self._distillation

    @property
    def _distillation(self) -> dict[str, str]:
        """Setting such as ``labels 1.0, logits 1.0, temperature 2.0``; a temperature belongs to its term."""
        terms = ("logits", "hidden", "attention", "similarity")
        names = ("labels", *terms, "temperature", "similarity_temperature")
        plan = {name: self.find(f"{DISTILLATION}.{name}") for name in names}
        if not any(plan[term] for term in terms):
            return {}
        plan["temperature"] = plan["temperature"] if plan["logits"] else None
        return {DISTILLATION: ", ".join(f"{name} {_printed(of)}" for name, of in plan.items() if of)}

    @cached_property
    def _leaves(self) -> dict[str, Any]:
        return dict(leaves(self.record.experiment))

    @cached_property
    def benchmark(self) -> dict[str, str]:
        """Formatted settings that tell what was timed, by dotted path; empty without a benchmark."""
        deploy = {"deploy": self.find("deploy", {})} if self.deploy == "engines" else {}
        return {path: _printed(value) for path, value in _without(dict(leaves(deploy)), _CLOCK).items()}

    @cached_property
    def measured(self) -> dict[Quantity, float | None]:
        """Every number of the Record; None is an undefined one."""
        scores = self.record.scores
        numbers = {
            Quantity("score", stage, metric): value
            for stage, of_stage in scores.items()
            for metric, value in of_stage.items()
        }
        return numbers | self._differences | self._costs

    @property
    def _differences(self) -> dict[Quantity, float | None]:
        scores = self.record.scores
        fp32 = scores.get("fp32", {})
        return {
            Quantity("difference", f"{stage}-fp32", metric): None
            if trained is None or (first := fp32[metric]) is None
            else trained - first
            for stage in TRAINED
            for metric, trained in scores.get(stage, {}).items()
            if metric in fp32
        }

    @property
    def _costs(self) -> dict[Quantity, float | None]:
        runtime = self.find("deploy.runtimes", ["onnxruntime"])[0]
        return {Quantity(*names): value for names, value in costs_of(self.record, runtime)}  # type: ignore[arg-type]

    @cached_property
    def promised(self) -> frozenset[Quantity]:
        """Quantities that a successful run of this experiment measures."""
        stages = (*self.stages, *(["onnx"] if self.deploy != "none" else []))
        graphs = ("fp32",) if self.quant == "fp32" else ("fp32", "int8")
        quantities = {Quantity("score", stage, metric) for stage in stages for metric in self.metrics}
        for stage in set(TRAINED) & set(self.stages):
            quantities |= {Quantity("difference", f"{stage}-fp32", metric) for metric in self.metrics}
        if self.deploy != "none":
            quantities |= {Quantity("size", graph) for graph in graphs}
        if self.deploy == "engines":
            batches = [str(size) for size in self.find("deploy.batch_sizes", ())]
            quantities |= {Quantity("latency", graph, "p50_ms", size) for graph in graphs for size in batches}
        return frozenset(quantities)

    def find(self, path: str, default: Any = None) -> Any:
        """Return the value of the experiment at a dotted path, or the default if there is none."""
        value: Any = self.record.experiment
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of each leaf of nested mappings."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, child in value.items():
        yield from leaves(child, f"{path}.{name}" if path else str(name))


def _without(values: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return values by dotted path, except those at or below the given paths."""
    below = tuple(f"{path}." for path in paths)
    return {path: value for path, value in values.items() if path not in paths and not path.startswith(below)}


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _printed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_printed, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)
