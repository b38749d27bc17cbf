"""Sites of every model option, and bit-identical outputs while quantizers are off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from qexp.config import MaxCalibrator, Placement, QuantizationConfig, Scheme, SiteKind
from qexp.environment import conf_folder
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.support import sequence_models, tiny_models

SITES = Path(__file__).parent / "sites"
"""By architecture, every site of every kind in a model of two layers, a line each, with its quantizer."""

ARCHITECTURES = {
    "bert_base": "bert", "bert_large": "bert", "bert_mini": "bert", "bert_small": "bert", "bert_tiny": "bert",
    "minilm_l6": "bert", "minilm_l12": "bert", "bge_small": "bert", "bge_base": "bert", "e5_small": "bert",
    "gte_small": "bert", "distilbert": "distilbert", "mobilebert": "mobilebert",
    "electra_small": "electra-projected", "roberta_base": "roberta", "xlm_roberta_base": "roberta",
    "camembert": "roberta", "albert_base": "albert", "mpnet_base": "mpnet",
    "modernbert_base": "modernbert", "modernbert_large": "modernbert", "gte_modernbert": "modernbert",
    "mmbert": "modernbert", "deberta_v3_small": "deberta-v3", "deberta_v3_base": "deberta-v3",
    "transformer_base": "marian", "transformer_big": "marian", "transformer_tiny": "marian",
}  # fmt: skip
"""What each option of the group ``model`` is."""

TRANSLATOR = ("residual.input", "residual.sum")
"""Kinds that a translator is not known to have: its residual adds are in no table."""


OWN_ATTENTION = ("deberta-v3", "mpnet")
"""Encoders that compute attention themselves, so that their scores cannot be observed."""


def everything(architecture: str) -> Placement:
    """All kinds of sites."""
    kinds = [kind for kind in get_args(SiteKind) if not kind.startswith("declared")]
    kinds.remove("attention.masked_scores")  # asks for another mask, which changes the model
    if architecture == "marian":
        kinds = [kind for kind in kinds if kind not in TRANSLATOR]
    if architecture in OWN_ATTENTION:
        kinds.remove("attention.scores")
    return Placement(name="everything", sites=tuple(kinds))


def build(architecture: str, **kwargs: Any) -> Any:
    return (sequence_models if architecture == "marian" else tiny_models).build(architecture, **kwargs)


def batch(architecture: str) -> dict[str, torch.Tensor]:
    return (sequence_models if architecture == "marian" else tiny_models).batch()


def test_every_model_option_is_covered() -> None:
    options = {file.stem for file in (conf_folder() / "model").glob("*.yaml")}
    assert options == set(ARCHITECTURES)
    assert {file.stem for file in SITES.glob("*.txt")} == set(ARCHITECTURES.values())


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES.values())))
def test_exactly_these_sites(architecture: str) -> None:
    quantization = insert(build(architecture), QuantizationConfig(placement=everything(architecture)))
    assert lines(quantization) == (SITES / f"{architecture}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES.values())))
def test_off_is_the_model_itself(architecture: str) -> None:
    model, tensors = build(architecture), batch(architecture)
    with torch.no_grad():
        before = model(**tensors).logits
        quantization = insert(model, QuantizationConfig(placement=everything(architecture)))
        off = model(**tensors).logits
        calibrate(quantization, tensors)
        quantization.freeze()
        quantized = model(**tensors).logits
        quantization.off()
        again = model(**tensors).logits
        quantization.remove()
        removed = model(**tensors).logits
    assert all(torch.equal(before, each) for each in (off, again, removed))
    assert not torch.equal(before, quantized)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES.values()) - set(tiny_models.FOUND)))
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_one_product_has_one_range(architecture: str, granularity: str) -> None:
    placement = everything(architecture).model_copy(update={"fuse_qkv": True})
    scheme = Scheme.model_validate({"weight": {"granularity": granularity}})
    model = build(architecture)
    quantization = insert(model, QuantizationConfig(placement=placement, scheme=scheme))
    calibrate(quantization, batch(architecture))
    quantizer = {(site.kind, site.module): site.quantizer for site in quantization.sites}
    attending = [module for kind, module in quantizer if kind == "matmul.key"]
    assert len(attending) == (6 if architecture == "marian" else 2)
    for module in attending:
        keys, values = quantizer["matmul.key", module], quantizer["matmul.value", module]
        assert keys == values
        cross = "encoder_attn" in module
        assert (quantizer["matmul.query", module] == keys) != cross
        own = [name for kind, name in quantizer if kind == "linear.weight" and name.startswith(f"{module}.")]
        before = [name for name in own if not name.endswith(("out_lin", "out_proj"))]
        assert len(before) == 3
        apart = {"query": 1, "key": 1, "value": 1}  # that read one tensor
        if cross:
            apart = {"query": 1, "key": 2, "value": 2}
        elif architecture == "mobilebert":
            apart = {"query": 1, "key": 1, "value": 2}
        together = {quantizer["linear.weight", name] for name in before}
        assert len(together) == (len({*apart.values()}) if granularity == "per_tensor" else 3)
        for group in {*apart.values()} if granularity == "per_tensor" else ():
            members = [name for name in before if apart[_role(name)] == group]
            assert len({quantizer["linear.weight", name] for name in members}) == 1
            weights = [model.get_submodule(name).parametrizations.weight.original for name in members]
            largest = max(float(weight.detach().abs().max()) for weight in weights)
            scale = quantization.quantizers[quantizer["linear.weight", members[0]]].scale
            assert float(scale) == pytest.approx(largest / 127, rel=1e-6)


def _role(name: str) -> str:
    return {"q": "query", "k": "key", "v": "value"}[name.rpartition(".")[2][0]]


def calibrate(quantization: QuantizedModel, tensors: dict[str, torch.Tensor]) -> None:
    target = tensors.get("decoder_attention_mask")
    with torch.no_grad(), quantization.observing(tensors["attention_mask"], target):
        quantization.model(**tensors)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))


def lines(quantization: QuantizedModel) -> list[str]:
    """A line for each site: kind, module, and the quantizer where it is called by another site."""
    entries = []
    for site in quantization.sites:
        shared = "" if site.quantizer == site.name else f" = {site.quantizer}"
        entries.append(f"{site.kind} {site.module}{shared}")
    return entries
