"""Batches of calibration rows, through a float model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from qexp.artifacts.types import Tokens
from qexp.config import Calibration, Task
from qexp.context import Runtime
from qexp.data.batches import evaluation_batches
from qexp.models.inference import runner
from qexp.tasks import family_of

Observing = Callable[[Tensor, Tensor | None], AbstractContextManager[None]]
"""Looks at what the model computes inside, given the attention mask and that of a decoder's tokens."""


@dataclass(frozen=True)
class CalibrationRows:
    """Rows of the train split, drawn by the seed.

    Rows of similar length share a batch, and batches come in random order: little is computed on
    padding, and a moving average does not end with the longest rows.
    """

    tokens: Tokens
    task: Task
    calibration: Calibration
    limit: int | None
    """Rows at most, beside ``calibration.samples``."""
    seed: int

    def run(self, model: nn.Module, observing: Observing, title: str, rt: Runtime) -> dict[str, int]:
        """Run the model over all rows; how many ``rows`` and ``batches`` these were."""
        family = family_of(self.task)
        split = family.split(self.tokens.split(self.task.train))
        count = min(self.calibration.samples, self.limit or self.calibration.samples, len(split))
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(len(split))[:count]
        similar = evaluation_batches(split.lengths[rows], batch_size=self.calibration.batch_size)
        batches = [rows[similar[index]] for index in rng.permutation(len(similar))]
        forward = runner(model, rt)
        with rt.screen.bar(f"{title} {self.task.name}", total=count) as move:
            for batch in batches:
                tensors = family.collate(split, batch, self.tokens.pad_id)
                with observing(tensors["attention_mask"], tensors.get("target_mask")):
                    forward(tensors)
                move(len(batch))
        return {"rows": count, "batches": len(batches)}
