"""Discovery of quantized values, and of the values that share a quantizer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from transformers import AlbertConfig, AutoModelForSequenceClassification

from qexp.config import Placement, Quant, QuantizationConfig
from qexp.errors import QuantizationError
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.support.tiny_models import CONFIGS, QDQBERT, build


def inserted(architecture: str, placement: Placement = QDQBERT, quant: Quant | None = None) -> QuantizedModel:
    """Quantizers in a new model."""
    return insert(build(architecture), QuantizationConfig(placement=placement, quant=quant or Quant()))


def shared(quantization: QuantizedModel) -> dict[str, list[tuple[str, str]]]:
    """Sites by quantizer."""
    groups = defaultdict(list)
    for site in quantization.sites:
        groups[site.quantizer].append((site.kind, site.module))
    return dict(groups)


@pytest.mark.parametrize(
    ("architecture", "linears"),
    [("bert", 14), ("roberta", 14), ("distilbert", 14), ("electra", 14), ("electra-projected", 15)],
)
def test_qdqbert_on_every_architecture(architecture: str, linears: int) -> None:
    described = inserted(architecture).describe()
    matmuls = {f"matmul.{name}": 2 for name in ("query", "key", "probs", "value")}
    expected = {"linear.weight": linears, "linear.input": linears, "residual.input": 8, **matmuls}
    assert described["sites"] == expected
    # Each layer: its input serves four sites, the input of the feed-forward part two.
    assert described["quantizers"] == 2 * linears + 8 + 8 - 2 * 4


def test_one_tensor_has_one_quantizer_in_bert() -> None:
    groups = [set(group) for group in shared(inserted("bert")).values() if len(group) > 1]
    attention = "bert.encoder.layer.1.attention"
    assert {
        ("linear.input", f"{attention}.self.query"),
        ("linear.input", f"{attention}.self.key"),
        ("linear.input", f"{attention}.self.value"),
        ("residual.input", f"{attention}.output"),
    } in groups
    assert {
        ("linear.input", "bert.encoder.layer.1.intermediate.dense"),
        ("residual.input", "bert.encoder.layer.1.output"),
    } in groups
    assert len(groups) == 4


def test_one_tensor_has_one_quantizer_in_distilbert() -> None:
    groups = [set(group) for group in shared(inserted("distilbert")).values() if len(group) > 1]
    block = "distilbert.transformer.layer.0"
    assert {
        ("residual.input", block),
        *(("linear.input", f"{block}.attention.{name}") for name in ("q_lin", "k_lin", "v_lin")),
    } in groups
    assert {("residual.input", f"{block}.sa_layer_norm"), ("linear.input", f"{block}.ffn.lin1")} in groups


def test_excluded_modules_and_kinds_have_no_sites() -> None:
    placement = Placement(
        name="some",
        sites=("linear.weight", "linear.input", "matmul.key"),
        exclude=("*classifier*", "*layer.0.*"),
    )
    quantization = inserted("bert", placement)
    assert {site.kind for site in quantization.sites} == {"linear.weight", "linear.input", "matmul.key"}
    assert not [
        site for site in quantization.sites if "classifier" in site.module or "layer.0." in site.module
    ]
    assert [site.module for site in quantization.sites if site.kind == "matmul.key"] == [
        "bert.encoder.layer.1.attention.self"
    ]


def test_32_bits_mean_no_quantizer() -> None:
    assert "linear.weight" not in inserted("bert", quant=Quant(weight_bits=32)).describe()["sites"]
    weights_only = inserted("bert", quant=Quant(activation_bits=32))
    assert weights_only.describe()["sites"] == {"linear.weight": 14}
    assert weights_only.model.config._attn_implementation == "eager"  # type: ignore[union-attr]


def test_residual_adds_of_an_unknown_architecture_are_found() -> None:
    config = AlbertConfig(
        vocab_size=50, hidden_size=16, embedding_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    model: Any = AutoModelForSequenceClassification.from_config(config)
    sites = insert(model, QuantizationConfig(placement=QDQBERT)).describe()["sites"]
    assert (sites["residual.input"], sites["matmul.probs"]) == (4, 1)  # both layers are one


def test_a_second_insertion_is_refused() -> None:
    model = build("bert")
    insert(model, QuantizationConfig(placement=QDQBERT))
    with pytest.raises(QuantizationError, match="has quantizers already"):
        insert(model, QuantizationConfig(placement=QDQBERT))


@pytest.mark.parametrize("architecture", CONFIGS)
def test_discovery_leaves_modes_and_random_state_alone(architecture: str) -> None:
    model = build(architecture).train()
    model.config._attn_implementation = "sdpa"
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    quantization = insert(model, QuantizationConfig(placement=QDQBERT))
    assert torch.equal(torch.get_rng_state(), state)
    assert quantization.training
    quantization.remove()
    assert [module.training for module in model.modules()] == modes
