"""Which values of a tensor share a range."""

from __future__ import annotations

from torch import Tensor


class RangeLayout:
    """Base of grids: the axis, and the blocks along it, that have ranges of their own."""

    axis: int | None
    block: int | None

    def in_blocks(self, x: Tensor) -> Tensor:
        """View a tensor so that ``axis`` has one index for each range: in blocks as [blocks, block]."""
        return x if self.block is None else x.reshape(-1, self.block)

    def spread(self, parameter: Tensor, rows: int) -> Tensor:
        """Reshape a scale or zero point to broadcast with a matrix of ``rows`` rows, as it is."""
        if self.block is None:
            return self.expand(parameter, 2)
        return self.table(parameter, rows).repeat_interleave(self.block, dim=1)

    def table(self, parameter: Tensor, rows: int) -> Tensor:
        """Reshape a scale or zero point in blocks to [rows, blocks of a row]; return any other unchanged."""
        return parameter if self.block is None else parameter.reshape(rows, -1)

    def expand(self, parameter: Tensor, dimensions: int) -> Tensor:
        """Reshape a scale or zero point to broadcast with ``dimensions`` axes, after ``in_blocks``."""
        if self.axis is None or parameter.dim() == 0:
            return parameter
        shape = [1] * dimensions
        shape[self.axis] = -1
        return parameter.reshape(shape)
