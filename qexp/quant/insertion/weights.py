"""Weights that have quantizers: parametrizations, and the float weights behind them."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from qexp.errors import QuantizationError
from qexp.quant.insertion.hooks import Handle
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.insertion.sites import Site
from qexp.quant.quantizer import Quantizer

NAME = "quantization"
"""Name of the ``Quantization`` among the children of its model."""
ORIGINAL = re.compile(r"\bparametrizations\.(\w+)\.original$")
"""Name of a float weight that has a quantizer."""
STORED = re.compile(r"\bparametrizations\.\w+\.0\.")
"""Names that only the export form has."""


class WeightHandle:
    """The parametrization of one weight, made on construction."""

    def __init__(self, module: nn.Module, parameter: str, weight: QuantizedWeight) -> None:
        self.module, self.parameter, self.weight = module, parameter, weight
        self.order = list(module._parameters)
        parametrize.register_parametrization(module, parameter, weight)

    def remove(self) -> None:
        """Turn the weight into a plain parameter again, at its old place among the others."""
        parametrize.remove_parametrizations(self.module, self.parameter, leave_parametrized=False)
        parameters = self.module._parameters
        for name in self.order:
            parameters[name] = parameters.pop(name)


def after_each_step(forget: Callable[[], None]) -> Handle:
    """Call a method after every step of any optimizer, for as long as its object lives.

    A fused optimizer changes a parameter without counting up ``Tensor._version``.
    """
    method = weakref.WeakMethod(forget)

    def stepped(*_: Any) -> None:
        if (alive := method()) is not None:
            alive()

    handle = register_optimizer_step_post_hook(stepped)
    weakref.finalize(forget.__self__, handle.remove)  # type: ignore[attr-defined]
    return handle


def float_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The float weights of a model with quantizers, under the names that they have without.

    Raises:
        QuantizationError: the model is in export form.
    """
    state = model.state_dict()
    if any(STORED.search(key) for key in state):
        raise QuantizationError("a model in export form has integer weights: leave the export form first")
    return {
        ORIGINAL.sub(r"\1", key): tensor for key, tensor in state.items() if not key.startswith(f"{NAME}.")
    }


def original(model: nn.Module, site: Site) -> Tensor:
    """The float weight of a site."""
    owner: Any = model.get_submodule(site.module)
    original: Tensor = owner.parametrizations[site.parameter].original
    return original


def originals(
    model: nn.Module, sites: Iterable[Site], quantizers: Mapping[str, Quantizer]
) -> dict[str, Tensor]:
    """The float weights by their quantizers, without gradients; of several with one range, all elements.

    Divided by the factors of the quantizer, as they are before they are rounded.
    """
    found: dict[str, dict[int, Tensor]] = {}
    for site in (site for site in sites if site.is_weight):
        weight = original(model, site)
        found.setdefault(site.quantizer, {})[id(weight)] = quantizers[site.quantizer].divided(weight.detach())
    return {name: _together(list(each.values())) for name, each in found.items()}


def _together(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights]) if len(weights) > 1 else weights[0]
