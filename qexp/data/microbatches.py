"""The steps of a training, and how each one is split into parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qexp.config import Numerics

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """How a batch is split: over processes, of which this is ``rank``, and in each into turns."""

    accumulate: int = 1
    devices: int = 1
    rank: int = 0

    @classmethod
    def of(cls, numerics: Numerics, rank: int) -> Parts:
        """The parts of one process."""
        return cls(numerics.accumulate, numerics.devices, rank)

    @property
    def count(self) -> int:
        """Parts of a batch, over all processes."""
        return self.accumulate * self.devices

    def number(self, turn: int) -> int:
        """Number, among all parts of its batch, of the one that this process computes at ``turn``."""
        return turn % self.accumulate * self.devices + self.rank


class Steps:
    """The batches of a training in order, part by part; remembers, in a checkpoint, how far it got.

    Row ``i`` of a batch is in part ``i`` modulo the number of parts: rows come sorted by length, so that
    parts are alike in work. Each part has a ``share``: the mean over its terms times the share, averaged
    over the parts, is the mean over the batch. A batch with fewer rows than parts leaves some parts
    without any; such a part computes on one row of the batch, with share 0.

    Args:
        rows: Row numbers of each batch.
        collate: Rows to tensors.
        parts: How batches are split, and which parts are this process's.
        terms: Over how many terms the loss of rows is a mean.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        collate: Callable[[np.ndarray], Batch],
        parts: Parts | None = None,
        terms: Callable[[np.ndarray], int] = len,
    ) -> None:
        self.rows = rows
        self.collate = collate
        self.parts = parts or Parts()
        self.terms = terms
        self.taken = 0

    @property
    def count(self) -> int:
        """Optimizer steps."""
        return len(self.rows)

    def __len__(self) -> int:
        """Parts that this process computes."""
        return len(self.rows) * self.parts.accumulate

    def __iter__(self) -> Iterator[Batch]:
        while self.taken < len(self):
            self.taken += 1
            yield self._part(self.taken - 1)

    def _part(self, turn: int) -> Batch:
        rows = self.rows[turn // self.parts.accumulate]
        chosen = rows[self.parts.number(turn) :: self.parts.count]
        share = self.terms(chosen) * self.parts.count / self.terms(rows)
        batch = self.collate(chosen if len(chosen) else rows[:1])
        return batch | {"share": torch.tensor(share, dtype=torch.float32)}

    def state_dict(self) -> dict[str, int]:
        """Number of parts that were handed out, the same in every process after a whole step."""
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many parts."""
        self.taken = state["taken"]
