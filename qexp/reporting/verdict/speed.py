"""Latency that judges itself: a ratio only where the two medians can be trusted.

The spread of a timing is p90 / p50. If the logarithms of the calls are normal with standard deviation s,
p90 / p50 is exp(1.28 s), the standard error of the log of the median of n calls is 1.25 s / sqrt(n), and the
95 % interval of the ratio of two such medians reaches a factor of exp(1.96 * sqrt(2) * 1.25 s / sqrt(n)) to
either side. With the default of 30 calls, that factor is 1.2 at :data:`NOISY`: a ratio of 1.2 could be 1.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any, Literal

from qexp.naming import PRODUCTS, Execution, StageName, execution, has_floats
from qexp.records.outcome import outcome
from qexp.records.schema import Timing
from qexp.reporting.attempts import first_line
from qexp.reporting.run_view import RunView

NOISY = 1.5
"""Smallest p90 / p50 of a timing that is too noisy for a ratio."""
CALLS = 30
"""Timed calls by default."""
DRIFT = 1.2
"""Smallest ratio of two medians of one FP32 graph on one machine that makes both unusable."""
SPREAD = "p90/p50"
"""Beginning of the reason of a timing that is noisy in itself."""
SHARED = "latency: measured while other jobs"
"""Beginning of the warning of a run that was timed beside other jobs of its sweep."""

Drifts = Mapping[tuple[object, ...], tuple[float, float]]
"""Smallest and largest median by graph, machine and shape, where they differ by :data:`DRIFT` or more."""


@dataclass(frozen=True)
class Speed:
    """Latency of an engine beside the fastest FP32 engine of the same run."""

    kind: Literal["measured", "noisy", "simulated", "missing"]
    shape: str = ""
    """Rows x tokens of the batch."""
    fp32_ms: float | None = None
    ms: float | None = None
    spread: float | None = None
    """Larger p90 / p50 of the two timings."""
    baseline: str = ""
    """Name of the FP32 engine."""
    reason: str = ""
    """Why there is no ratio."""

    @property
    def shared_reason(self) -> tuple[str, str]:
        """The reason in the words of all timings with such a reason, and the number that is of this one."""
        if self.reason.startswith(SPREAD) and self.spread is not None:
            return f"{SPREAD} of {NOISY:g} or more", f"{self.spread:.2f}"
        return self.reason, ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than FP32; None if the timings cannot be trusted or mean nothing."""
        if self.kind != "measured" or self.fp32_ms is None or not self.ms:
            return None
        return self.fp32_ms / self.ms


def measurably_faster(one: Speed, other: Speed) -> bool:
    """Return whether the ratio of an engine is higher than another's by more than the noise of the timings.

    The two ratios have four medians, each with the standard error that the module describes.
    """
    if one.ratio is None or other.ratio is None:
        return one.ratio is not None
    spread = max(one.spread or 1.0, other.spread or 1.0)
    reach = 1.96 * 2 * 1.25 * (log(spread) / 1.28) / sqrt(CALLS)
    return log(one.ratio / other.ratio) > reach


def engines_of(run: RunView) -> Mapping[str, Mapping[str, Any]]:
    """Return the engines of a run by name; those of Records without any follow from its latency and gate."""
    if run.record.engines:
        return run.record.engines
    runtime, length = run.find("deploy.runtimes", ["onnxruntime"])[0], run.find("deploy.lengths", [128])[0]
    engines: dict[str, dict[str, Any]] = {}
    for precision, timings in (run.record.latency or {}).items():
        latency = {f"{rows}x{length}": timing for rows, timing in timings.items()}
        engines[f"{runtime}/{precision}"] = {"latency": latency}
    if run.record.parity and run.quant != "fp32":
        engines.setdefault(f"{runtime}/int8", {})["gate"] = run.record.parity
    return engines


def shape_of(run: RunView) -> str:
    """Return the shape that stands for a run's latency: its smallest batch at its first length or beams."""
    sizes, lengths = run.find("deploy.batch_sizes", [1]), run.find("deploy.lengths", [128])
    if beams := run.find("deploy.beams", None):
        return f"{min(sizes)}xbeam{beams[0]}"
    return f"{min(sizes)}x{lengths[0]}"


def shape_words(shape: str) -> str:
    """Return a shape for readers: ``batch 32, 128 tokens``, or ``batch 32, beam 5`` of a search."""
    rows, _, size = shape.partition("x")
    if size.startswith("beam"):
        return f"batch {rows}, beam {size.removeprefix('beam')}"
    return f"batch {rows}, {size} tokens" if size else ""


def execution_of(run: RunView, runtime: str) -> Execution:
    """Return how a runtime computes the run's bit-widths."""
    if has_floats(run.quant):
        return "simulated"
    if runtime not in PRODUCTS:  # a runtime of another qexp version
        return "simulated" if run.simulated else "integer"
    return execution(runtime, run.widths)  # type: ignore[arg-type]


def speed_of(run: RunView, name: str, drifts: Drifts | None = None, shape: str | None = None) -> Speed:
    """Judge the latency of an engine.

    Args:
        run: Run that timed it.
        name: Runtime and precision, such as ``openvino/int8``.
        drifts: FP32 graphs whose medians differ between runs (:func:`drifts_of`).
        shape: Rows x tokens, or rows x beams; None is that which stands for the run (:func:`shape_of`).
    """
    engines, shape = engines_of(run), shape or shape_of(run)
    own = _timing(engines.get(name), shape)
    if own is None:
        return Speed("missing", shape, reason=_why_missing(run, engines.get(name, {}), shape))
    baselines = {
        other: timing
        for other, found in engines.items()
        if other.endswith("/fp32") and (timing := _timing(found, shape))
    }
    if not baselines:
        return Speed("missing", shape, ms=own["p50_ms"], reason="no FP32 engine was timed beside it")
    baseline, fp32 = min(baselines.items(), key=lambda item: item[1]["p50_ms"])
    facts: dict[str, Any] = {
        "shape": shape,
        "fp32_ms": fp32["p50_ms"],
        "ms": own["p50_ms"],
        "spread": max(map(spread_of, (own, fp32))),
        "baseline": baseline,
    }
    runtime, precision = name.split("/")
    if precision == "int8" and execution_of(run, runtime) == "simulated":
        return Speed("simulated", **facts, reason="no kernel multiplies these bit-widths")
    reason = _doubt(run, facts["spread"], (drifts or {}).get(_graph_key(run, baseline, shape)))
    return Speed("noisy", **facts, reason=reason) if reason else Speed("measured", **facts)


def spread_of(timing: Timing) -> float:
    """Return p90 / p50 of a timing."""
    return timing["p90_ms"] / timing["p50_ms"] if timing["p50_ms"] > 0 else float("inf")


def drifts_of(runs: Iterable[RunView]) -> Drifts:
    """Return the FP32 graphs whose medians differ by :data:`DRIFT` or more between runs on one machine."""
    medians: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for run in runs:
        for name, found in engines_of(run).items():
            for shape, timing in found.get("latency", {}).items() if name.endswith("/fp32") else ():
                medians[_graph_key(run, name, shape)].append(timing["p50_ms"])
    ends = {key: (min(of_graph), max(of_graph)) for key, of_graph in medians.items() if None not in key}
    return {key: (low, high) for key, (low, high) in ends.items() if high >= DRIFT * low}


def _graph_key(run: RunView, engine: str, shape: str) -> tuple[object, ...]:
    """Return what identifies a timing of the FP32 graph; it has None where the Record does not tell."""
    host = run.record.host or {}
    graph = next((visit["key"] for visit in run.record.stages if visit["stage"] == StageName.ONNX), None)
    return graph, host.get("processor"), host.get("threads"), engine, shape


def _timing(found: Mapping[str, Any] | None, shape: str) -> Timing | None:
    timing: Timing | None = (found or {}).get("latency", {}).get(shape)
    return timing


def _doubt(run: RunView, spread: float, drift: tuple[float, float] | None) -> str:
    """Return why two timings have no ratio that can be trusted; empty if they have."""
    if any(warning.startswith(SHARED) for warning in run.record.warnings):
        return "other jobs of the sweep used this machine meanwhile"
    if spread >= NOISY:
        return f"{SPREAD} {spread:.2f}"
    if drift:
        return f"the same FP32 graph took {drift[0]:.1f} ms in one run and {drift[1]:.1f} in another"
    return ""


def _why_missing(run: RunView, found: Mapping[str, Any], shape: str) -> str:
    problems: Mapping[str, str] = found.get("problems", {})
    if problem := problems.get("engine") or problems.get(shape):
        return problem
    if run.record.status == "failed":
        why = first_line(run)
        return why if outcome(run.record) == "interrupted" else f"failed: {why}"
    if run.deploy == "none":
        return "nothing was exported (deploy=none)"
    return "not timed (deploy=onnx)" if run.deploy == "onnx" else "not measured"
