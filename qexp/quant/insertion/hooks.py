"""Hooks on modules and taps in attention that pass values through quantizers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from qexp.config import Placement, SiteKind
from qexp.errors import QuantizationError
from qexp.quant.insertion.attention import IMPLEMENTATION, MASK_VALUE, TAPS, register
from qexp.quant.insertion.sites import Point, chosen, declaring, joined
from qexp.quant.module import QuantModule
from qexp.quant.quantizer import Quantizer

Key = tuple[SiteKind, str]
"""Kind of a site and the name of its module."""
Tap = Callable[[Tensor], Tensor]


class Handle(Protocol):
    """Object that can remove an attachment, such as a hook."""

    def remove(self) -> None:
        """Remove the attachment."""


class InputHook:
    """Forward pre-hook that passes one positional argument through a tap."""

    def __init__(self, tap: Tap, index: int) -> None:
        self.tap, self.index = tap, index

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the arguments with the tapped one replaced, or None if nothing changed.

        Raises:
            QuantizationError: If there is no such positional argument.
        """
        index = self.index
        if index >= len(args):
            name = list(inspect.signature(module.forward).parameters)[index]
            raise QuantizationError(
                f"{type(module).__name__} got {len(args)} arguments by position, and its quantizer reads "
                f"number {index + 1}: in the forward pass around it, pass {name!r} by position, not by "
                "keyword, or leave the module out with placement.exclude"
            )
        tapped = self.tap(args[index])
        return None if tapped is args[index] else (*args[:index], tapped, *args[index + 1 :])


class OutputHook:
    """Forward hook that passes the output, or one item of a tuple, through a tap."""

    def __init__(self, tap: Tap, index: int) -> None:
        self.tap, self.index = tap, index

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the output with the tapped tensor replaced."""
        if not isinstance(output, tuple):
            return self.tap(output)
        return (*output[: self.index], self.tap(output[self.index]), *output[self.index + 1 :])


class AttentionTaps:
    """Taps on the values of one attending module, and its mask value."""

    def __init__(
        self, module: nn.Module, taps: Mapping[SiteKind, Tap], mask_value: float | None = None
    ) -> None:
        self.module = module
        setattr(module, TAPS, dict(taps))
        setattr(module, MASK_VALUE, mask_value)

    def remove(self) -> None:
        """Remove the taps."""
        delattr(self.module, TAPS)
        delattr(self.module, MASK_VALUE)


class FusedTap:
    """Tap on one part of a fused value, of which calibration keeps statistics of its own."""

    def __init__(self, quantizer: Quantizer, part: str) -> None:
        self.quantizer, self.part = quantizer, part

    def __call__(self, value: Tensor) -> Tensor:
        """Return the quantized value."""
        self.quantizer.part = self.part
        return self.quantizer(value)  # type: ignore[no-any-return]


class DeclaredTaps:
    """Taps on the declared activations of a module."""

    def __init__(self, module: QuantModule, taps: Mapping[str, Tap]) -> None:
        self.module = module
        module.taps = dict(taps)

    def remove(self) -> None:
        """Remove the taps."""
        self.module.taps = {}


class AttentionSwitch:
    """Replacement of the model's attention by the one with taps, until removed.

    Encoder and decoder can each have a config of their own, as in T5.
    """

    def __init__(self, model: nn.Module) -> None:
        register()
        configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
        distinct = {id(each): each for each in configs if hasattr(each, "_attn_implementation")}
        self.before: list[tuple[Any, str]] = [(each, each._attn_implementation) for each in distinct.values()]
        for config, _ in self.before:
            config._attn_implementation = IMPLEMENTATION

    def remove(self) -> None:
        """Restore the attention implementation of the model."""
        for config, implementation in self.before:
            config._attn_implementation = implementation


def attach(model: nn.Module, points: Sequence[Point], tap: Callable[[Key], Tap]) -> list[Handle]:
    """Register a hook at each point with the tap of its site."""
    handles: list[Handle] = []
    for point in points:
        module, site_tap = model.get_submodule(point.module), tap((point.kind, point.module))
        if point.side == "input":
            handles.append(module.register_forward_pre_hook(InputHook(site_tap, point.index)))
        else:
            handles.append(module.register_forward_hook(OutputHook(site_tap, point.index)))
    return handles


def attach_declared(model: nn.Module, placement: Placement, tap: Callable[[Key], Tap | None]) -> list[Handle]:
    """Set the tap of its site on each declared activation that has one."""
    kind: SiteKind = "declared.activation"
    handles: list[Handle] = []
    for name, module in declaring(model):
        if chosen(placement, kind, name):
            taps = {own: tap((kind, joined(name, own))) for own in module.declared_activations}
            handles.append(DeclaredTaps(module, {own: each for own, each in taps.items() if each}))
    return handles
