"""A calibrated model, trained on with its quantizers in the loop."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Ranges, Tokens, Trained
from qexp.config import AnyCalibrator, Finetuned, Form, Qat, Schooling, Task, Training
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    teacher: Encoder,
    ranges: Ranges,
    tokens: Tokens,
    task: Task,
    form: Form,
    method: Qat,
    recalibrator: AnyCalibrator | None,
    finetune: Training | Finetuned,
    schooling: Schooling,
    *,
    rt: Runtime,
) -> None:
    """Train weights, and ranges where they are learned; leave plain float weights and the final ranges.

    ``teacher`` is the FP32 model, which ``encoder`` is, too, but after a refinement.

    ``recalibrator`` finds the ranges of weights anew, at the end; null leaves them as training did.
    """
    from qexp.quant.kernels.native import problem
    from qexp.training.distributed import train
    from qexp.training.plans import QuantizationAware

    if rt.machine.accelerator == "cpu" and (missing := problem()):
        rt.screen.warn(f"fake quantization runs in plain torch, which is slower: {missing}")
    course = QuantizationAware(
        tokens, encoder, task, method, finetune, schooling, teacher, ranges, form, recalibrator
    )
    work.write_facts(train(course, work.folder, work.scratch, rt))


STAGE = Stage("5-qat", 1, Trained, run)
