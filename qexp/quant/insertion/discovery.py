"""Discovery of the sites that see the same value, by running the model once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qexp.config import Placement, SiteKind
from qexp.errors import QuantizationError
from qexp.quant.insertion.function_calls import FunctionCalls
from qexp.quant.insertion.function_taps import attach_calls
from qexp.quant.insertion.hooks import (
    AttentionSwitch,
    AttentionTaps,
    Handle,
    Key,
    Tap,
    attach,
    attach_declared,
)
from qexp.quant.insertion.sites import (
    ATTENTION_KINDS,
    WEIGHT_KINDS,
    Point,
    chosen,
    declaring,
    joined,
    linears,
    nonlinearities,
    relus,
)

SOURCE_LENGTH, TARGET_LENGTH = 6, 5
"""Tokens per row of each sequence; the lengths differ so that values can be assigned to a sequence."""

Example = tuple[Any, ...] | Mapping[str, Any]
"""Arguments of one forward pass, by position or by name."""
Side = Literal["source", "target", "positions"]
"""Sequence of an encoder, or of a decoder beside it; a model without a decoder has the first only. Relative
positions, which some attentions multiply with, are never padding."""


@dataclass(frozen=True)
class Value:
    """A value of the forward pass, and the sites that see it."""

    sites: list[Key]
    rows: Side = "source"
    """Sequence whose padding applies to the value's rows."""
    columns: Side = "source"
    """Sequence whose padding applies to the key columns of attention probabilities."""
    nonlinear: bool = False
    """Whether the value is the output of a nonlinearity, such as GELU."""
    width: int | None = None
    """Width H of a value [B, T, H], else None."""
    before_relu: bool = False
    """Whether a ReLU reads the value."""
    parts: Mapping[Key, str] = field(default_factory=dict)
    """By site the name of the value that ``fused`` merged into this one; empty if none was."""

    @property
    def name(self) -> str:
        """Name of the value's quantizer, after its first site."""
        kind, module = self.sites[0]
        return f"{module}:{kind}"


class TensorRecorder:
    """Recorder of the tensor that each site sees.

    It keeps the tensors alive, so that their identities stay distinct.
    """

    def __init__(self, *, two_sequences: bool, in_functions: Collection[Key] = ()) -> None:
        self.seen: list[tuple[Key, Tensor]] = []
        self.in_functions = set(in_functions)
        self.nonlinear: dict[int, Tensor] = {}
        self.before_relu: dict[int, Tensor] = {}
        self.two_sequences = two_sequences

    def tap(self, key: Key) -> Tap:
        """Return a tap that records its site and changes nothing."""

        def record(tensor: Tensor) -> Tensor:
            self.seen.append((key, tensor))
            return tensor

        return record

    def mark(self, _: Key) -> Tap:
        """Return a tap that marks a tensor as the output of a nonlinearity."""

        def record(tensor: Tensor) -> Tensor:
            self.nonlinear[id(tensor)] = tensor
            return tensor

        return record

    def mark_before_relu(self, _: Key) -> Tap:
        """Return a tap that marks a tensor as the input of a ReLU."""

        def record(tensor: Tensor) -> Tensor:
            self.before_relu[id(tensor)] = tensor
            return tensor

        return record

    def values(self) -> list[Value]:
        """Group the sites by the tensor that they see, in the order of the forward pass.

        A site that is reached twice with different tensors stays with its first value, and the other sites of
        the second tensor join that value.
        """
        values: list[Value] = []
        by_tensor: dict[int, Value] = {}
        by_site: dict[Key, Value] = {}
        for key, tensor in self.seen:
            value = by_tensor.get(id(tensor), by_site.get(key))
            if value is None:
                sides = _sides(tensor) if self.two_sequences else ()
                if key in self.in_functions and tensor.shape[-2] != SOURCE_LENGTH:
                    sides = ("positions", "positions")
                nonlinear = id(tensor) in self.nonlinear
                width = tensor.shape[2] if tensor.dim() == 3 else None
                before_relu = id(tensor) in self.before_relu
                sides = sides or ("source", "source")
                values.append(value := Value([], *sides, nonlinear, width, before_relu))
            by_tensor.setdefault(id(tensor), value)
            if key not in by_site:
                by_site[key] = value
                value.sites.append(key)
        return values


def _sides(tensor: Tensor) -> tuple[Side, Side]:
    """Return the sequences of rows and columns; in discovery the target is shorter than the source."""
    rows = tensor.shape[1:2] if tensor.dim() == 3 else tensor.shape[2:3]
    target = (TARGET_LENGTH,)
    return "target" if rows == target else "source", "target" if tensor.shape[3:] == target else "source"


def discover(
    model: nn.Module,
    points: Sequence[Point],
    placement: Placement,
    example: Example | None = None,
    *,
    functions: FunctionCalls | None = None,
) -> list[Value]:
    """Return the values that the sites see, each of which needs one quantizer.

    ``functions`` are those that compute sites of the placement.

    The model runs once in evaluation mode, on the example or else on two short rows of arbitrary tokens.

    Raises:
        QuantizationError: If one of ``points`` is not reached.
    """
    functions = functions or FunctionCalls()
    values = _recorded(model, points, placement, example=example, functions=functions).values()
    _check_complete({key for value in values for key in value.sites}, points, placement, model)
    return values


def kinds_reached(
    model: nn.Module,
    points: Sequence[Point],
    placement: Placement,
    *,
    example: Example | None,
    functions: FunctionCalls,
) -> set[SiteKind]:
    """Return the kinds of the sites that a forward pass reaches; see ``discover``."""
    recorder = _recorded(model, points, placement, example=example, functions=functions)
    return {kind for (kind, _), _ in recorder.seen}


def _recorded(
    model: nn.Module,
    points: Sequence[Point],
    placement: Placement,
    *,
    example: Example | None,
    functions: FunctionCalls,
) -> TensorRecorder:
    """Run the model once and return what its sites saw."""
    in_functions = [(point.kind, point.name) for point in functions.operands]
    recorder = TensorRecorder(two_sequences=two_sequences(model), in_functions=in_functions)
    handles = attach(model, nonlinearities(model), recorder.mark)
    relu_inputs = [Point("activation.output", name, "input") for name in relus(model)]
    handles += attach(model, relu_inputs, recorder.mark_before_relu)
    handles += attach(model, points, recorder.tap) + attach_declared(model, placement, recorder.tap)
    if wants_attention(placement):
        handles.append(AttentionSwitch(model))
        for name, module in model.named_modules():
            taps = {k: recorder.tap((k, name)) for k in ATTENTION_KINDS if chosen(placement, k, name)}
            handles.append(AttentionTaps(module, taps))
    handles += attach_calls(model, functions.operands, recorder.tap, functions.widths)
    run_once(model, handles, example)
    return recorder


def inputs_of_linears(model: nn.Module, example: Example | None = None) -> list[Value]:
    """Return the values that linear layers read, each with all its readers; only layers that run count."""
    recorder = TensorRecorder(two_sequences=two_sequences(model))
    points = [Point("linear.input", name, "input") for name in linears(model)]
    run_once(model, attach(model, points, recorder.tap), example)
    return recorder.values()


def two_sequences(model: nn.Module) -> bool:
    """Return whether the model has a decoder beside its encoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def wants_attention(placement: Placement) -> bool:
    """Return whether the placement changes the computation inside attention."""
    return placement.mask_value is not None or any(kind in ATTENTION_KINDS for kind in placement.sites)


def _check_complete(
    reached: set[Key], points: Sequence[Point], placement: Placement, model: nn.Module
) -> None:
    declared = {
        joined(name, own)
        for name, module in declaring(model)
        if chosen(placement, "declared.activation", name)
        for own in module.declared_activations
    }
    # A table of which all users have copies, as in Marian, never runs itself.
    expected = {point.module for point in points if point.kind != "embedding.output"}
    unreached = sorted((expected | declared) - {place for _, place in reached})
    inside = [name for name in unreached if _is_in_fused_attention(model, name)]
    if inside:
        raise QuantizationError(
            f"{', '.join(inside)}: nn.MultiheadAttention reads its weights without calling it, so that its "
            "inputs cannot be quantized; write the attention with linear layers, or leave its inputs in "
            f"floating point with placement.exclude=[{','.join(inside)}]"
        )
    if unreached:
        raise QuantizationError(
            f"no value passes {', '.join(unreached)} of {type(model).__name__} in a plain forward pass: "
            f"they do nothing there; leave them out with placement.exclude=[{','.join(unreached)}]"
        )


def _is_in_fused_attention(model: nn.Module, name: str) -> bool:
    """Return whether a module is the output projection of torch's own attention."""
    parent, _, child = name.rpartition(".")
    return child == "out_proj" and isinstance(model.get_submodule(parent), nn.MultiheadAttention)


def check_kinds(reached: Collection[SiteKind], placement: Placement, model: nn.Module) -> None:
    """Check that a forward pass reaches sites of all kinds of a placement.

    Raises:
        QuantizationError: If it reaches none of a kind.
    """
    absent = set(placement.sites) - set(WEIGHT_KINDS) - set(reached)
    if absent:
        attention = any(kind.startswith(("matmul", "attention")) for kind in absent)
        why = "; it has no attention, or one that is not known to transformers' AttentionInterface"
        raise QuantizationError(
            f"placement.sites: {type(model).__name__} has no {', '.join(sorted(absent))}"
            f"{why if attention else ''}: drop these kinds from placement.sites"
        )


def run_once(model: nn.Module, handles: Sequence[Handle], example: Example | None) -> None:
    """Run one forward pass in evaluation mode, and remove the handles even if it fails."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            inputs = _tokens(model) if example is None else example
            model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True


def check_example(model: nn.Module, example: Example | None) -> None:
    """Check that the inputs of the model are known.

    Raises:
        QuantizationError: If they are not, or the example would hide which sequence a value belongs to.
    """
    if example is None and not hasattr(getattr(model, "config", None), "vocab_size"):
        raise QuantizationError(
            f"{type(model).__name__} is no language model of transformers, so that what it takes is not "
            "known: give insert(..., example=(x,)) with the arguments of one forward pass"
        )
    if example is not None and two_sequences(model):
        raise QuantizationError(
            f"example: {type(model).__name__} has an encoder and a decoder, whose values are told apart by "
            "the lengths of rows of insert's own: leave the example out"
        )


def _tokens(model: Any) -> dict[str, Tensor]:
    """Return two rows of token ids, and of decoder ids if the model has a decoder beside its encoder."""
    config, device = model.config, next(model.parameters()).device
    vocabulary = min(getattr(config, name, None) or 2**31 for name in ("vocab_size", "decoder_vocab_size"))
    tokens = (1 + torch.arange(2 * SOURCE_LENGTH, device=device) % (vocabulary - 1)).view(2, SOURCE_LENGTH)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if two_sequences(model):
        inputs["decoder_input_ids"] = tokens[:, :TARGET_LENGTH]
    return inputs
