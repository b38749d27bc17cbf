"""Calibration of activation quantizers from statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from qexp.config import AnyCalibrator
from qexp.errors import QuantizationError
from qexp.quant.calibration.embedding_groups import group_ranges, members_of
from qexp.quant.calibration.estimators import Range, activation_range
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.messages import listed
from qexp.quant.quantizer import Quantizer


def calibrate_activations(
    quantizers: Mapping[str, Quantizer], statistics: CalibrationStatistics, calibrator: AnyCalibrator
) -> None:
    """Set the ranges of activation quantizers, and the dimensions that share a range.

    A fused value gets the smallest range that covers those of its parts, as in pytorch-quantization.

    Raises:
        QuantizationError: If statistics of a quantizer, or required statistics of its dimensions, are
            missing.
    """
    wanted = [part for name, each in quantizers.items() for part in each.parts_of_range or (name,)]
    missing = sorted(name for name in wanted if name not in statistics or not statistics[name].lows)
    if missing:
        raise QuantizationError(
            f"no calibration statistics of {listed(missing)}: they come from another model or "
            "placement, or from no batch; observe again with this placement"
        )
    groupings = {name: each.grouping for name, each in quantizers.items() if each.grouping is not None}
    for name, members in members_of(groupings, statistics).items():
        quantizers[name].set_members(members)
    for name, quantizer in quantizers.items():
        parts = [
            _range(statistics[part], calibrator, quantizer) for part in quantizer.parts_of_range or (name,)
        ]
        low = torch.stack([low for low, _ in parts]).amin(0)
        high = torch.stack([high for _, high in parts]).amax(0)
        if quantizer.ceiling is not None:
            low, high = (end.clamp(-quantizer.ceiling, quantizer.ceiling) for end in (low, high))
        quantizer.set_range(low, high)


def _range(statistics: ValueStatistics, calibrator: AnyCalibrator, quantizer: Quantizer) -> Range:
    settings = (calibrator, quantizer.grid, quantizer.values)
    if quantizer.members is None:
        return activation_range(statistics, *settings)
    return group_ranges(statistics, quantizer.members.cpu(), *settings)
