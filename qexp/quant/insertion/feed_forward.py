"""Discovery of the feed-forward blocks of a model, by running it once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from qexp.quant.insertion.discovery import Example, TensorRecorder, run_once
from qexp.quant.insertion.hooks import Key, attach
from qexp.quant.insertion.sites import Point, linears, nonlinearities, norms

WORDS = ("@ffn_input", "@ffn_output", "@ffn_sum")
"""Patterns for a feed-forward block's input, its output, and its output plus residual before the norm."""


def feed_forward_sites(model: nn.Module, example: Example | None = None) -> Mapping[str, set[Key]]:
    """Return the sites of the feed-forward blocks in the layers of a model, by pattern.

    A block is a linear layer, a nonlinearity and a linear layer in succession within a ``ModuleList``, which
    excludes a pooler or a head. The sum is the input of the norm that runs next.
    """
    records = _run(model, example)
    stacks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    sites_of: dict[int, list[Key]] = {}
    for key, tensor in records:
        sites_of.setdefault(id(tensor), []).append(key)
    sites: dict[str, set[Key]] = {word: set() for word in WORDS}
    for index, ((kind, second), tensor) in enumerate(records):
        before = [name for each, name in sites_of[id(tensor)] if each == "activation.output"]
        if kind != "linear.input" or not before or not second.startswith(stacks):
            continue
        first = _last(records[:index], "linear.input")
        norm = next((name for (each, name), _ in records[index:] if each == "layernorm.input"), "")
        sites["@ffn_input"] |= set(sites_of[id(first[1])]) | {first[0]}
        sites["@ffn_output"] |= {("linear.output", second)}
        sites["@ffn_sum"] |= {("layernorm.input", norm), ("residual.sum", norm)}
    return sites


def _last(seen: list[tuple[Key, Tensor]], kind: str) -> tuple[Key, Tensor]:
    return next(each for each in reversed(seen) if each[0][0] == kind)


def _run(model: nn.Module, example: Example | None) -> list[tuple[Key, Tensor]]:
    """Return the tensors at linear layers, nonlinearities and norms, in order.

    The tensors are kept alive, so that their ids differ.
    """
    recorder = TensorRecorder(two_sequences=False)
    points = [Point("linear.input", name, "input") for name in linears(model)]
    points += [Point("linear.output", name, "output") for name in linears(model)]
    points += [Point("layernorm.input", name, "input") for name in norms(model)]
    points += [Point("layernorm.output", name, "output") for name in norms(model)]
    run_once(model, attach(model, [*points, *nonlinearities(model)], recorder.tap), example)
    return recorder.seen
