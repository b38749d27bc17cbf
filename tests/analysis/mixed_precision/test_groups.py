"""Tests of the grouping of quantizers, on tiny models of several architectures."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModelForSequenceClassification

from qexp.analysis.mixed_precision.groups import QuantizerGroup, groups_of, layer_of
from qexp.config import MaxCalibrator, Placement, QuantizationConfig
from qexp.environment import conf_folder
from qexp.quant.cost import work_of
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.conftest import tiny_config
from tests.support.sequence_models import batch as pairs
from tests.support.sequence_models import build as build_translator
from tests.support.tiny_models import PRENORM, QDQBERT, build, calibrated

GEMM = QDQBERT.model_copy(update={"sites": QDQBERT.sites[:-1]})
WEIGHTS = QDQBERT.model_copy(update={"sites": ("linear.weight",)})


def groups(quantization: QuantizedModel, by: Any = "group") -> dict[str, QuantizerGroup]:
    result = groups_of(quantization.sites, work_of(quantization), by)
    assert len({group.name for group in result}) == len(result)
    counted = Counter(name for group in result for name in group.quantizers)
    assert counted == Counter(list(quantization.quantizers)), "every quantizer is in one group"
    return {group.name: group for group in result}


def mobilebert() -> Any:
    torch.manual_seed(0)
    config = tiny_config("mobilebert", 50, num_labels=3)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


def test_bert_by_what_a_runtime_computes_at_once() -> None:
    result = groups(calibrated(build("bert")))
    layer = "bert.encoder.layer.0."
    assert [name.removeprefix(layer) for name in result if name.startswith(layer)] == [
        "attention.self.{query,key,value}", "attention.output.dense", "intermediate.dense", "output.dense",
        "attention.self:matmul", "attention.output.dropout", "output.dropout",
    ]  # fmt: skip
    attention = f"{layer}attention.self"
    assert result[f"{attention}.{{query,key,value}}"].quantizers == (
        f"{attention}.query:linear.weight", f"{attention}.key:linear.weight",
        f"{attention}.value:linear.weight", f"{attention}.query:linear.input",
    )  # fmt: skip
    kinds = [name.rpartition(".")[2] for name in result[f"{attention}:matmul"].quantizers]
    assert kinds == ["query", "key", "probs", "value"]


def test_queries_keys_and_values_move_together_where_no_quantizer_says_so() -> None:
    """With weights alone, or an unquantized table before them, they still read the same tensor."""
    for placement in (WEIGHTS, QDQBERT.model_copy(update={"sites": ("linear.weight", "matmul.key")})):
        result = groups(calibrated(build("bert"), placement=placement))
        together = [group for name, group in result.items() if name.endswith("{query,key,value}")]
        assert [len(group.quantizers) for group in together] == [3, 3]


def test_a_norm_s_output_goes_with_the_layers_that_read_it() -> None:
    result = groups(calibrated(build("bert"), placement=PRENORM))
    inner = result["bert.encoder.layer.1.intermediate.dense"].quantizers
    assert inner[1] == "bert.encoder.layer.1.attention.output.LayerNorm:layernorm.output"
    assert len(result["bert.encoder.layer.1.attention.output.dense"].quantizers) == 3  # input, output, weight
    assert len(result["embeddings"].quantizers) == 3


def test_distilbert_and_mobilebert_share_as_they_compute() -> None:
    distilbert = groups(calibrated(build("distilbert")))
    layer = "distilbert.transformer.layer.1"
    assert f"{layer}.sa_layer_norm:residual.input" in distilbert[f"{layer}.ffn.lin1"].quantizers
    assert f"{layer}.attention.{{q_lin,k_lin,v_lin}}" in distilbert
    result = groups(calibrated(mobilebert(), placement=GEMM))
    layer = "mobilebert.encoder.layer.1"
    assert f"{layer}.attention.self.{{query,key}}" in result
    shared = f"{layer}.{{attention.self.value,bottleneck.input.dense,bottleneck.attention.dense}}"
    assert len(result[shared].quantizers) == 4


@pytest.mark.parametrize("name", ["aimet", "bondarenko", "mqbench", "q8bert"])
def test_a_value_at_every_step_does_not_tie_the_layers_together(name: str) -> None:
    file = conf_folder() / "placement" / f"{name}.yaml"
    placement = Placement(**yaml.safe_load(file.read_text(encoding="utf-8")))
    for model in (build("bert"), build("distilbert"), mobilebert()):
        result = groups(calibrated(model, placement=placement))
        assert len(result) >= 11
        assert max(len(group.quantizers) for group in result.values()) <= 6
        layers = [
            {layer_of(each.partition(":")[0]) for each in group.quantizers} for group in result.values()
        ]
        assert all(len(each) <= 2 for each in layers)


def test_a_translator_s_tied_table_is_one_group() -> None:
    model = build_translator("marian")
    quantization = insert(model, QuantizationConfig(placement=PRENORM))
    with torch.no_grad(), quantization.observing():
        model(**pairs())
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    result = groups(quantization)
    assert "lm_head:linear.weight" in result["embeddings"].quantizers
    cross = [name for name in result if "0.encoder_attn.k_proj" in name]
    assert re.fullmatch(r"model\.decoder\.layers\.\{0\S+,1\S+v_proj\}", cross[0])


def test_what_a_module_declares_is_one_group() -> None:
    from qexp.quant.module import QuantModule

    class Scaled(QuantModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))
            self.declare_weight("weight")
            self.declare_activation("product")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.quantized("product", x @ self.quantized_weight("weight"))

    model = nn.Sequential(nn.Linear(4, 4), Scaled()).eval()
    sites: Any = ("linear.weight", "declared.weight", "declared.activation")
    x = torch.randn(1, 3, 4)
    quantization = insert(
        model, QuantizationConfig(placement=Placement(name="own", sites=sites)), example=(x,)
    )
    with torch.no_grad(), quantization.observing():
        model(x)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    result = groups_of(quantization.sites, work_of(quantization, {"input": x}))
    assert sorted(len(group.quantizers) for group in result) == [1, 2]


def test_layers_and_kinds() -> None:
    quantization = calibrated(build("bert"), placement=PRENORM)
    assert set(groups(quantization, "layer")) == {
        "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "classifier", "bert.embeddings",
    }  # fmt: skip
    assert set(groups(quantization, "kind")) == {site.kind for site in quantization.sites}
    of_bert = groups(calibrated(build("bert")), "layer")
    residual = "bert.encoder.layer.1.attention.self.query:linear.input"  # also what layer 0 ends with
    assert residual in of_bert["bert.encoder.layer.1"].quantizers


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("bert.encoder.layer.10.output.dense", "bert.encoder.layer.10"),
        ("mobilebert.encoder.layer.0.ffn.2.output.dense", "mobilebert.encoder.layer.0"),
        ("bert.embeddings.word_embeddings", "bert.embeddings"),
        ("classifier", "classifier"),
        ("0", "0"),
        ("head2.dense", "head2"),
    ],
)
def test_layers_of_modules(module: str, layer: str) -> None:
    assert layer_of(module) == layer
