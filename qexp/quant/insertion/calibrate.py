"""Calibration of activation quantizers from statistics."""

from __future__ import annotations

from collections.abc import Mapping

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

    Raises:
        QuantizationError: If statistics of a quantizer, or required statistics of its dimensions, are
            missing.
    """
    missing = sorted(name for name in quantizers if name not in statistics or not statistics[name].lows)
    if missing:
        raise QuantizationError(
            f"no calibration statistics of {listed(missing)}: they come from another model or "
            "placement, or from no batch; observe again with this placement"
        )
    groupings = {name: each.grouping for name, each in quantizers.items() if each.grouping is not None}
    for name, members in members_of(groupings, statistics).items():
        quantizers[name].set_members(members)
    for name, quantizer in quantizers.items():
        low, high = _range(statistics[name], calibrator, quantizer)
        if quantizer.ceiling is not None:
            low, high = (end.clamp(-quantizer.ceiling, quantizer.ceiling) for end in (low, high))
        quantizer.set_range(low, high)


def _range(statistics: ValueStatistics, calibrator: AnyCalibrator, quantizer: Quantizer) -> Range:
    settings = (calibrator, quantizer.grid, quantizer.values)
    if quantizer.members is None:
        return activation_range(statistics, *settings)
    return group_ranges(statistics, quantizer.members.cpu(), *settings)
