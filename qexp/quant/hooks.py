"""Catching values: hooks on modules, taps in attention, and which sites see one and the same tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qexp.config import Placement, SiteKind
from qexp.errors import QuantizationError
from qexp.quant.attention import IMPLEMENTATION, TAPS, register
from qexp.quant.placement import MATMUL_KINDS, WEIGHT, Point, chosen

Key = tuple[SiteKind, str]
"""Kind and module name of a site."""
Tap = Callable[[Tensor], Tensor]


class Handle(Protocol):
    """What undoes an attachment."""

    def remove(self) -> None:
        """Undo it."""


class InputHook:
    """Forward pre-hook that passes one positional argument through a tap."""

    def __init__(self, tap: Tap, index: int) -> None:
        self.tap, self.index = tap, index

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Arguments with the tapped one replaced; None where nothing changed."""
        index = self.index
        if index >= len(args):
            raise QuantizationError(
                f"{type(module).__name__} got {len(args)} positional arguments, its quantizer expects "
                f"number {index + 1}: this version of transformers calls it in another way; adapt "
                "qexp/quant/placement.py"
            )
        tapped = self.tap(args[index])
        return None if tapped is args[index] else (*args[:index], tapped, *args[index + 1 :])


class OutputHook:
    """Forward hook that passes the output, or one item of a tuple, through a tap."""

    def __init__(self, tap: Tap, index: int) -> None:
        self.tap, self.index = tap, index

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The output with the tapped tensor replaced."""
        if not isinstance(output, tuple):
            return self.tap(output)
        return (*output[: self.index], self.tap(output[self.index]), *output[self.index + 1 :])


class AttentionTaps:
    """Taps on the matmul inputs of one attending module."""

    def __init__(self, module: nn.Module, taps: Mapping[SiteKind, Tap]) -> None:
        self.module = module
        setattr(module, TAPS, dict(taps))

    def remove(self) -> None:
        """Take the taps off."""
        delattr(self.module, TAPS)


class AttentionSwitch:
    """The model's attention, replaced by the one with taps until removed."""

    def __init__(self, model: Any) -> None:
        register()
        self.config = model.config
        self.before: str = self.config._attn_implementation
        self.config._attn_implementation = IMPLEMENTATION

    def remove(self) -> None:
        """Give the model its own attention back."""
        self.config._attn_implementation = self.before


def attach(model: nn.Module, points: Sequence[Point], tap: Callable[[Key], Tap]) -> list[Handle]:
    """Hook each point with the tap of its site."""
    handles: list[Handle] = []
    for point in points:
        module, through = model.get_submodule(point.module), tap((point.kind, point.module))
        if point.side == "input":
            handles.append(module.register_forward_pre_hook(InputHook(through, point.index)))
        else:
            handles.append(module.register_forward_hook(OutputHook(through, point.index)))
    return handles


class Recorder:
    """Notes which site sees which tensor, and keeps the tensors alive, so that identities stay apart."""

    def __init__(self) -> None:
        self.seen: list[tuple[Key, Tensor]] = []

    def tap(self, key: Key) -> Tap:
        """A tap that notes its site and changes nothing."""

        def note(tensor: Tensor) -> Tensor:
            self.seen.append((key, tensor))
            return tensor

        return note

    def groups(self) -> list[list[Key]]:
        """Sites by the tensor that they see, in the order of the forward pass.

        A site that a forward pass reaches twice, with two tensors, stays in its first group and takes
        the other sites of the second tensor along.
        """
        groups: list[list[Key]] = []
        of_tensor: dict[int, list[Key]] = {}
        of_site: dict[Key, list[Key]] = {}
        for key, tensor in self.seen:
            group = of_tensor.get(id(tensor), of_site.get(key))
            if group is None:
                groups.append(group := [])
            of_tensor.setdefault(id(tensor), group)
            if key not in of_site:
                of_site[key] = group
                group.append(key)
        return groups


def discover(model: nn.Module, points: Sequence[Point], placement: Placement) -> list[list[Key]]:
    """Groups of activation sites that see the very same tensor.

    Runs the model once, in evaluation mode, on two short rows of arbitrary tokens.

    Raises:
        QuantizationError: a wanted kind of site is nowhere in the model, or one on the list was not reached.
    """
    recorder = Recorder()
    handles = attach(model, points, recorder.tap)
    if wants_attention(placement):
        handles.append(AttentionSwitch(model))
        for name, module in model.named_modules():
            taps = {k: recorder.tap((k, name)) for k in MATMUL_KINDS if chosen(placement, k, name)}
            handles.append(AttentionTaps(module, taps))
    try:
        _dummy_forward(model)
    finally:
        for handle in handles:
            handle.remove()
    groups = recorder.groups()
    _check_complete({key for group in groups for key in group}, points, placement, model)
    return groups


def wants_attention(placement: Placement) -> bool:
    """Whether the placement has sites inside attention."""
    return any(kind in MATMUL_KINDS for kind in placement.sites)


def _check_complete(found: set[Key], points: Sequence[Point], placement: Placement, model: nn.Module) -> None:
    unreached = sorted({point.module for point in points} - {module for _, module in found})
    if unreached:
        raise QuantizationError(
            f"no value passes {', '.join(unreached)} of {type(model).__name__} in a plain forward pass: "
            "name these modules in placement.exclude"
        )
    absent = {kind for kind in placement.sites if kind != WEIGHT} - {kind for kind, _ in found}
    if absent and not placement.exclude:
        raise QuantizationError(
            f"placement.sites: {type(model).__name__} has no {', '.join(sorted(absent))}; its attention "
            "does not go through transformers' AttentionInterface, or it has none: drop these kinds from "
            "placement.sites"
        )


def _dummy_forward(model: nn.Module) -> None:
    training = [module for module in model.modules() if module.training]
    parameter = next(model.parameters())
    vocabulary = int(getattr(model.config, "vocab_size", 2))
    tokens = (1 + torch.arange(12, device=parameter.device) % (vocabulary - 1)).view(2, 6)
    model.eval()
    try:
        with torch.no_grad():
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    finally:
        for module in training:
            module.training = True
