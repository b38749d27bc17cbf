"""Imported ranges on quantizers: exact where the grid allows it, and nothing passed over in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from qexp.config import ActivationScheme, ImportedCalibrator, Placement, Quant, Scheme, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.calibration.imported import ImportedRange, write_imported
from qexp.quant.insertion.imported_ranges import import_ranges
from tests.support.tiny_models import build, calibrated

QUERY, KEY = (f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key"))
PLACEMENT = Placement(name="linear", sites=("linear.weight", "linear.input"))


def model(**scheme: Any) -> Any:
    weight = WeightScheme(granularity="per_tensor")
    return calibrated(build("bert"), Quant(), Scheme(weight=weight, **scheme), PLACEMENT)


def whole(quantization: Any) -> list[ImportedRange]:
    """A range for every quantizer, from -1 to 3."""
    sites = {site.quantizer: f"{site.module}:{site.kind}" for site in quantization.sites}
    return [ImportedRange(name, (site,), (-1.0,), (3.0,)) for name, site in sites.items()]


def calibrator(folder: Path, ranges: list[ImportedRange], **options: str) -> ImportedCalibrator:
    write_imported(folder / "ranges.json", "test", ranges)
    section = {"kind": "imported", "path": str(folder / "ranges.json"), **options}
    return ImportedCalibrator.model_validate(section)


def test_every_quantizer_has_the_imported_range(tmp_path: Path) -> None:
    quantization = model()
    account = import_ranges(quantization, calibrator(tmp_path, whole(quantization)))
    assert len(account["imported"]) == len(quantization.quantizers)
    name = f"{QUERY}:linear.input"
    scale, zero = (quantization.quantizers[name].scale, quantization.quantizers[name].zero_point)
    assert (float(scale), int(zero)) == (pytest.approx(4 / 255), 64)


@pytest.mark.parametrize(
    ("bits", "zero_point", "rounded"), [(8, 7, False), (8, 128, False), (4, 3, True), (16, 9, True)]
)
def test_integers_of_the_source_are_kept_where_the_grid_has_them(
    tmp_path: Path, bits: int, zero_point: int, rounded: bool
) -> None:
    quantization = model()
    name = f"{QUERY}:linear.input"
    own = replace(ImportedRange.of_integers("x", bits, [0.1], [zero_point]), sites=(name,))
    rest = [each for each in whole(quantization) if each.name != name]
    account = import_ranges(quantization, calibrator(tmp_path, [*rest, own]))
    quantizer = quantization.quantizers[name]
    assert account["rounded"] == ([name] if rounded else [])
    if rounded:
        reach = (float(quantizer.scale) * -int(quantizer.zero_point), own.low[0])
        assert abs(reach[0] - reach[1]) <= float(quantizer.scale)
    else:
        assert torch.equal(quantizer.scale, torch.tensor(0.1))
        assert int(quantizer.zero_point) == zero_point


def test_a_zero_point_on_a_symmetric_grid_leaves_the_range(tmp_path: Path) -> None:
    quantization = model(activation=ActivationScheme(symmetric=True))
    name = f"{QUERY}:linear.input"
    own = replace(ImportedRange.of_integers("x", 8, [0.1], [7]), sites=(name,))
    rest = [each for each in whole(quantization) if each.name != name]
    account = import_ranges(quantization, calibrator(tmp_path, [*rest, own]))
    assert account["rounded"] == [name]
    assert float(quantization.quantizers[name].scale) == pytest.approx(24.8 / 127)


def test_quantizers_without_a_range_are_refused_or_calibrated(tmp_path: Path) -> None:
    quantization = model()
    before = quantization.ranges()
    ranges = whole(quantization)[3:]
    left = [each.name for each in whole(quantization)[:3]]
    with pytest.raises(QuantizationError) as error:
        import_ranges(quantization, calibrator(tmp_path, ranges))
    assert all(name in str(error.value) for name in left)
    account = import_ranges(quantization, calibrator(tmp_path, ranges, missing="calibrate"))
    assert account["calibrated"] == left
    for name in left:
        assert torch.equal(quantization.ranges()[f"{name}/scale"], before[f"{name}/scale"])


def test_ranges_of_no_quantizer_are_refused_or_told(tmp_path: Path) -> None:
    quantization = model()
    ranges = [
        *whole(quantization),
        ImportedRange("stranger", ("bert.nowhere:linear.input",), (-1.0,), (1.0,)),
    ]
    with pytest.raises(QuantizationError, match="stranger"):
        import_ranges(quantization, calibrator(tmp_path, ranges))
    account = import_ranges(quantization, calibrator(tmp_path, ranges, unused="ignore"))
    assert account["unused"] == ["stranger"]


def test_two_ranges_of_one_value_must_agree(tmp_path: Path) -> None:
    quantization = model()
    shared = {site.module: site.quantizer for site in quantization.sites if site.kind == "linear.input"}
    assert shared[QUERY] == shared[KEY]
    again = ImportedRange("again", (f"{KEY}:linear.input",), (-1.0,), (3.0,))
    import_ranges(quantization, calibrator(tmp_path, [*whole(quantization), again]))
    other = calibrator(tmp_path, [*whole(quantization), replace(again, high=(3.1,))])
    with pytest.raises(QuantizationError, match="again"):
        import_ranges(quantization, other)


def test_a_name_in_front_of_the_modules_does_not_matter(tmp_path: Path) -> None:
    quantization = model()
    ranges = [replace(each, sites=tuple(f"m.{site}" for site in each.sites)) for each in whole(quantization)]
    assert import_ranges(quantization, calibrator(tmp_path, ranges))["unused"] == []
    shorter = [
        replace(each, sites=tuple(site.removeprefix("bert.") for site in each.sites)) for each in ranges
    ]
    assert import_ranges(quantization, calibrator(tmp_path, shorter))["unused"] == []


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    quantization = model()
    name = f"{QUERY}:linear.weight"
    rows = ImportedRange.of_magnitude("rows", (name,), [1.0] * 32)
    rest = [each for each in whole(quantization) if each.name != name]
    with pytest.raises(QuantizationError, match="granularity"):
        import_ranges(quantization, calibrator(tmp_path, [*rest, rows]))


@pytest.mark.parametrize("fault", ["gone", "changed", "other"])
def test_a_file_that_is_not_what_it_was_is_refused(tmp_path: Path, fault: str) -> None:
    quantization = model()
    section, file = calibrator(tmp_path, whole(quantization)), tmp_path / "ranges.json"
    if fault == "gone":
        file.unlink()
    if fault == "changed":
        file.write_text(file.read_text() + " ")
    if fault == "other":
        file.write_text("[]")
        section = ImportedCalibrator.model_validate({"kind": "imported", "path": str(file)})
    with pytest.raises(QuantizationError, match=r"qexp import|start the run again"):
        import_ranges(quantization, section)


def test_a_missing_file_is_refused_when_the_run_is_composed_and_a_record_needs_none(tmp_path: Path) -> None:
    section = {"kind": "imported", "path": str(tmp_path / "none.json")}
    with pytest.raises(ValidationError, match="qexp import"):
        ImportedCalibrator.model_validate(section)
    assert ImportedCalibrator.model_validate({**section, "sha256": "0" * 64}).sha256 == "0" * 64
