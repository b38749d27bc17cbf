"""What one value far out does to each calibrator: ranges of a million standard normal numbers in ten batches.

python -m benchmarks.outliers
"""

from __future__ import annotations

import torch

from benchmarks.harness import table
from qexp.config import AnyCalibrator, Scheme
from qexp.config.calibration import (
    ClipCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
)
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import activation_grid

CALIBRATORS: tuple[AnyCalibrator, ...] = (
    PercentileCalibrator(kind="percentile"), MseCalibrator(kind="mse"), SqnrCalibrator(kind="sqnr"),
    EntropyCalibrator(kind="entropy"), EmaCalibrator(kind="ema"),
    ClipCalibrator(kind="clip", activation_clip_max=4),
)  # fmt: skip
VALUES, BATCHES = 1_000_000, 10
CASES = ((None, 0), (1e3, 5), (1e3, 0), (1e6, 5), (1e6, 0))
"""The value that one of the numbers is set to, and the batch of that number."""


def ends(value: float | None, batch: int) -> list[float]:
    """Return the largest magnitude inside the range that each calibrator chooses for 8 bits."""
    batches = list(torch.randn(VALUES, generator=torch.Generator().manual_seed(0)).chunk(BATCHES))
    if value is not None:
        batches[batch][0] = value
    seen = CalibrationStatistics()
    for each in batches:
        seen.add("values", each)
    grid = activation_grid(8, Scheme().activation)
    assert grid is not None
    ranges = (activation_range(seen["values"], each, grid) for each in CALIBRATORS)
    return [max(float(low.abs()), float(high.abs())) for low, high in ranges]


def main() -> None:
    """Print a row for each value."""
    names = ["value", "batch", *(each.kind for each in CALIBRATORS)]
    rows = [
        [f"{value or '-'}", f"{batch + 1}", *(f"{end:.4g}" for end in ends(value, batch))]
        for value, batch in CASES
    ]
    table("Ends of 8-bit ranges", names, rows)


if __name__ == "__main__":
    main()
