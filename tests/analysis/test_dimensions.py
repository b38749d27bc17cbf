"""Tests of ranges by embedding dimension: outliers, as text and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qexp.analysis.dimensions import dimension_listing, dimensions_of, draw_dimensions
from qexp.errors import QuantizationError, StoreError
from qexp.quant.calibration.statistics import CalibrationStatistics


def seen(*, extremes: bool = True) -> CalibrationStatistics:
    statistics = CalibrationStatistics()
    value = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(0))
    statistics.add("plain", value, extremes=extremes)
    statistics.add("outlier", value * torch.where(torch.arange(16) == 5, 50.0, 1.0), extremes=extremes)
    return statistics


def test_an_outlier_is_told_with_its_dimension() -> None:
    plain, outlier = dimensions_of(seen())
    assert (outlier.name, outlier.widest) == ("outlier", 5)
    widths = outlier.widths
    assert outlier.outlier == pytest.approx(widths[5] / np.median(widths))
    assert outlier.outlier > 30 > 3 > plain.outlier >= 1
    lines = dimension_listing([plain, outlier]).splitlines()
    assert [line.split()[-1] for line in lines] == ["activation", "outlier", "plain"]
    assert lines[1].split()[2] == "5"


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_dimensions(dimensions_of(seen()), tmp_path / "d.png", "a run")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StoreError, match=r"--dimensions .*name a file in a folder that exists"):
        draw_dimensions(dimensions_of(seen()), tmp_path / "no" / "d.png", "a run")


def test_statistics_from_before_have_no_dimensions() -> None:
    with pytest.raises(QuantizationError, match="older version"):
        dimensions_of(seen(extremes=False))
