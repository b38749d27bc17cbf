"""The facts of one Record that tables are made of.

Experiments are read as plain dictionaries, with a fallback for what is absent: a Record may be
older than today's :class:`qexp.config.Experiment`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from qexp.records.record import Record

FLOAT_BITS = 32
"""Bit-width that means "not quantized" (:data:`qexp.config.FLOAT_BITS`; a test compares the two)."""
INTEGER_KERNEL_BITS = 8
"""Smallest bit-width that an integer kernel computes with; below, quantization is simulated."""
TORCH_STAGES = ("fp32", "control", "ptq", "qat")
"""In the order of the line, which is the order in which a Record lists their artifacts."""
TRAINED = ("control", "qat")
"""Those that go on training from the FP32 model."""
STAGES_OF_METHOD = {
    "none": ("fp32",), "control": ("fp32", "control"), "ptq": ("fp32", "ptq"), "qat": ("fp32", "ptq", "qat"),
}  # fmt: skip
"""Stages that a method promises a score of, in order; the last one is what is exported."""

_HOW = (
    *("tracker", "data.source", "data.root"),
    *("machine.threads", "machine.checkpoint_seconds", "machine.progress"),
)
"""What changes no result. The rest of the machine does: precision, parts of a batch, kind of device."""
_NOT_IN_SETTINGS = (
    *_HOW,
    *("seed", "deploy", "task.name", "model.name", "budget.name"),
    *("quant.weight_bits", "quant.activation_bits", "quant.label", "method.distillation"),
)
OF_QUANTIZATION = ("quant.", "scheme.", "calibrator.", "calibration.", "placement.", "refinement.")
"""Beginnings of settings that matter to quantized models only."""
DISTILLATION = "method.distillation"
"""What is learned from a teacher, as one setting; runs without a teacher have none."""


@dataclass(frozen=True, order=True)
class Quantity:
    """One number that a run can have."""

    name: Literal[
        "score",
        "difference",
        "average",
        "size",
        "latency",
        "task_score",
        "task_average",
        "relative_loss",
    ]
    """``difference`` is QAT, or its control, minus FP32 of one seed, ``average`` the mean over tasks;
    ``task_score`` and ``task_average`` are those of an overview, ``relative_loss`` what quantization costs of
    the FP32 score."""
    stage: str
    """``fp32 control ptq qat onnx`` of a score, ``qat-fp32`` or ``control-fp32`` of a difference, ``ptq``,
    ``qat`` or ``qat-control`` of a loss, else the graph: ``fp32 int8``."""
    metric: str = ""
    """Metric of a score, convention of an average, or statistic of a latency such as ``p50_ms``."""
    batch: str = ""
    """Batch size of a latency."""

    @property
    def unit(self) -> str:
        """Unit of the number."""
        if self.name == "latency":
            return "ms" if self.metric.endswith("_ms") else "rows/s"
        return {"difference": "points", "size": "bytes"}.get(self.name, "percent")


@dataclass(frozen=True)
class Run:
    """One Record, read for tables."""

    record: Record

    @cached_property
    def task(self) -> str:
        """Name of the task."""
        return str(self.find("task.name", "unknown"))

    @cached_property
    def model(self) -> str:
        """Name of the model, whole."""
        return str(self.find("model.name", "unknown"))

    @cached_property
    def seed(self) -> int:
        """Seed of the run."""
        return _whole(self.find("seed"), 0)

    @property
    def refused(self) -> bool:
        """Whether the words never became an experiment, so that what stands in it is unchecked."""
        return self.record.error is not None and self.record.error["type"] == "ConfigError"

    @cached_property
    def method(self) -> str:
        """``none``, ``control``, ``ptq`` or ``qat``."""
        return str(self.find("method.kind", "none"))

    @cached_property
    def bits(self) -> tuple[int, int]:
        """Bits of weights and of activations."""
        weight, activation = self.find("quant.weight_bits"), self.find("quant.activation_bits")
        return _whole(weight, FLOAT_BITS), _whole(activation, FLOAT_BITS)

    @cached_property
    def widths(self) -> list[tuple[int, int]]:
        """Bits of weights and of activations of the model, and of each override."""
        weight, activation = self.bits
        others: Mapping[str, Mapping[str, Any]] = self.find("quant.overrides") or {}
        pairs = [(each.get("weight_bits"), each.get("activation_bits")) for each in others.values()]
        return [self.bits, *((own or weight, of or activation) for own, of in pairs)]

    @cached_property
    def quant(self) -> str:
        """``fp32``, or the short form such as ``w4a8-mixed`` (as :attr:`qexp.config.Quant.name`)."""
        weight, activation = self.bits
        table, overrides = self.find("quant.embedding_bits"), self.find("quant.overrides")
        if min(weight, activation, table or FLOAT_BITS) == FLOAT_BITS and not overrides:
            return "fp32"
        own = f"e{table}" if table not in (None, weight) else ""
        return f"w{weight}a{activation}{own}{'-' + self.find('quant.label', 'mixed') if overrides else ''}"

    @property
    def simulated(self) -> bool:
        """Whether a bit-width is below what an integer kernel computes with."""
        return min(self.bits) < INTEGER_KERNEL_BITS

    @cached_property
    def budget(self) -> str:
        """Name of the budget; ``limited`` where a budget called full has a limit all the same."""
        name = str(self.find("budget.name", "full"))
        limits = [
            value for field, value in leaves(self.find("budget")) if field != "name" and value is not None
        ]
        return "limited" if name == "full" and limits else name

    @cached_property
    def source(self) -> str | None:
        """Where rows came from, or should have: ``local hub sample``; None if it was never decided."""
        asked = self.find("data.source", "auto")
        if self.record.data:
            return self.record.data["source"]
        return None if asked == "auto" else str(asked)

    @property
    def made_up(self) -> bool | None:
        """Whether the rows are the built-in sample; None if the source was never decided."""
        return None if self.source is None else self.source == "sample"

    def caveat(self, stage: str, metric: str) -> str | None:
        """Why a score says nothing of the model; None for a sound one, and in Records that are too old."""
        return self.record.caveats.get(stage, {}).get(metric)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of the task's scores, the primary one first (as :func:`qexp.config.score_name`)."""
        splits = list(self.find("task.evaluation", {"": ""}))
        names = [
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
        """Kind of the deployment."""
        return str(self.find("deploy.kind", "none"))

    @cached_property
    def identity(self) -> str:
        """Two runs of the same identity asked for the same, wherever their rows came from."""
        return json.dumps(_without(self._leaves, _HOW), sort_keys=True)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What can tell two rows apart beside model and quant: printed values by dotted path."""
        told = _without(self._leaves, _NOT_IN_SETTINGS)
        return {path: _printed(value) for path, value in told.items()} | self._distillation

    @property
    def _distillation(self) -> dict[str, str]:
        """``labels 1.0, logits 1.0, temperature 2.0``; the temperature is one of logits."""
        names = ("labels", "logits", "hidden", "attention", "temperature")
        plan = {name: self.find(f"{DISTILLATION}.{name}") for name in names}
        if not (plan["logits"] or plan["hidden"] or plan["attention"]):
            return {}
        plan["temperature"] = plan["temperature"] if plan["logits"] else None
        return {DISTILLATION: ", ".join(f"{name} {_printed(of)}" for name, of in plan.items() if of)}

    @cached_property
    def _leaves(self) -> dict[str, Any]:
        return dict(leaves(self.record.experiment))

    @cached_property
    def benchmark(self) -> dict[str, str]:
        """Settings of the benchmark by dotted path; empty without one."""
        deploy = {"deploy": self.find("deploy", {})} if self.deploy == "engines" else {}
        return {path: _printed(value) for path, value in leaves(deploy)}

    @cached_property
    def measured(self) -> dict[Quantity, float | None]:
        """Every number of the Record; an undefined one is None."""
        scores = self.record.scores
        found = {
            Quantity("score", stage, metric): value
            for stage, of_stage in scores.items()
            for metric, value in of_stage.items()
        }
        return found | self._differences | self._costs

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
        sizes = {Quantity("size", graph): float(size) for graph, size in (self.record.bytes or {}).items()}
        times = {
            Quantity("latency", graph, name, batch): float(value)  # type: ignore[arg-type]
            for graph, batches in (self.record.latency or {}).items()
            for batch, timing in batches.items()
            for name, value in timing.items()
        }
        return {**sizes, **times}

    @cached_property
    def promised(self) -> frozenset[Quantity]:
        """Numbers that a run of this experiment has when nothing goes wrong."""
        stages = (*self.stages, *(["onnx"] if self.deploy != "none" else []))
        graphs = ("fp32",) if self.quant == "fp32" else ("fp32", "int8")
        found = {Quantity("score", stage, metric) for stage in stages for metric in self.metrics}
        for stage in set(TRAINED) & set(self.stages):
            found |= {Quantity("difference", f"{stage}-fp32", metric) for metric in self.metrics}
        if self.deploy != "none":
            found |= {Quantity("size", graph) for graph in graphs}
        if self.deploy == "engines":
            batches = [str(size) for size in self.find("deploy.batch_sizes", ())]
            found |= {Quantity("latency", graph, "p50_ms", size) for graph in graphs for size in batches}
        return frozenset(found)

    def find(self, path: str, default: Any = None) -> Any:
        """Value of the experiment at a dotted path, or the default where there is none."""
        value: Any = self.record.experiment
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by dotted path."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, child in value.items():
        yield from leaves(child, f"{path}.{name}" if path else str(name))


def _without(values: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Values by dotted path, but those at or below the paths."""
    below = tuple(f"{path}." for path in paths)
    return {path: value for path, value in values.items() if path not in paths and not path.startswith(below)}


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _printed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_printed, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)
