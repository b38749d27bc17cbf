"""Forward pass over calibration rows in floating point, which observers collect statistics from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from qexp.artifacts.types import Tokens
from qexp.config import Calibration, Task
from qexp.context import RunContext
from qexp.data.batches import evaluation_batches
from qexp.models.inference import runner
from qexp.tasks import adapter_for

Observing = Callable[[Tensor, Tensor | None], AbstractContextManager[None]]
"""Context in which observers see the model's values, given the attention mask and the decoder's mask."""


@dataclass(frozen=True)
class CalibrationRows:
    """Calibration rows, drawn at random from the train split.

    Rows of similar length share a batch, so little compute is spent on padding. Batches are in random order,
    so a moving average does not end with the longest rows.
    """

    tokens: Tokens
    task: Task
    calibration: Calibration
    limit: int | None
    """Upper bound on the number of rows, in addition to ``calibration.samples``; None for no bound."""
    seed: int

    def run(self, model: nn.Module, observing: Observing, title: str, ctx: RunContext) -> dict[str, int]:
        """Run the model on all rows inside ``observing``; return the number of ``rows`` and ``batches``."""
        adapter = adapter_for(self.task)
        split = adapter.split(self.tokens.split(self.task.train))
        count = min(self.calibration.samples, self.limit or self.calibration.samples, len(split))
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(len(split))[:count]
        by_length = evaluation_batches(split.lengths[rows], batch_size=self.calibration.batch_size)
        batches = [rows[by_length[index]] for index in rng.permutation(len(by_length))]
        forward = runner(model, ctx)
        with ctx.console.bar(f"{title} {self.task.name}", total=count) as advance:
            for batch in batches:
                tensors = adapter.collate(split, batch, self.tokens.pad_id)
                with observing(tensors["attention_mask"], tensors.get("target_mask")):
                    forward(tensors)
                advance(len(batch))
        return {"rows": count, "batches": len(batches)}
