"""Commands and settings to try after a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from qexp.reporting.table import KEY_LENGTH
from qexp.reporting.verdict.candidates import WITHIN_LOSS, DeploymentCandidate
from qexp.reporting.verdict.verdict import Verdict

FULL_BITS = 8
"""Bit-width below which more bits are worth a try."""
WEIGHTS = (8, 4, 2)
"""Bit-widths of weights to try, one after the other; files store 3 bits in 4, so they gain nothing."""


@dataclass(frozen=True)
class NextStep:
    """One thing to do next."""

    command: str
    """Command line, or overrides of the next run."""
    purpose: str


def next_steps(verdict: Verdict) -> list[NextStep]:
    """Return what to do next, the most useful first."""
    best, steps = verdict.best, _to_be_sure(verdict)
    if verdict.answer == "not quantized":
        return [*steps, NextStep("quant=w8a8", "quantizes this model")]
    if verdict.answer in ("failed", "interrupted"):
        return [*steps, NextStep("the same command", "goes on from what is finished")]
    if verdict.answer == "cannot tell":
        return steps or [_sound_baseline(verdict)]
    if best is None:
        return [*steps, *_repairs(verdict, verdict.candidates[0])]
    return [*steps, *_of_state(verdict, best)]


def short_key(candidate: DeploymentCandidate) -> str:
    """Return the beginning of the key of a candidate's run."""
    return candidate.run.record.key[:KEY_LENGTH]


def _to_be_sure(verdict: Verdict) -> list[NextStep]:
    steps = []
    if "sample" in verdict.marks:
        steps.append(NextStep("data=local data.root=FOLDER", "the same on your own rows"))
    if "smoke" in verdict.marks or "limited" in verdict.marks:
        steps.append(NextStep("budget=full", "the same with all steps and rows, and no limit of budget.…"))
    return steps


def _sound_baseline(verdict: Verdict) -> NextStep:
    """Return what may bring the FP32 model above chance: longer training, or the right order of labels."""
    run = verdict.candidates[0].run
    if run.find("finetune.kind") != "none":
        return NextStep("finetune.epochs=… finetune.learning_rate=…", "until FP32 is above chance")
    key = short_key(verdict.candidates[0])
    return NextStep(
        f"qexp again {key} 'task.labels=[…]'", "the checkpoint's labels in its order, if it names none"
    )


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
            *_unless(verdict, "W8A8", NextStep("quant=w8a8", "integers that engines multiply")),
            NextStep(f"qexp search {key}", "which layers can have few bits, and which need 8"),
        ]
    if best.state == "not exported":
        ptq = best.stage != best.run.stages[-1]
        method = "method=ptq " if ptq else ""
        return [NextStep(f"{method}deploy=auto", "the same run with file, gate and latency")]
    if best.state == "gate failed":
        return [NextStep(f"qexp bench {key} --bisect", "names the layer that departs from torch")]
    if best.state == "no engine":
        return [NextStep("deploy=onnxruntime", "another runtime")]
    return _repairs(verdict, best)


def _with_tables(verdict: Verdict, best: DeploymentCandidate) -> list[NextStep]:
    """Return the placement that has the tables of embeddings, too, where they are much and were not tried."""
    placements = {each.run.find("placement.name") for each in verdict.candidates}
    if not best.has_large_tables or best.run.find("placement.name") != "gemm" or "gemm_tables" in placements:
        return []
    return [NextStep(f"qexp again {short_key(best)} placement=gemm_tables", "quantizes the tables, too")]


def _fewer_bits(verdict: Verdict) -> list[NextStep]:
    """Return the next narrower weights to try, where the narrowest that were tried keep the score."""
    plain = [each for each in verdict.candidates if each.row.quant == "w{}a{}".format(*each.row.bits)]
    fewest = min((each.row.bits[0] for each in plain), default=0)
    holds = [each for each in plain if each.row.bits[0] == fewest and each.state in WITHIN_LOSS]
    narrower = next((bits for bits in WEIGHTS if bits < fewest), None)
    if not holds or narrower is None:
        return []
    quant = f"quant=w{narrower}a{holds[0].row.bits[1]}"
    return [NextStep(f"qexp again {short_key(holds[0])} {quant}", "fewer bits: does the score still hold?")]


def _with_wider_tables(best: DeploymentCandidate) -> list[NextStep]:
    """Return tables of embeddings in 8 bits, where they are quantized to fewer."""
    bits = best.run.find("quant.embedding_bits") or best.run.bits[0]
    if "embedding.weight" not in best.quantized_sites or bits >= FULL_BITS:
        return []
    return [
        NextStep(f"qexp again {short_key(best)} quant.embedding_bits=8", "tables of embeddings in 8 bits")
    ]


def _repairs(verdict: Verdict, best: DeploymentCandidate) -> list[NextStep]:
    """Return what may lower a loss: QAT, another placement, the noisiest layers in float, more bits."""
    run, key = best.run, short_key(best)
    few = min(run.bits) < FULL_BITS
    steps = _with_wider_tables(best)
    if few:
        steps += _unless(verdict, "W8A8", NextStep("quant=w8a8", "more bits, at the same speed"))
    if not any(each.stage == "qat" for each in verdict.candidates):
        steps.append(NextStep(f"qexp again {key} method=qat", "trains with the quantizers in the loop"))
    elif best.state == "collapsed":
        steps.append(NextStep("method.learning_rate=…", "a lower one than QAT used here"))
    if run.find("placement.name") != "linear":
        steps.append(NextStep(f"qexp again {key} placement=linear", "quantizes linear layers only"))
    steps.append(NextStep(f"qexp sensitivity {key}", "the layers that cost most"))
    if not few and run.bits[1] == FULL_BITS:
        steps += _unless(verdict, "W8A16", NextStep("quant=w8a16", "more bits for activations"))
    return steps


def _unless(verdict: Verdict, quant: str, step: NextStep) -> list[NextStep]:
    """Return the step unless the bit-widths were tried already."""
    return [] if any(each.row.quant.upper() == quant for each in verdict.candidates) else [step]
