"""Outlier dimensions of a Record, compared with the values themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from qexp.artifacts.types import Ranges
from qexp.artifacts.types import Statistics as StatisticsArtifact
from qexp.config import Placement, Quant, QuantizationConfig
from qexp.pipeline.outlier_dimensions import DEVIATIONS, MOST_DIMENSIONS, outlier_dimensions
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.records.schema import OutlierDimensions

SIZE = 384
PLACEMENT = Placement(name="x", sites=("linear.input",))
CONFIG = QuantizationConfig(placement=PLACEMENT)


def hidden(outliers: dict[int, float], seed: int = 0, size: int = SIZE) -> Tensor:
    """Hidden states [8, 50, size]: normal, of mean 0.5, and single values far out in some dimensions."""
    value = torch.randn(8, 50, size, generator=torch.Generator().manual_seed(seed)) + 0.5
    for dimension, far in outliers.items():
        value[3, 7, dimension] = far
    return value


def told(
    folder: Path, values: dict[str, Tensor], *, extremes: bool = True, members: bool = False
) -> dict[str, OutlierDimensions] | None:
    seen, statistics, ranges = CalibrationStatistics(), StatisticsArtifact(folder, "s"), Ranges(folder, "r")
    for name, value in values.items():
        for batch in value.chunk(4):
            seen.add(name, batch, extremes=extremes)
    seen.save(statistics.file)
    fields = {"scale": torch.tensor(0.1), **({"members": torch.zeros(SIZE)} if members else {})}
    save_file(
        {f"{name}/{field}": each.clone() for name in values for field, each in fields.items()}, ranges.file
    )
    return outlier_dimensions(CONFIG, statistics, ranges)


def test_dimensions_that_are_far_out_are_named_with_their_values(tmp_path: Path) -> None:
    value = hidden({99: 40.0, 7: -25.0, 200: 12.0})
    found = told(tmp_path, {"layer:linear.input": value, "quiet:linear.input": hidden({})})
    assert found is not None and list(found) == ["layer:linear.input"]
    each, array = found["layer:linear.input"], value.flatten(0, 1).numpy()
    assert (each["size"], each["count"], each["dimensions"]) == (SIZE, 3, [99, 7, 200])
    assert each["low"] == array.min(0)[[99, 7, 200]].tolist()
    assert each["high"] == array.max(0)[[99, 7, 200]].tolist()
    others = np.delete(array, [99, 7, 200], axis=1)
    assert (each["others_low"], each["others_high"]) == (others.min(), others.max())


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(("factor", "is_one"), [(0.98, False), (1.02, True)])
def test_the_bound_is_six_standard_deviations_of_the_whole_value(
    side: int, factor: float, is_one: bool, tmp_path: Path
) -> None:
    value = hidden({})
    far = float(value.mean() + side * factor * DEVIATIONS * value.std())
    found = told(tmp_path, {"x": hidden({5: far})})
    assert found is not None
    assert ("x" in found) == is_one


def test_the_farthest_of_many_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    many = {dimension: 30.0 + dimension / 10 for dimension in range(0, SIZE, 4)}
    found = told(tmp_path, {"x": hidden(many)})
    assert found is not None
    each = found["x"]
    assert each["count"] == len(many)
    assert each["dimensions"] == sorted(many, reverse=True)[:MOST_DIMENSIONS]
    assert len(each["low"]) == len(each["high"]) == MOST_DIMENSIONS
    assert each["others_high"] < 6 < 30 < min(each["high"])


def test_without_other_dimensions_none_stands_out(tmp_path: Path) -> None:
    value = hidden({}, size=2)
    value[3, 7] = 40.0
    assert told(tmp_path, {"x": value}) == {}


def test_constant_values_and_ranges_by_group_have_none(tmp_path: Path) -> None:
    assert told(tmp_path, {"zeros": torch.zeros(2, 3, SIZE)}) == {}
    assert told(tmp_path, {"grouped": hidden({99: 40.0})}, members=True) == {}


def test_what_was_not_collected_is_not_known(tmp_path: Path) -> None:
    assert told(tmp_path, {"x": hidden({99: 40.0})}, extremes=False) is None
    float_activations = QuantizationConfig(placement=PLACEMENT, quant=Quant(activation_bits=32))
    missing = StatisticsArtifact(tmp_path, "none"), Ranges(tmp_path, "none")
    assert outlier_dimensions(float_activations, *missing) is None
