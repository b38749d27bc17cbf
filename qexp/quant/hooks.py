"""Catching values: hooks on modules, taps in attention, and which sites see one and the same tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from qexp.config import Placement, SiteKind
from qexp.errors import QuantizationError
from qexp.quant.attention import IMPLEMENTATION, TAPS, register
from qexp.quant.placement import MATMUL_KINDS, WEIGHT, Point, chosen

SOURCE_LENGTH, TARGET_LENGTH = 6, 5
"""Tokens of a row in discovery; that they differ tells the sequences apart."""

Side = Literal["source", "target"]
"""What goes into an encoder, and what a decoder beside it writes; a model without one knows the first only."""
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
    """The model's attention, replaced by the one with taps until removed.

    Encoder and decoder may each have a config of their own, as in T5.
    """

    def __init__(self, model: nn.Module) -> None:
        register()
        configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
        distinct = {id(each): each for each in configs if hasattr(each, "_attn_implementation")}
        self.before: list[tuple[Any, str]] = [(each, each._attn_implementation) for each in distinct.values()]
        for config, _ in self.before:
            config._attn_implementation = IMPLEMENTATION

    def remove(self) -> None:
        """Give the model its own attention back."""
        for config, implementation in self.before:
            config._attn_implementation = implementation


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


@dataclass(frozen=True)
class Value:
    """A value of the forward pass, and the sites that see it."""

    sites: list[Key]
    rows: Side = "source"
    """The sequence whose padding the value's rows have."""
    columns: Side = "source"
    """The same for the key columns of attention probabilities."""


class Recorder:
    """Notes which site sees which tensor, and keeps the tensors alive, so that identities stay apart."""

    def __init__(self, *, two_sequences: bool) -> None:
        self.seen: list[tuple[Key, Tensor]] = []
        self.two_sequences = two_sequences

    def tap(self, key: Key) -> Tap:
        """A tap that notes its site and changes nothing."""

        def note(tensor: Tensor) -> Tensor:
            self.seen.append((key, tensor))
            return tensor

        return note

    def values(self) -> list[Value]:
        """Sites by the tensor that they see, in the order of the forward pass.

        A site that a forward pass reaches twice, with two tensors, stays with its first value and takes
        the other sites of the second tensor along.
        """
        values: list[Value] = []
        of_tensor: dict[int, Value] = {}
        of_site: dict[Key, Value] = {}
        for key, tensor in self.seen:
            value = of_tensor.get(id(tensor), of_site.get(key))
            if value is None:
                sides = _sides(tensor) if self.two_sequences else ()
                values.append(value := Value([], *sides))
            of_tensor.setdefault(id(tensor), value)
            if key not in of_site:
                of_site[key] = value
                value.sites.append(key)
        return values


def _sides(tensor: Tensor) -> tuple[Side, Side]:
    """Which sequences rows and columns belong to: in discovery the target is shorter than the source."""
    rows = tensor.shape[1:2] if tensor.dim() == 3 else tensor.shape[2:3]
    target = (TARGET_LENGTH,)
    return "target" if rows == target else "source", "target" if tensor.shape[3:] == target else "source"


def discover(model: nn.Module, points: Sequence[Point], placement: Placement) -> list[Value]:
    """The values that the sites see, each of which needs one quantizer.

    Runs the model once, in evaluation mode, on two short rows of arbitrary tokens.

    Raises:
        QuantizationError: a wanted kind of site is nowhere in the model, or one on the list was not reached.
    """
    recorder = Recorder(two_sequences=two_sequences(model))
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
    values = recorder.values()
    _check_complete({key for value in values for key in value.sites}, points, placement, model)
    return values


def two_sequences(model: nn.Module) -> bool:
    """Whether the model has a decoder beside its encoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


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
    model.eval()
    try:
        with torch.no_grad():
            model(**_tokens(model))
    finally:
        for module in training:
            module.training = True


def _tokens(model: Any) -> dict[str, Tensor]:
    """Two rows of token ids, and of decoder ids where the model has a decoder beside its encoder."""
    config, device = model.config, next(model.parameters()).device
    vocabulary = min(getattr(config, name, None) or 2**31 for name in ("vocab_size", "decoder_vocab_size"))
    tokens = (1 + torch.arange(2 * SOURCE_LENGTH, device=device) % (vocabulary - 1)).view(2, SOURCE_LENGTH)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if two_sequences(model):
        inputs["decoder_input_ids"] = tokens[:, :TARGET_LENGTH]
    return inputs
