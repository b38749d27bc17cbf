"""About forty Records that fill every place of the page, from seeded random numbers."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from qexp.records.record import Record
from tests.support.record_factory import ENGINES, experiment, failed, record, scores

SITES = (
    *("attention.self.query:linear.input", "attention.self:matmul.key", "attention.self:attention.probs"),
    *("attention.output.dense:linear.input", "intermediate.dense:linear.input"),
)
FORMS = (("fp32", "auto"), ("w8a8", "ptq"), ("w8a8", "qat"), ("w4a8", "ptq"), ("w4a8", "qat"))
HOSTILE = "<script>window.hacked = 1</script>\"'&amp;$x$"


def forty() -> list[Record]:
    """Two tasks, two models, three bit-widths, PTQ and QAT, two seeds; one failure for each task."""
    chance, runs = random.Random(7), []
    for task in ("cola", "mrpc"):
        for model in ("models/minilm", "google/mobilebert"):
            for quant, method in FORMS:
                for seed in (1, 2):
                    tree = experiment(
                        task, model=model, quant=quant, seed=seed, deploy=ENGINES, method={"kind": method}
                    )
                    runs.append(full(tree, chance))
        qat = {"model": "models/minilm", "deploy": ENGINES, "method": {"kind": "qat"}}
        tree = experiment(task, quant="w4a8", seed=3, **qat)
        runs.append(failed(tree, f"no {HOSTILE}\nsecond line"))
    return [replace(run, key=f"{number:06}") for number, run in enumerate(runs)]


def full(tree: dict[str, Any], chance: random.Random) -> Record:
    """A Record with all that a run can leave."""
    quantized = tree["quant"]["weight_bits"] < 32
    trained = tree["method"]["kind"] == "qat"
    large = 90 if "minilm" in tree["model"]["name"] else 99
    costs = {"fp32": 1.0, "int8": 0.27} if quantized else {"fp32": 1.0}
    stages = ("ptq", "qat") if trained else ("ptq",) if quantized else ()
    return record(
        tree,
        scores=scores(tree, chance.gauss(0, 1)),
        bytes={graph: int(large * 1e6 * cost) for graph, cost in costs.items()},
        latency={
            graph: {"1": timing(large / 8 * cost * chance.uniform(0.9, 1.1))} for graph, cost in costs.items()
        },
        curves={name: curve(chance) for name in ("fp32", *(["qat"] if trained else []))},
        ranges={stage: ranges(chance) for stage in stages},
        outliers=outliers(chance) if quantized else None,
        engines={f"onnxruntime/{graph}": {"gate": gate(chance)} for graph in costs},
    )


def gate(chance: random.Random) -> dict[str, Any]:
    """A gate that passed, with the differences of logits and their floor."""
    places = {"p50": 0.001, "p90": 0.003, "p99": 0.006, "max": 0.01}
    found, floor = ({name: at * chance.uniform(0.8, 1.2) for name, at in places.items()} for _ in range(2))
    return {
        "agreement": 100.0, "max_logit_difference": found["max"], "metric_difference": 0.0, "rows": 400,
        "passed": True, "verdict": "passed", "logit_differences": found,
        "distribution": distribution(chance),
        "floor": {"logit_differences": floor, "distribution": distribution(chance)},
    }  # fmt: skip


def distribution(chance: random.Random) -> dict[str, Any]:
    """Differences of 400 rows around 1e-3."""
    bins = [round(chance.gauss(-12, 1.5)) for _ in range(397)]
    counts = [bins.count(each) for each in range(min(bins), max(bins) + 1)]
    return {"below": 3, "first": min(bins), "counts": counts}


def timing(p50: float) -> dict[str, float]:
    """Latency of one batch size."""
    return {"p50_ms": p50, "p90_ms": 1.1 * p50, "p99_ms": 1.3 * p50, "samples_per_second": 1000 / p50}


def curve(chance: random.Random) -> dict[str, list[Any]]:
    """A loss that falls."""
    steps = list(range(10, 600, 10))
    losses = [0.2 + 0.5 * math.exp(-step / 200) + chance.gauss(0, 0.01) for step in steps]
    return {"step": steps, "loss": losses}


def outliers(chance: random.Random, layers: int = 6) -> dict[str, dict[str, Any]]:
    """Two outlier dimensions in what each feed-forward network reads."""
    found: dict[str, dict[str, Any]] = {}
    for layer in range(layers):
        high, low = chance.uniform(10, 30), -chance.uniform(6, 15)
        found[f"bert.encoder.layer.{layer}.intermediate.dense:linear.input"] = {
            "size": 384, "count": 2, "dimensions": [99, 223], "low": [-1.0, low], "high": [high, 0.5],
            "others_low": -4.0, "others_high": 4.0,
        }  # fmt: skip
    return found


def ranges(chance: random.Random, layers: int = 6) -> dict[str, dict[str, float]]:
    """Ranges of the activations of an encoder."""
    found = {}
    for name in (f"bert.encoder.layer.{layer}.{site}" for layer in range(layers) for site in SITES):
        reach, kept = math.exp(chance.gauss(1, 1)), chance.uniform(0.5, 1)
        low = 0.0 if "probs" in name else -reach
        found[name] = {
            "low": low * kept, "high": reach * kept, "seen_low": low, "seen_high": reach,
            "sqnr": chance.uniform(10, 50),
        }  # fmt: skip
    return found
