"""Commands to try after a verdict, each whole, to be pasted; words in capitals are placeholders."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from qexp.reporting.command import hydra_value
from qexp.reporting.run_view import RunView
from qexp.reporting.table import KEY_LENGTH
from qexp.reporting.verdict.candidates import WITHIN_LOSS, DeploymentCandidate
from qexp.reporting.verdict.verdict import Verdict, without_result

FULL_BITS = 8
"""Bit-width below which more bits are worth a try."""
WEIGHTS = (8, 4, 2)
"""Bit-widths of weights to try, one after the other; files store 3 bits in 4, so they gain nothing."""


@dataclass(frozen=True)
class NextStep:
    """One thing to do next."""

    command: str
    """Command line."""
    purpose: str


def next_steps(verdict: Verdict) -> list[NextStep]:
    """Return what to do next, the most useful first."""
    best, steps = verdict.best, _to_be_sure(verdict)
    if verdict.answer == "not quantized":
        return [*steps, _again(_some_run(verdict), "quant=w8a8", "quantizes this model")]
    if verdict.answer in ("failed", "interrupted"):
        return [*steps, _again(_some_run(verdict), "", "goes on from what is finished")]
    if verdict.answer == "cannot tell":
        return steps or [_sound_baseline(verdict)]
    if best is None:
        return [*steps, *_repairs(verdict, verdict.candidates[0])]
    return [*steps, *_of_state(verdict, best)]


def short_key(candidate: DeploymentCandidate) -> str:
    """Return the beginning of the key of a candidate's run."""
    return candidate.run.record.key[:KEY_LENGTH]


def _again(run: RunView, changes: str, purpose: str) -> NextStep:
    """Return the command that repeats a run with changes, as words of a shell."""
    return NextStep(f"qexp again {run.record.key[:KEY_LENGTH]} {changes}".rstrip(), purpose)


def _some_run(verdict: Verdict) -> RunView:
    """Return the run to repeat: of the best candidate, else one that finished, else one that did not."""
    if verdict.candidates:
        return (verdict.best or verdict.candidates[0]).run
    finished = [each.best for row in verdict.comparison.rows for each in row.by_seed.values() if each.best]
    return [*finished, *without_result(verdict.comparison)][0]


def _to_be_sure(verdict: Verdict) -> list[NextStep]:
    steps, run = [], _some_run(verdict)
    if "sample" in verdict.marks:
        steps.append(_again(run, "data=local data.root=FOLDER", "the same on your own rows"))
    if "smoke" in verdict.marks or "limited" in verdict.marks:
        steps.append(_again(run, "budget=full", "the same with all steps and rows"))
    return steps


def _sound_baseline(verdict: Verdict) -> NextStep:
    """Return what may bring the FP32 model above chance: longer training, or the right order of labels."""
    run = verdict.candidates[0].run
    if run.find("finetune.kind") != "none":
        longer = f"finetune.epochs={2 * (run.find('finetune.epochs') or 1):g}"
        return _again(run, longer, "trains FP32 longer, until it is above chance")
    if not (labels := run.find("task.labels")):
        return _again(run, "finetune=full", "fine-tunes the checkpoint on these rows first")
    reversed_labels = shlex.quote(f"task.labels={hydra_value(labels[::-1])}")
    return _again(run, reversed_labels, "if the checkpoint names no labels and has them in another order")


def _of_state(verdict: Verdict, best: DeploymentCandidate) -> list[NextStep]:
    key = short_key(best)
    if best.state == "deployable":
        translates = best.run.find("task.kind") == "translation"  # predicted in torch alone
        runtime = "" if translates else f" --runtime {best.runtime}"
        return [
            NextStep(f"qexp publish {key} FOLDER", "for transformers, ONNX Runtime and the hub"),
            NextStep(f"qexp predict {key} ROWS{runtime}", "predictions of your own rows"),
            *_with_tables(verdict, best),
            *_fewer_bits(verdict),
        ]
    if best.state == "simulated":
        return [
            *_unless(verdict, "W8A8", _again(best.run, "quant=w8a8", "integers that engines multiply")),
            NextStep(f"qexp search {key}", "which layers can have few bits, and which need 8"),
        ]
    if best.state == "not exported":
        ptq = best.stage != best.run.stages[-1]
        changes = "method=ptq deploy=auto" if ptq else "deploy=auto"
        return [_again(best.run, changes, "the same run with file, gate and latency")]
    if best.state == "gate failed":
        return [NextStep(f"qexp bench {key} --bisect", "names the layer that departs from torch")]
    if best.state == "no engine":
        other = "openvino" if best.runtime == "onnxruntime" else "onnxruntime"
        return [_again(best.run, f"deploy={other}", "another runtime")]
    return _repairs(verdict, best)


def _with_tables(verdict: Verdict, best: DeploymentCandidate) -> list[NextStep]:
    """Return the placement that has the tables of embeddings, too, where they are much and were not tried."""
    placements = {each.run.find("placement.name") for each in verdict.candidates}
    if not best.has_large_tables or best.run.find("placement.name") != "gemm" or "gemm_tables" in placements:
        return []
    return [_again(best.run, "placement=gemm_tables", "quantizes the tables, too")]


def _fewer_bits(verdict: Verdict) -> list[NextStep]:
    """Return the next narrower weights to try, where the narrowest that were tried keep the score."""
    plain = [each for each in verdict.candidates if each.row.quant == "w{}a{}".format(*each.row.bits)]
    fewest = min((each.row.bits[0] for each in plain), default=0)
    holds = [each for each in plain if each.row.bits[0] == fewest and each.state in WITHIN_LOSS]
    narrower = next((bits for bits in WEIGHTS if bits < fewest), None)
    if not holds or narrower is None:
        return []
    quant = f"quant=w{narrower}a{holds[0].row.bits[1]}"
    return [_again(holds[0].run, quant, "fewer bits: does the score still hold?")]


def _with_wider_tables(best: DeploymentCandidate) -> list[NextStep]:
    """Return tables of embeddings in 8 bits, where they are quantized to fewer."""
    bits = best.run.find("quant.embedding_bits") or best.run.bits[0]
    if "embedding.weight" not in best.quantized_sites or bits >= FULL_BITS:
        return []
    return [_again(best.run, "quant.embedding_bits=8", "tables of embeddings in 8 bits")]


def _other_ranges(verdict: Verdict, run: RunView) -> list[NextStep]:
    """Return activations by percentile, where ranges are by mse alone; see docs/measured.md."""
    tried = {each.run.find("calibrator.kind") for each in verdict.candidates}
    if tried != {"mse"} or run.bits[1] < FULL_BITS:
        return []
    return [_again(run, "calibrator=percentile calibrator.weights=mse", "other ranges, in a minute")]


def _repairs(verdict: Verdict, best: DeploymentCandidate) -> list[NextStep]:
    """Return what may lower a loss: QAT, another placement, the noisiest layers in float, more bits."""
    run, key = best.run, short_key(best)
    few = min(run.bits) < FULL_BITS
    steps = _with_wider_tables(best)
    if few:
        steps += _unless(verdict, "W8A8", _again(run, "quant=w8a8", "more bits, at the same speed"))
    steps += _other_ranges(verdict, run)
    if not any(each.stage == "qat" for each in verdict.candidates):
        steps.append(_again(run, "method=qat", "trains with the quantizers in the loop"))
    elif best.state == "collapsed" and (rate := run.find("method.learning_rate")):
        steps.append(_again(run, f"method.learning_rate={rate / 2:g}", "half the rate that QAT used here"))
    if run.find("placement.name") != "linear":
        steps.append(_again(run, "placement=linear", "quantizes linear layers only"))
    steps.append(NextStep(f"qexp sensitivity {key}", "the layers that cost most"))
    if not few and run.bits[1] == FULL_BITS:
        steps += _unless(verdict, "W8A16", _again(run, "quant=w8a16", "more bits for activations"))
    return steps


def _unless(verdict: Verdict, quant: str, step: NextStep) -> list[NextStep]:
    """Return the step unless the bit-widths were tried already."""
    return [] if any(each.row.quant.upper() == quant for each in verdict.candidates) else [step]
