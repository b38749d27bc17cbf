"""Split of each training batch into micro-batches, over processes and gradient accumulation turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qexp.config import Numerics

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class BatchSplit:
    """Split of a batch over ``devices`` processes with ``accumulate`` turns each, as seen by one ``rank``."""

    accumulate: int = 1
    devices: int = 1
    rank: int = 0

    @classmethod
    def of(cls, numerics: Numerics, rank: int) -> BatchSplit:
        """Return the split as process ``rank`` sees it."""
        return cls(numerics.accumulate, numerics.devices, rank)

    @property
    def count(self) -> int:
        """Number of parts of a batch, over all processes."""
        return self.accumulate * self.devices

    def number(self, turn: int) -> int:
        """Return the index, among the parts of its batch, of what this process computes at ``turn``."""
        return turn % self.accumulate * self.devices + self.rank


class MicroBatches:
    """Iterator over the parts of all training batches in order; its position is part of a checkpoint.

    Row ``i`` of a batch belongs to part ``i`` modulo the number of parts: rows are sorted by length, so the
    parts of a batch take similar work. Each part has a ``share``: the mean over its loss terms times the
    share, averaged over the parts, is the mean over the batch. A batch with fewer rows than parts leaves some
    parts empty; an empty part computes on one row of the batch, with share 0.

    Args:
        rows: Row numbers of each batch.
        collate: Function from row numbers to tensors.
        parts: Split of batches, which includes the rank of this process.
        loss_count: Function from row numbers to the number of terms over which their loss is a mean.
        epoch_ends: Number of batches up to the end of each epoch, the last of which may be cut short.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        collate: Callable[[np.ndarray], Batch],
        parts: BatchSplit | None = None,
        loss_count: Callable[[np.ndarray], int] = len,
        epoch_ends: Sequence[int] = (),
    ) -> None:
        self.rows = rows
        self.collate = collate
        self.parts = parts or BatchSplit()
        self.loss_count = loss_count
        self.epoch_ends = tuple(epoch_ends)
        self.taken = 0

    @property
    def count(self) -> int:
        """Number of optimizer steps."""
        return len(self.rows)

    @property
    def rows_per_step(self) -> float:
        """Rows of a batch, the mean over all."""
        return sum(map(len, self.rows)) / len(self.rows) if len(self.rows) else 1.0

    def __len__(self) -> int:
        """Number of parts that this process computes."""
        return len(self.rows) * self.parts.accumulate

    def __iter__(self) -> Iterator[Batch]:
        while self.taken < len(self):
            self.taken += 1
            yield self._part(self.taken - 1)

    def _part(self, turn: int) -> Batch:
        rows = self.rows[turn // self.parts.accumulate]
        chosen = rows[self.parts.number(turn) :: self.parts.count]
        share = self.loss_count(chosen) * self.parts.count / self.loss_count(rows)
        batch = self.collate(chosen if len(chosen) else rows[:1])
        return batch | {"share": torch.tensor(share, dtype=torch.float32)}

    def state_dict(self) -> dict[str, int]:
        """Return the number of parts that were yielded, the same in every process after a whole step."""
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the number of parts in ``state``."""
        self.taken = state["taken"]
