"""Weights that insertion cannot quantize: refused, or named as left in floating point."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from torch.nn.utils import parametrize

from qexp.config import Placement
from qexp.errors import QuantizationError
from qexp.quant.insertion.sites import WeightParameter, declaring, linears, weights


def _other_weights(model: nn.Module) -> Counter[str]:
    """Return the sizes of matrices and kernels outside linear layers and tables, by class of module."""
    sizes = Counter[str]()
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            own = [each for each in module.parameters(recurse=False) if each.dim() > 1]
            sizes[type(module).__name__] += sum(each.numel() for each in own)
    return +sizes


def _left_in_float(model: nn.Module, placement: Placement) -> Counter[str]:
    """Return the sizes of the matrices that a placement leaves out, by class of module, without tables."""
    quantized = {(weight.module, weight.parameter) for weight in weights(model, placement)}
    sizes = Counter[str]()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            for own, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1 and (name, own) not in quantized:
                    sizes[type(module).__name__] += parameter.numel()
    return sizes


def _computed_by(module: nn.Module, parameter: str) -> str | None:
    """Return what torch computes a weight with, and the call that makes it a parameter; None if it is one."""
    if parametrize.is_parametrized(module, parameter):
        parts: Any = module.parametrizations
        names = ", ".join(type(part).__name__.lstrip("_") for part in parts[parameter])
        return f"{names}: call torch.nn.utils.parametrize.remove_parametrizations(module, {parameter!r})"
    if parameter in module._parameters:
        return None
    remove = {
        f"{parameter}_mask": "torch.nn.utils.prune.remove",
        f"{parameter}_g": "torch.nn.utils.remove_weight_norm",
        f"{parameter}_u": "torch.nn.utils.remove_spectral_norm",
    }
    call = next((call for name, call in remove.items() if hasattr(module, name)), None)
    return f"a hook: call {call}(module, {parameter!r})" if call else "a hook: make it a plain parameter"


def check_parameters(model: nn.Module, chosen: Iterable[WeightParameter]) -> None:
    """Check that weights are parameters, which their quantizers read.

    Raises:
        QuantizationError: One is computed by torch from others.
    """
    for weight in chosen:
        if how := _computed_by(model.get_submodule(weight.module), weight.parameter):
            raise QuantizationError(
                f"{weight.module}.{weight.parameter} is no parameter, but computed in each forward pass by "
                f"{how} on it before quantizers are inserted, or leave it out with placement.exclude"
            )


def check_linears(model: nn.Module) -> None:
    """Check that most weights of a model of transformers lie in linear layers, and none of its own.

    Raises:
        QuantizationError: Most lie elsewhere.
    """
    other, declared = _other_weights(model), list(declaring(model))
    inside = sum(cast("nn.Linear", model.get_submodule(name)).weight.numel() for name in linears(model))
    if hasattr(model, "config") and not declared and sum(other.values()) > inside:
        raise QuantizationError(
            f"placement.sites: {sum(other.values()):,} weights of {type(model).__name__} lie in modules of "
            f"the classes {', '.join(sorted(other))}, {inside:,} in linear layers; only those and tables are "
            "quantized, so that most products would stay in floating point: choose another encoder, or drop "
            "linear.weight and linear.input from placement.sites"
        )


def warn_of_floats(model: nn.Module, placement: Placement) -> None:
    """Warn of weights of a module that is none of transformers' and that stay in floating point."""
    left = _left_in_float(model, placement)
    everything = sum(each.numel() for each in model.parameters() if each.dim() > 1)
    if left and not hasattr(model, "config"):
        warnings.warn(
            f"{100 * left.total() / everything:.0f} % of the weights of {type(model).__name__} stay in "
            f"floating point: those of {', '.join(sorted(left))}; declare them with QuantModule to quantize "
            "them",
            stacklevel=2,
        )
