"""Records that a verdict judges: scores, engines and graphs as a test wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qexp.records.record import Record
from tests.support.record_factory import ENGINES, experiment, parity, record, timing

MIB = 2**20


def judged(
    points: float = -0.25,
    /,
    task: str = "mrpc",
    *,
    ptq_points: float | None = None,
    quant: str = "w8a8",
    method: str = "ptq",
    source: str = "local",
    engines: Mapping[str, Any] | None = None,
    sections: Mapping[str, Any] | None = None,
    interval: tuple[float, float] | None = (-0.4, 0.6),
    **fields: Any,
) -> Record:
    """A run whose last stage is ``points`` away from an FP32 score of 88, exported and timed."""
    deploy = {**ENGINES, "runtimes": sorted({name.split("/")[0] for name in engines or {"onnxruntime/": 0}})}
    tree = experiment(task, quant=quant, method={"kind": method}, **{"deploy": deploy, **(sections or {})})
    metric = fields.pop("metric", None) or tree["task"]["metrics"][0]
    scores = {"fp32": {metric: 88.0}, "ptq": {metric: 88.0 + (points if ptq_points is None else ptq_points)}}
    if method == "qat":
        scores["qat"] = {metric: 88.0 + points}
    last = "qat" if method == "qat" else "ptq"
    ends = {"low": interval[0], "high": interval[1], "rows": 408, "resamples": 1000} if interval else {}
    found = (
        {"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(5.0)} if engines is None else engines
    )
    defaults: dict[str, Any] = {
        "scores": scores,
        "intervals": {last: {metric: ends}} if ends else {},
        "engines": found,
        "bytes": {"fp32": 88 * MIB, "int8": 22 * MIB} if found else None,
        "host": {"processor": "Fast CPU [avx]", "threads": 2, "gpu": None},
        "stages": [visit("7-onnx", "fp32graph"), visit("7-onnx", f"int8graph{quant}")] if found else [],
        "sites": {
            "quantizers": 1,
            "sites": {},
            "cost": {"tokens": 128, "macs": 1, "bops": 1, "bytes": 11 * MIB},
        },
    }
    return record(tree, source=source, **{**defaults, **fields})


def engine(p50: float, *, passed: bool = True, spread: float = 1.05, **parts: Any) -> dict[str, Any]:
    """Results of an engine at batch 1 and 128 tokens."""
    return {"gate": parity(passed), "latency": {"1x128": timing(p50, spread)}, **parts}


def visit(stage: str, key: str) -> dict[str, Any]:
    """One stage of a Record."""
    return {"stage": stage, "key": key, "state": "built", "seconds": 1.0}
