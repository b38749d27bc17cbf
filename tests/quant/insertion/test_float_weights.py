"""Modules of torch whose weights are computed, lie outside linear layers, or are called by keyword."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune
from transformers.pytorch_utils import Conv1D

from qexp.config import Placement, QuantizationConfig
from qexp.errors import QuantizationError
from qexp.quant.insertion.insert import insert

WEIGHTS = QuantizationConfig(placement=Placement(name="weights", sites=("linear.weight",)))
BOTH = QuantizationConfig(placement=Placement(name="both", sites=("linear.weight", "linear.input")))
X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def old_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        utils.weight_norm(layer)


COMPUTED: dict[str, tuple[Callable[[nn.Module], object], Callable[[nn.Module], object], str]] = {
    "weight_norm": (
        parametrizations.weight_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight"),
        r"WeightNorm: call .*remove_parametrizations\(module, 'weight'\)",
    ),
    "orthogonal": (
        parametrizations.orthogonal, lambda layer: parametrize.remove_parametrizations(layer, "weight"),
        r"Orthogonal: call .*remove_parametrizations\(module, 'weight'\)",
    ),
    "old weight_norm": (old_norm, utils.remove_weight_norm, "remove_weight_norm"),
    "old spectral_norm": (utils.spectral_norm, utils.remove_spectral_norm, "remove_spectral_norm"),
    "pruned": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.remove(layer, "weight"), r"prune\.remove",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", COMPUTED)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_computed_weight_is_refused_by_name_until_it_is_a_parameter(how: str) -> None:
    compute, undo, said = COMPUTED[how]
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    compute(model[0])
    with pytest.raises(QuantizationError, match=f"^0.weight .*{said}"):
        insert(model, BOTH, example=(X,))
    undo(model[0])
    assert set(insert(model, BOTH, example=(X,)).quantizers) >= {"0:linear.weight", "2:linear.weight"}


class Mixed(nn.Module):
    """A linear layer of 64 weights, behind one that is none."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.last = first, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x, x, x)[0] if isinstance(self.first, nn.MultiheadAttention) else self.first(x)
        result: Tensor = self.last(y[0] if isinstance(y, tuple) else y)
        return result


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (lambda: Conv1D(8, 8), "50 % .* Conv1D"),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), "60 % .* MultiheadAttention"),
        (lambda: nn.GRU(8, 8, batch_first=True), "86 % .* GRU"),
        (lambda: nn.Conv1d(3, 3, 1), "12 % .* Conv1d"),
    ],
)
def test_weights_that_stay_in_floating_point_are_told_with_their_share(
    first: Callable[[], nn.Module], said: str
) -> None:
    with pytest.warns(UserWarning, match=said):
        insert(Mixed(first()).eval(), WEIGHTS, example=(X,))


@pytest.mark.filterwarnings("ignore:.*stay in floating point")
def test_attention_of_torch_is_named_where_its_inputs_are_asked_for() -> None:
    model = Mixed(nn.MultiheadAttention(8, 2, batch_first=True)).eval()
    with pytest.raises(QuantizationError, match=r"^first\.out_proj: nn\.MultiheadAttention"):
        insert(model, BOTH, example=(X,))
    left = BOTH.model_copy(update={"placement": BOTH.placement.model_copy(update={"exclude": ("first.*",)})})
    assert set(insert(model, left, example=(X,)).quantizers) == {"last:linear.input", "last:linear.weight"}


def test_a_layer_that_is_called_by_keyword_is_told_so() -> None:
    class ByKeyword(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(input=self.first(x))
            return result

    with pytest.raises(QuantizationError, match="pass 'input' by position"):
        insert(ByKeyword(nn.Linear(8, 8)).eval(), BOTH, example=(X,))
