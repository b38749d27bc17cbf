"""Table of the candidates of a verdict: score, change, latency, size and gate of each quantized model."""

from __future__ import annotations

from collections.abc import Sequence

from qexp.reporting.table import MEBIBYTE, NOT_REQUESTED, Table, joined, points, score
from qexp.reporting.verdict.candidates import DeploymentCandidate
from qexp.reporting.verdict.sentences import machine_of, runtime_title
from qexp.reporting.verdict.speed import shape_words
from qexp.reporting.verdict.verdict import Verdict


def candidate_table(verdict: Verdict) -> Table:
    """Return the table of a verdict's candidates, best first, with FP32 in its caption."""
    found = verdict.candidates
    runtimes = list(dict.fromkeys(runtime_title(each) for each in found))
    several = len(runtimes) > 1
    header = ["model", *["engine"] * several, "score", "points", "95 % interval"]
    header += ["p50 (ms)", "speedup", "MiB", "gate"]
    return Table(
        joined([verdict.task, *verdict.marks]),
        tuple(header),
        rows=tuple(_row(each, several) for each in found),
        caption=tuple(_caption(found, runtimes)),
        labels=1 + several,
    )


def _row(candidate: DeploymentCandidate, several: bool) -> tuple[str, ...]:
    change, speed, sizes = candidate.change, candidate.speed, candidate.bytes
    low, high = (change.low, change.high) if change else (None, None)
    exported = candidate.runtime is not None
    return (
        candidate.name,
        *[runtime_title(candidate)] * several,
        score(change.score) if change else "undefined",
        points(change.points) if change else "undefined",
        NOT_REQUESTED if low is None or high is None else f"{points(low)} to {points(high)}",
        f"{speed.ms:.1f}" if speed.ms is not None else NOT_REQUESTED,
        f"{speed.ratio:.2f}x" if speed.ratio else speed.kind if exported else NOT_REQUESTED,
        f"{sizes[1] / MEBIBYTE:.1f}" if sizes and exported else NOT_REQUESTED,
        candidate.gate or NOT_REQUESTED,
    )


def _caption(found: Sequence[DeploymentCandidate], runtimes: Sequence[str]) -> list[str]:
    """Return the numbers of FP32, and what all rows have in common."""
    first = next((each for each in found if each.change), None)
    if first is None or first.change is None:
        return []
    change, speed, sizes = first.change, first.speed, first.bytes
    parts = [f"score: {change.metric}, FP32 {score(change.fp32)}"]
    parts += [f"{change.rows} rows"] if change.rows else []
    parts += [f"{sizes[0] / MEBIBYTE:.1f} MiB"] if sizes else []
    lines = [joined(parts)]
    if speed.fp32_ms is not None:
        where = f"{runtimes[0]}, " if len(runtimes) == 1 else ""
        lines.append(
            f"latency: {where}{shape_words(speed.shape)}, {machine_of(first)}; FP32 {speed.fp32_ms:.1f} ms"
        )
    return lines
