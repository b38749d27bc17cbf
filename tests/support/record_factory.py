"""Small Records for tests, from experiments that today's schema accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from qexp.config import Experiment
from qexp.records.record import Record
from qexp.reporting.run_view import STAGES_OF_METHOD

TASKS: dict[str, dict[str, Any]] = {
    "mrpc": {
        "text": ("sentence1", "sentence2"),
        "kind": "classification",
        "labels": ("no", "yes"),
        "metrics": ("f1", "accuracy"),
        "evaluation": {"validation": "validation"},
    },
    "cola": {
        "text": ("sentence",),
        "kind": "classification",
        "labels": ("no", "yes"),
        "metrics": ("matthews",),
        "evaluation": {"validation": "validation"},
    },
    "mnli": {
        "text": ("premise", "hypothesis"),
        "kind": "classification",
        "labels": ("a", "b", "c"),
        "metrics": ("accuracy",),
        "evaluation": {"m": "validation_matched", "mm": "validation_mismatched"},
    },
}
BITS = {"fp32": (32, 32), "w8a8": (8, 8), "w4a8": (4, 8), "w4a4": (4, 4), "w8a16": (8, 16), "w4a32": (4, 32)}


def experiment(
    task: str = "mrpc", /, model: str = "minilm", quant: str = "w8a8", seed: int = 1, **sections: Any
) -> dict[str, Any]:
    """The JSON of a whole experiment; ``sections`` replace or extend the defaults."""
    weight, activation = BITS[quant]
    tree: dict[str, Any] = {
        "task": {"name": task, **TASKS[task]},
        "model": {"name": model},
        "quant": {"weight_bits": weight, "activation_bits": activation},
        "calibrator": {"kind": "max"},
        "placement": {"name": "qdqbert", "sites": ("linear.weight", "linear.input")},
        "finetune": {"kind": "full", "learning_rate": 2e-5, "epochs": 3},
        "method": {"kind": "auto"},
        "deploy": {"kind": "none"},
        "seed": seed,
    }
    for name, value in sections.items():
        extended = isinstance(value, Mapping) and name not in ("calibrator", "method", "deploy", "finetune")
        tree[name] = {**tree.get(name, {}), **value} if extended else value
    return Experiment.model_validate(tree).model_dump(mode="json")


def record(tree: Mapping[str, Any] | None = None, *, source: str = "local", **fields: Any) -> Record:
    """A Record that succeeded, with scores that follow from its experiment unless others are given."""
    tree = tree or experiment()
    digest = hashlib.sha256(json.dumps([tree, source], sort_keys=True).encode()).hexdigest()
    defaults: dict[str, Any] = {
        "key": digest[:16],
        "status": "ok",
        "experiment": tree,
        "started": "2026-03-01T10:00:00+00:00",
        "finished": "2026-03-01T10:05:00+00:00",
        "data": {"source": source, "fingerprint": "f" * 64, "rows": {"train": 10, "validation": 5}},
        "scores": scores(tree, int(digest[:4], 16) / 65536),
        "versions": {"python": "3.11.7", "qexp": "0.1.0", "torch": "2.13.0"},
        "sites": {"quantizers": 12, "sites": {"linear.weight": 6, "linear.input": 6}},
        "stages": [{"stage": "tokens", "key": "abc", "state": "built", "seconds": 0.25}],
    }
    return Record(**{**defaults, **fields})


def failed(tree: Mapping[str, Any], message: str = "the loss is nan\nsecond line", **fields: Any) -> Record:
    """A Record that failed in quantization-aware training, with what it had until then."""
    error = {"type": "TrainingError", "message": message, "traceback": "Traceback …"}
    done = {name: of for name, of in scores(tree, 0.5).items() if name in ("fp32", "ptq")}
    defaults = {"status": "failed", "error": error, "scores": done, "key": "failed-" + str(tree["seed"])}
    return record(tree, **{**defaults, **fields})


def interrupted(tree: Mapping[str, Any], message: str = "KeyboardInterrupt", **fields: Any) -> Record:
    """A Record of a run that Ctrl-C ended in quantization-aware training."""
    error = {"type": "KeyboardInterrupt", "message": message, "traceback": "Traceback …"}
    return failed(tree, **{"error": error, **fields})


def deployed(tree: Mapping[str, Any], **fields: Any) -> Record:
    """A Record with parity, size and latency."""
    tree = {**tree, "deploy": ENGINES}
    both, int8 = ({"1": timing(one), "32": timing(many)} for one, many in ((12.0, 300.0), (5.0, 150.0)))
    defaults = {
        "latency": {"fp32": both, "int8": int8},
        "bytes": {"fp32": 90_000_000, "int8": 23_000_000},
        "parity": parity(True),
    }
    return record(tree, **{**defaults, **fields})


def timing(p50: float, spread: float = 1.1) -> dict[str, float]:
    """A latency with its p90 / p50."""
    return {"p50_ms": p50, "p90_ms": round(spread * p50, 6), "p99_ms": 2 * p50, "samples_per_second": 80.0}


def parity(passed: bool) -> dict[str, Any]:
    """A parity check."""
    found = {"agreement": 100.0, "max_logit_difference": 0.0004, "metric_difference": 0.0}
    broken = {"agreement": 97.25, "max_logit_difference": 0.31, "metric_difference": 0.8}
    return {**(found if passed else broken), "passed": passed, "rows": 408}


ENGINES = {
    "kind": "engines", "runtimes": ["onnxruntime"], "precisions": ["fp32", "int8"], "batch_sizes": [1, 32],
    "lengths": [128], "real": False, "runs": 30, "warmup": 3,
}  # fmt: skip


def scores(tree: Mapping[str, Any], shift: float) -> dict[str, dict[str, float | None]]:
    """Scores by stage for the method of the experiment."""
    task = tree["task"]
    splits = list(task["evaluation"])
    names = [name if len(splits) == 1 else f"{name}@{split}" for split in splits for name in task["metrics"]]
    levels = {"fp32": 88.0, "control": 89.0, "ptq": 80.0, "qat": 86.0}
    return {
        stage: {name: levels[stage] + shift + index for index, name in enumerate(names)}
        for stage in STAGES_OF_METHOD[tree["method"]["kind"]]
    }
