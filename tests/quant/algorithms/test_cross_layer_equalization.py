"""Cross-layer equalization: discovery of pairs, an unchanged model, and equal ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from qexp.errors import QuantizationError
from qexp.quant.algorithms.cross_layer_equalization import EqualizationPair, equalize, find_pairs
from tests.conftest import tiny_config
from tests.support import sequence_models, tiny_models

VALUES = {
    "bert": ("bert.encoder.layer.{}.attention.self.value", "bert.encoder.layer.{}.attention.output.dense"),
    "distilbert": (
        "distilbert.transformer.layer.{}.attention.v_lin",
        "distilbert.transformer.layer.{}.attention.out_lin",
    ),
}
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


def mobilebert() -> Any:
    """A tiny one, whose elementwise norms have biases as trained ones have."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config("mobilebert", 50)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.5))
    return model


def outputs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Logits of a batch."""
    with torch.no_grad():
        result: Tensor = model(**batch).logits
    return result


def uneven(model: nn.Module, seed: int = 5) -> None:
    """Channels of very different ranges, as pretrained models have them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(torch.exp(torch.randn(module.out_features, 1, generator=generator)))


@pytest.mark.parametrize("architecture", VALUES)
def test_values_and_output_projections_are_pairs_and_gelu_parts_none(architecture: str) -> None:
    expected = [
        EqualizationPair(VALUES[architecture][0].format(i), (VALUES[architecture][1].format(i),))
        for i in (0, 1)
    ]
    relu = [EqualizationPair("pre_classifier", ("classifier",))] if architecture == "distilbert" else []
    assert find_pairs(tiny_models.build(architecture)) == expected + relu


@pytest.mark.parametrize(("architecture", "relu"), [("marian", True), ("bart", False)])
def test_translators_have_pairs_in_all_attentions_and_around_relus(architecture: str, relu: bool) -> None:
    result = {pair.first: pair.seconds for pair in find_pairs(sequence_models.build(architecture))}
    attentions = ("encoder", "self_attn"), ("decoder", "self_attn"), ("decoder", "encoder_attn")
    values = {f"model.{side}.layers.{i}.{name}" for i in (0, 1) for side, name in attentions}
    inner = (
        {f"model.{side}.layers.{i}." for i in (0, 1) for side in ("encoder", "decoder")} if relu else set()
    )
    assert result == {
        **{f"{name}.v_proj": (f"{name}.out_proj",) for name in values},
        **{f"{name}fc1": (f"{name}fc2",) for name in inner},
    }


def test_mobilebert_has_relus_but_its_bottlenecks_are_used_elsewhere() -> None:
    layers = [f"mobilebert.encoder.layer.{i}" for i in (0, 1)]
    inner = ("ffn.0.", "ffn.1.", "ffn.2.", "")
    expected = {
        f"{name}.{part}intermediate.dense": (f"{name}.{part}output.dense",)
        for name in layers
        for part in inner
    }
    values = {f"{name}.attention.self.value": (f"{name}.attention.output.dense",) for name in layers}
    assert {pair.first: pair.seconds for pair in find_pairs(mobilebert())} == expected | values


@pytest.mark.parametrize("architecture", [*tiny_models.CONFIGS, "mobilebert", *sequence_models.MODELS])
def test_the_model_stays_and_ranges_become_even(architecture: str) -> None:
    translates = architecture in sequence_models.MODELS
    batch = sequence_models.batch() if translates else tiny_models.batch()
    builders = {**dict.fromkeys(tiny_models.CONFIGS, tiny_models.build), "mobilebert": lambda _: mobilebert()}
    model = builders.get(architecture, sequence_models.build)(architecture)
    uneven(model)
    before, pairs = outputs(model, batch), find_pairs(model)
    equalize(model, pairs)
    torch.testing.assert_close(outputs(model, batch), before, rtol=1e-4, atol=1e-4)
    for pair in pairs:
        rows = model.get_submodule(pair.first).weight.abs().amax(1)
        columns = model.get_submodule(pair.seconds[0]).weight.abs().amax(0)
        torch.testing.assert_close(rows, columns, rtol=2e-3, atol=0)


def test_factors_are_those_of_equation_11() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    first, second = model[0].weight.detach().clone(), model[2].weight.detach().clone()
    bias = model[0].bias.detach().clone()
    (pair,) = find_pairs(model, (X,))
    equalize(model, [pair])
    r1, r2 = first.abs().amax(1), second.abs().amax(0)
    s = (r1 * r2).sqrt() / r2
    torch.testing.assert_close(model[0].weight, first / s[:, None])
    torch.testing.assert_close(model[0].bias, bias / s)
    torch.testing.assert_close(model[2].weight, second * s)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_channel_next_to_zero_is_left_alone_and_its_bias_stays(layer: int) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    with torch.no_grad():
        model[0].bias[2] = 0.02
        (model[0].weight[2] if layer == 0 else model[2].weight[:, 2]).fill_(1e-10)
    before, bias = model(X), model[0].bias.detach().clone()
    assert equalize(model, find_pairs(model, (X,))) == {"0": 1}
    torch.testing.assert_close(model(X), before)
    assert model[0].bias[2] == bias[2]
    assert float(model[0].bias.detach().abs().max()) < 10 * float(bias.abs().max())


class Residual(nn.Module):
    """The first layer's output is added to the second one's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x).relu()
        return y + self.second(y)


class Tied(nn.Module):
    """The second layer has the first one's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).relu())
        return result


@pytest.mark.parametrize(
    "model",
    [
        Residual(), Tied(), nn.Sequential(nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)),
    ],
    ids=["residual", "tied", "relu6", "gelu", "norm", "last"],
)  # fmt: skip
def test_what_is_no_pair(model: nn.Module) -> None:
    assert find_pairs(model, (X,)) == []
    before = [parameter.clone() for parameter in model.parameters()]
    equalize(model, [])
    assert all(map(torch.equal, before, model.parameters()))


class Fork(nn.Module):
    """Two layers read the first one's output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.first(x)
        return self.one(y), self.two(y)


def test_several_readers_are_scaled_together() -> None:
    model = Fork()
    (pair,) = find_pairs(model, (X,))
    assert pair == EqualizationPair("first", ("one", "two"))
    before = model(X)
    equalize(model, [pair])
    for now, then in zip(model(X), before, strict=True):
        torch.testing.assert_close(now, then)


def test_a_chain_of_pairs_and_a_dead_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *[layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 2)
    )
    uneven(model)
    with torch.no_grad():
        model[2].weight[3] = 0
        model[6].weight[:, 5] = 0
    before = model(X)
    pairs = find_pairs(model, (X,))
    assert [pair.first for pair in pairs] == ["0", "2", "4", "6"]
    equalize(model, pairs)
    torch.testing.assert_close(model(X), before, rtol=1e-4, atol=1e-5)
    for index in (0, 2, 4, 6):
        rows, columns = model[index].weight.abs().amax(1), model[index + 2].weight.abs().amax(0)
        used = (rows > 0) & (columns > 0)
        torch.testing.assert_close(rows[used], columns[used], rtol=5e-3, atol=0)
        assert torch.isfinite(model[index].weight).all()


def test_a_model_of_unknown_arguments_needs_an_example() -> None:
    with pytest.raises(QuantizationError, match="example"):
        find_pairs(Residual())
