"""Overrides: the sites that they match, and their effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qexp.config import MaxCalibrator, Override, Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.insertion.feed_forward import feed_forward_sites
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.support.sequence_models import build as build_translator
from tests.support.tiny_models import CONFIGS, QDQBERT, batch, build

TABLES = Placement(name="tables", sites=("linear.weight", "linear.input", "embedding.weight"))


def inserted(overrides: dict[str, Any], placement: Placement = QDQBERT, **quant: Any) -> QuantizedModel:
    made = Quant.model_validate({**quant, "overrides": overrides})
    return insert(build("bert"), QuantizationConfig(placement=placement, quant=made))


def bits(quantization: QuantizedModel) -> dict[str, int]:
    return {name: quantizer.grid.bits for name, quantizer in quantization.quantizers.items()}


def test_a_glob_is_about_modules_or_about_sites() -> None:
    result = bits(
        inserted({"*.pooler.*": {"activation_bits": 16}, "*.query:linear.weight": {"weight_bits": 4}})
    )
    assert {name for name, width in result.items() if width == 4} == {
        f"bert.encoder.layer.{layer}.attention.self.query:linear.weight" for layer in (0, 1)
    }
    assert {name for name, width in result.items() if width == 16} == {"bert.pooler.dense:linear.input"}


def test_what_sites_share_goes_with_any_of_them() -> None:
    shared = "bert.encoder.layer.0.attention.self.query:linear.input"
    result = bits(inserted({"bert.encoder.layer.0.attention.self.key": {"activation_bits": 6}}))
    assert result[shared] == 6
    assert result["bert.encoder.layer.0.attention.self.key:linear.weight"] == 8


def test_a_later_override_wins_field_by_field() -> None:
    result = inserted(
        {
            "*": {"weight_bits": 4, "activation_bits": 4},
            "classifier": {"weight_bits": 8},
            "class*": {"weight": {"granularity": "per_tensor"}},
        }
    )
    weight = result.quantizers["classifier:linear.weight"].grid
    assert (weight.bits, weight.axis) == (8, None)
    assert result.quantizers["classifier:linear.input"].grid.bits == 4
    assert result.quantizers["bert.pooler.dense:linear.weight"].grid.axis == 0


def test_32_bits_take_a_quantizer_away_and_leave_the_names_of_others() -> None:
    without = inserted({"bert.encoder.layer.1.*": {"activation_bits": 32, "weight_bits": 32}})
    whole = inserted({})
    missing = set(bits(whole)) - set(bits(without))
    assert missing
    assert all(name.startswith("bert.encoder.layer.1.") for name in missing)
    assert set(bits(without)) <= set(bits(whole))
    with torch.no_grad(), whole.observing(batch()["attention_mask"]):
        whole.model(**batch())
    without.calibrate(whole.statistics(), MaxCalibrator(kind="max"))  # the same statistics serve
    without.freeze()
    whole.calibrate(whole.statistics(), MaxCalibrator(kind="max"))
    name = next(name for name in bits(without) if "linear.input" in name)
    assert torch.equal(without.quantizers[name].scale, whole.quantizers[name].scale)


def test_only_overrides_can_quantize() -> None:
    result = inserted(
        {"classifier": {"weight_bits": 8, "activation_bits": 8}}, weight_bits=32, activation_bits=32
    )
    assert set(bits(result)) == {"classifier:linear.weight", "classifier:linear.input"}


def test_first_and_last_layer() -> None:
    result = bits(inserted({"@first": {"weight_bits": 4}, "@last": {"weight_bits": 5}}))
    of_weights = {name: width for name, width in result.items() if name.endswith("linear.weight")}
    assert {width for name, width in of_weights.items() if ".layer.0." in name} == {4}
    assert {width for name, width in of_weights.items() if ".layer.1." in name} == {5}
    assert {width for name, width in of_weights.items() if ".layer." not in name} == {8}


def test_tables_have_bits_of_their_own() -> None:
    result = bits(inserted({}, TABLES, embedding_bits=2, weight_bits=4))
    tables = {name for name, width in result.items() if width == 2}
    assert tables == {name for name in result if name.endswith("embedding.weight")}
    assert Quant(weight_bits=4, embedding_bits=2).name == "w4a8e2"
    assert Quant(weight_bits=4, overrides={"*": Override(weight_bits=8)}).name == "w4a8-mixed"


@pytest.mark.parametrize("glob", ["*.poler.*", "@ffn_sum"])
def test_an_override_of_nothing_is_an_error(glob: str) -> None:
    with pytest.raises(QuantizationError, match=r"quant\.overrides.*matches no site of placement tables"):
        inserted({glob: {"weight_bits": 4}}, TABLES)


def test_ranges_on_another_grid_are_refused() -> None:
    ranges = inserted({})
    with torch.no_grad(), ranges.observing():
        ranges.model(**batch())
    ranges.calibrate(ranges.statistics(), MaxCalibrator(kind="max"))
    other = inserted({"classifier": {"activation_bits": 16}})
    with pytest.raises(QuantizationError, match=r"on another grid: classifier:linear\.input/levels"):
        other.load_ranges(ranges.ranges())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_feed_forward_parts_are_found_without_names(architecture: str) -> None:
    result = feed_forward_sites(build(architecture))
    parts = {"mobilebert": 4}.get(architecture, 2)
    outputs = sorted(module for _, module in result["@ffn_output"])
    assert len(outputs) == parts
    assert all(name.endswith(("output.dense", "lin2")) and "attention" not in name for name in outputs)
    inputs = [module for kind, module in result["@ffn_input"] if kind == "layernorm.output"]
    assert len(inputs) == parts
    sums = {module for _, module in result["@ffn_sum"]}
    assert len(sums) == parts
    assert all(name.endswith(("output.LayerNorm", "output_layer_norm")) for name in sums)


def test_feed_forward_parts_of_a_translator() -> None:
    result = feed_forward_sites(build_translator("marian"))
    assert {module.rpartition(".")[2] for _, module in result["@ffn_output"]} == {"fc2"}
    assert {module.rpartition(".")[2] for _, module in result["@ffn_sum"]} == {"final_layer_norm"}
    assert len(result["@ffn_output"]) == 4


def test_the_range_of_what_a_nonlinearity_gives_is_cut() -> None:
    scheme = Scheme(clip_gelu=0.5, weight=WeightScheme())
    quantization = insert(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=scheme))
    with torch.no_grad(), quantization.observing():
        quantization.model(**batch())
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    cut = {name for name, each in quantization.quantizers.items() if each.ceiling is not None}
    of_gelu = {f"bert.encoder.layer.{layer}.output.dense:linear.input" for layer in (0, 1)}
    assert cut == of_gelu | {"classifier:linear.input"}  # the pooler's tanh
    for name in of_gelu:
        quantizer = quantization.quantizers[name]
        levels = torch.tensor([quantizer.grid.qmin, quantizer.grid.qmax])
        ends = (levels - quantizer.zero_point) * quantizer.scale
        assert float(ends.abs().max()) <= 0.5 + 1e-2
        assert max(quantization.statistics()[name].highs) > 0.5
