"""Parametrizations of quantized weights, and access to the float weights."""

from __future__ import annotations

import re
import weakref
from collections import deque
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
"""Name of the ``QuantizedModel`` among the children of its model."""
ORIGINAL = re.compile(r"\bparametrizations\.(\w+)\.original$")
"""Pattern for the name of a float weight that has a quantizer."""
STORED = re.compile(r"\bparametrizations\.\w+\.0\.")
"""Pattern for names that exist only in export form."""


class WeightHandle:
    """Registration of the parametrization of one weight, on construction."""

    def __init__(self, module: nn.Module, parameter: str, weight: QuantizedWeight) -> None:
        self.module, self.parameter, self.weight = module, parameter, weight
        self.order = list(module._parameters)
        parametrize.register_parametrization(module, parameter, weight)

    def remove(self) -> None:
        """Restore the weight as a plain parameter, at its previous position among the parameters."""
        parametrize.remove_parametrizations(self.module, self.parameter, leave_parametrized=False)
        parameters = self.module._parameters
        for name in self.order:
            parameters[name] = parameters.pop(name)


_STALE: deque[Handle] = deque()
"""Hooks whose objects were collected."""


def on_optimizer_step(forget: Callable[[], None]) -> Handle:
    """Call a method after every step of any optimizer, as long as its object is alive.

    This is needed because a fused optimizer changes a parameter without incrementing ``Tensor._version``.
    Hooks of objects that are gone are removed at the next registration: the garbage collector may run inside
    a step, while the optimizer iterates over the hooks.
    """
    while _STALE:
        _STALE.popleft().remove()
    method = weakref.WeakMethod(forget)

    def post_step(*_: Any) -> None:
        if (callback := method()) is not None:
            callback()

    handle = register_optimizer_step_post_hook(post_step)
    weakref.finalize(forget.__self__, _STALE.append, handle)  # type: ignore[attr-defined]
    return handle


def float_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the float weights of a model with quantizers, under their names in the model without quantizers.

    Raises:
        QuantizationError: If the model is in export form.
    """
    state = model.state_dict()
    if any(STORED.search(key) for key in state):
        raise QuantizationError("a model in export form has integer weights: leave the export form first")
    return {
        ORIGINAL.sub(r"\1", key): tensor for key, tensor in state.items() if not key.startswith(f"{NAME}.")
    }


def original(model: nn.Module, site: Site) -> Tensor:
    """Return the float weight of a site."""
    owner: Any = model.get_submodule(site.module)
    original: Tensor = owner.parametrizations[site.parameter].original
    return original


def originals(
    model: nn.Module, sites: Iterable[Site], quantizers: Mapping[str, Quantizer]
) -> dict[str, Tensor]:
    """Return the float weights of these quantizers by name, without gradients.

    Several weights with one range are flattened and concatenated. Weights are divided by the factors of the
    quantizer, as before rounding.
    """
    weights: dict[str, dict[int, Tensor]] = {}
    for site in (each for each in sites if each.is_weight and each.quantizer in quantizers):
        weight = original(model, site)
        weights.setdefault(site.quantizer, {})[id(weight)] = quantizers[site.quantizer].pre_scaled(
            weight.detach()
        )
    return {name: _concatenate(list(tensors.values())) for name, tensors in weights.items()}


def _concatenate(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights]) if len(weights) > 1 else weights[0]
