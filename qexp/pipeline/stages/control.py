"""The FP32 model, trained on without quantizers: what a quantization-aware training is held against."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Tokens
from qexp.config import Control, Finetuned, Schooling, Task, Training
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    tokens: Tokens,
    task: Task,
    method: Control,
    finetune: Training | Finetuned,
    schooling: Schooling,
    *,
    rt: Runtime,
) -> None:
    """Train the weights, with the same teacher, batches and rates as quantization-aware training."""
    from qexp.training.distributed import train
    from qexp.training.plans import Continued

    course = Continued(tokens, encoder, task, method, finetune, schooling)
    work.write_facts(train(course, work.folder, work.scratch, rt))


STAGE = Stage("5-control", 1, Encoder, run)
