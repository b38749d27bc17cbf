"""Ranges that a weight has: one, one for each channel, or one for each block of a channel."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from qexp.config import GroupSize
from qexp.errors import QuantizationError
from qexp.quant.float_grid import BlockGrid
from qexp.quant.grid import AnyGrid
from qexp.quant.insertion.sites import WeightParameter, joined


def number_of_ranges(weight: WeightParameter, parameter: Tensor, grid: AnyGrid) -> int | None:
    """Return the number of ranges of a weight, None for one.

    Raises:
        QuantizationError: The grid is in blocks, and the weight is no matrix whose rows they fill.
    """
    name, shape = joined(weight.module, weight.parameter), list(parameter.shape)
    if isinstance(grid, BlockGrid) and weight.axis != 0:
        raise QuantizationError(
            f"{grid.name}: {name} has the shape {shape} with its inputs first, and blocks lie along the last "
            f"axis; name {weight.module} in placement.exclude, or use quant=fp8"
        )
    if grid.block is None:
        return None if grid.axis is None else parameter.shape[grid.axis]
    if len(shape) != 2:
        raise QuantizationError(
            f"group_size={grid.block}: {name} has the shape {shape}, and blocks are of matrices [out, in]; "
            "use group_size=null, with an override for this weight alone"
        )
    if shape[1] % grid.block:
        sizes = [str(size) for size in get_args(GroupSize) if shape[1] % size == 0]
        raise QuantizationError(
            f"group_size={grid.block}: {name} has {shape[1]} inputs, which it does not divide; allowed are "
            f"{', '.join([*sizes, 'null'])}, in scheme.weight, or in an override for this weight alone"
        )
    return parameter.numel() // grid.block


def check_axes(first: WeightParameter, weight: WeightParameter, grid: AnyGrid) -> None:
    """Check that weights that share a parameter have their channels on one axis.

    Raises:
        QuantizationError: They have not, and the grid has a range for each channel.
    """
    if first.axis != weight.axis and grid.axis is not None:
        raise QuantizationError(
            f"{first.module} and {weight.module} share a weight, but have their channels on axis "
            f"{first.axis} and {weight.axis}: name one of them in placement.exclude, or take one range "
            "for the whole weight with scheme.weight.granularity=per_tensor"
        )
