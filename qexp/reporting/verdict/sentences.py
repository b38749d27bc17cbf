"""Words of a verdict: a headline, and sentences on score, speed, size, gate and other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qexp.console import shown_path
from qexp.naming import has_floats
from qexp.reporting.table import MEBIBYTE, joined, points, score
from qexp.reporting.verdict.candidates import DeploymentCandidate, ScoreChange, State
from qexp.reporting.verdict.speed import Speed, engines_of, shape_words
from qexp.reporting.verdict.verdict import Answer, Verdict

RUNTIMES_SHORT = {
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT for RTX", "torch_int8": "torch",
}  # fmt: skip
MARKS = {
    "sample": "On generated rows: this says nothing about your data.",
    "smoke": "Smoke budget, a few steps and rows: this shows that the line runs, nothing more.",
    "limited": "Limited budget: with all steps and rows it may turn out otherwise.",
}
"""What comes before a verdict that rests on less than a whole run on real rows."""
WITHIN: dict[State, str] = {
    "deployable": "", "simulated": " (simulated)", "not exported": " (not exported)",
}  # fmt: skip
"""States within the accepted loss that nothing speaks against, and what follows the name."""
WIDENED = "Engines multiply the weights of {} as 8-bit integers: {} W8A8, and as fast."
HALF_A_BYTE = 4
"""Most bits of weights that take less than a byte in a file."""
MISLEADING = 1.5
"""Least factor between the ratio of two files and that of their engines' memory that is told."""
NAMED = 4
"""Most candidates that one sentence names."""
HEADLINES: dict[Answer, str] = {
    "deployable": "deployable",
    "simulated": "the score holds, but nothing here computes it faster than W8A8",
    "not exported": "the score holds; no file was exported",
    "none": "nothing to deploy",
    "cannot tell": "cannot tell",
    "not quantized": "nothing was quantized",
    "failed": "failed",
    "interrupted": "interrupted",
}


def headline(verdict: Verdict) -> str:
    """Return the verdict in a line, such as ``mrpc: W8A8 PTQ is deployable``."""
    best = verdict.best
    if verdict.answer == "deployable" and best:
        doubt = "" if best.sure else " by its measured score"
        return f"{verdict.task}: {best.name} is deployable in {runtime_title(best)}{doubt}"
    return f"{verdict.task}: {HEADLINES[verdict.answer]}"


def sentences(verdict: Verdict) -> list[str]:
    """Return the sentences of a verdict, those on what its numbers cannot show first."""
    lines = [MARKS[mark] for mark in verdict.marks if mark in MARKS]
    lines.append(f"{headline(verdict)}.")
    if verdict.answer == "cannot tell":
        return [*lines, _no_baseline(verdict)]
    if verdict.answer in ("failed", "interrupted", "not quantized"):
        return [*lines, *(f"{failure}." for failure in verdict.failures[:1])]
    if (best := verdict.best) is None:
        return [*lines, *_collapsed(verdict.candidates)]
    lines += _of_best(best)
    return [*lines, *_others(verdict, best), *_collapsed(verdict.candidates)]


def objection(verdict: Verdict) -> str | None:
    """Return what speaks against deploying a model, such as its loss or collapse; None if nothing does."""
    best = verdict.best
    if verdict.answer != "none" or (best and best.state == "no engine"):
        return None
    reasons = _of_best(best) if best else _collapsed(verdict.candidates)
    return " ".join([f"{headline(verdict)}.", *reasons[:1]])


def runtime_title(candidate: DeploymentCandidate) -> str:
    """Return the name of a candidate's runtime for readers."""
    return RUNTIMES_SHORT.get(candidate.runtime or "", candidate.runtime or "torch")


def file_of(candidate: DeploymentCandidate, outputs: Path | None) -> str | None:
    """Return the path of the quantized file, or its folder for a translator; None without an export.

    Args:
        candidate: Candidate whose file is named.
        outputs: Folder of the store; None names the file within it.
    """
    if candidate.graph is None:
        return None
    folder = Path(candidate.graph) if outputs is None else shown_path(outputs / candidate.graph)
    two = candidate.run.find("task.kind") == "translation"
    return str(folder if two else folder / "model.onnx")


def _no_baseline(verdict: Verdict) -> str:
    return (
        f"The FP32 model itself is no use ({verdict.fp32_caveat}), so a loss against it says nothing; no "
        "quantized model is judged."
    )


def _of_best(best: DeploymentCandidate) -> list[str]:
    lines = [f"{best.name} {change_words(best.change, best.accepted)}"] if best.change else []
    lines += _exported_words(best)
    if best.state == "deployable":
        size = "smaller than" if best.run.bits[0] <= HALF_A_BYTE else "as large as"
        widened = [WIDENED.format(best.row.quant.upper(), size)] if best.execution == "widened" else []
        return [*lines, f"{_deployed(best)} Gate: {best.gate}.", *_memory(best), *_tables(best), *widened]
    lines += [simulated_words(best)] if best.execution == "simulated" else []
    if best.state == "simulated":
        return [*lines, f"Gate: {best.gate}."]
    if best.state == "gate failed":
        title = runtime_title(best)
        return [*lines, f"The gate failed in {title}: the exported file is not that model ({best.reason})."]
    if best.state == "no engine":
        return [*lines, f"No engine in {runtime_title(best)}: {best.reason}."]
    if best.state == "not exported":
        return [*lines, f"Speed and size are unknown: {best.reason}."]
    return lines


def _exported_words(best: DeploymentCandidate) -> list[str]:
    """Return the score of the exported file, where it is another one than that of the simulation in torch."""
    exported = best.exported_score
    if best.change is None or exported is None or score(exported) == score(best.change.score):
        return []
    return [f"The exported file scores {score(exported)} in {runtime_title(best)}."]


def change_words(change: ScoreChange | None, accepted: float) -> str:
    """Return what happens to the main score, with the interval and what it means for the accepted loss."""
    if change is None:
        return "has no score."
    within = round(change.points, 9) >= -accepted
    verb = "keeps" if within else "loses"
    limit = (
        f"within the {accepted:g} points accepted"
        if within
        else f"more than the {accepted:g} points accepted"
    )
    start = (
        f"{verb} {change.metric} {limit} (accept.loss)"
        if within
        else f"{verb} {-change.points:.2f} points of {change.metric}, {limit} (accept.loss)"
    )
    numbers = f"{score(change.fp32)} -> {score(change.score)}, {points(change.points)} points"
    text = f"{start}: {numbers}, {_interval(change)}."
    reach = change.low is not None and change.low < -accepted
    if within and reach and change.rows:
        text += f" {change.rows} rows cannot rule out a larger loss than accepted."
    elif not within and change.high is not None and change.high >= -accepted and change.rows:
        text += f" {change.rows} rows cannot rule out that it is within."
    worse = [f"{name} {points(lost)}" for name, lost in change.others if lost < -accepted]
    return f"{text} Other scores lose more: {joined(worse)}." if within and worse else text


def _interval(change: ScoreChange) -> str:
    if change.low is None or change.high is None:
        return "no interval"
    ends = f"{points(change.low)} to {points(change.high)}"
    if change.seeds > 1:
        return f"the median of {change.seeds} seeds from {ends}"
    return f"95 % interval {ends} ({change.resamples} resamples of {change.rows} rows)"


def speed_words(speed: Speed, machine: str = "on this CPU") -> str:
    """Return how fast an engine is, or why no ratio is given."""
    at = shape_words(speed.shape)
    if speed.kind == "missing":
        return f"latency is missing: {speed.reason}"
    if speed.kind != "measured" or speed.ratio is None:
        return f"no speedup is given, latency is {speed.kind}: {speed.reason}"
    faster = f"{speed.ratio:.2f}x as fast as FP32 {machine}"
    if speed.ratio < 1:
        faster = f"slower than FP32 {machine}, {speed.ratio:.2f}x"
    times = f"{speed.fp32_ms:.2f} -> {speed.ms:.2f} ms"
    return f"{faster} ({at}, {times}, p90/p50 up to {speed.spread:.2f})"


def size_words(candidate: DeploymentCandidate) -> str:
    """Return how much smaller the quantized file is; empty without both files."""
    if candidate.bytes is None:
        return ""
    fp32, int8 = (size / MEBIBYTE for size in candidate.bytes)
    return f"{fp32 / int8:.2f}x smaller ({fp32:.1f} -> {int8:.1f} MiB)" if int8 else ""


def _deployed(best: DeploymentCandidate) -> str:
    speed, size = speed_words(best.speed, machine_of(best)), size_words(best)
    if best.speed.kind == "measured":
        return f"It is {speed}{f' and {size}' if size else ''}."
    return f"{f'It is {size}; ' if size else ''}{speed}."


def _memory(best: DeploymentCandidate) -> list[str]:
    """Return what the loaded engine takes, where the sizes of the files mislead about it."""
    if best.bytes is None or best.memory is None:
        return []
    smaller, less = best.bytes[0] / best.bytes[1], best.memory[0] / best.memory[1]
    if max(smaller / less, less / smaller) < MISLEADING:
        return []
    fp32, int8 = (each / MEBIBYTE for each in best.memory)
    return [f"Loaded, it takes {int8:.1f} MiB of memory, FP32 {fp32:.1f}."]


def _tables(best: DeploymentCandidate) -> list[str]:
    """Return how much of the quantized file is in FP32, where it is much."""
    if not best.has_large_tables or best.bytes is None:
        return []
    floats, file = best.float_bytes / MEBIBYTE, best.bytes[1] / MEBIBYTE
    return [f"About {floats:.1f} of its {file:.1f} MiB are in FP32, almost all of them tables of embeddings."]


def machine_of(candidate: DeploymentCandidate) -> str:
    """Return the device that timed a candidate, such as ``on AMD EPYC 9B14``."""
    host = candidate.run.record.host or {}
    device = _device(candidate) or host.get("processor")
    return f"on {str(device).split(' [')[0]}" if device else "on this CPU"


def _device(candidate: DeploymentCandidate) -> str | None:
    info = engines_of(candidate.run).get(f"{candidate.runtime}/int8", {}).get("info", {})
    device: str | None = info.get("device")
    return device


def _on_cpu(candidate: DeploymentCandidate) -> bool:
    return _device(candidate) in (None, (candidate.run.record.host or {}).get("processor"))


def simulated_words(candidate: DeploymentCandidate) -> str:
    """Return what a file of bit-widths without kernels holds, and what it would be worth with them."""
    packed = candidate.packed_bytes
    size = f" (at their own bits its parameters would be {packed / MEBIBYTE:.2f} MiB)" if packed else ""
    widest = max(bits for pair in candidate.run.widths for bits in pair if bits < 32)
    bits = "32" if has_floats(candidate.row.quant) else "8" if widest <= 8 else "16 or 32"
    return (
        f"{candidate.row.quant.upper()} is simulated: its accuracy is real, but engines compute with "
        f"{bits}-bit numbers in place of its activations{size}, and no "
        f"{'CPU ' if _on_cpu(candidate) else ''}engine here computes it faster than W8A8."
    )


def _others(verdict: Verdict, best: DeploymentCandidate) -> list[str]:
    """Return sentences on the best candidate elsewhere, and on others within the loss and beyond it."""
    others = [each for each in verdict.candidates if each is not best]
    lines = []
    elsewhere = [
        runtime_title(each) for each in others if each.name == best.name and each.state == best.state
    ]
    if elsewhere and best.state == "deployable":
        lines.append(f"It is deployable in {joined(elsewhere)}, too.")
    within = {
        each.name: f"{each.name}{WITHIN[each.state]}"
        for each in reversed(others)  # the best state of a name comes last
        if each.state in WITHIN and each.name != best.name
    }
    if within:
        shown = [*reversed(within.values())]
        more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
        lines.append(f"Also within the accepted loss: {joined(shown[:NAMED])}{more}.")
    failed = [f"{each.name} in {runtime_title(each)}" for each in others if each.state == "gate failed"]
    if failed:
        lines.append(f"The gate failed for {joined(failed)}.")
    lost = {
        each.name: f"{each.name} ({points(each.change.points)})"
        for each in others
        if each.state == "loss" and each.change and each.name != best.name
    }
    return [*lines, f"Beyond it: {joined([*lost.values()])}."] if lost else lines


def _collapsed(candidates: Sequence[DeploymentCandidate]) -> list[str]:
    """Return sentences on candidates whose score says nothing, by reason."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for each in candidates:
        if each.state in ("collapsed", "undefined"):
            start = "Collapsed, never to deploy" if each.state == "collapsed" else "Without a score"
            names.setdefault((start, each.reason), {})[each.name] = None
    return [f"{start}: {joined([*of_reason])}: {why}." for (start, why), of_reason in names.items()]
