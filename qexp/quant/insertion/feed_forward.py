"""Feed-forward parts of a model, found by running it once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from qexp.quant.insertion.discovery import Example, Recorder, run_once
from qexp.quant.insertion.hooks import Key, attach
from qexp.quant.insertion.sites import Point, linears, nonlinearities, norms

WORDS = ("@ffn_input", "@ffn_output", "@ffn_sum")
"""What enters a feed-forward part, what it gives, and that with the residual added, before the norm."""


def feed_forward_sites(model: nn.Module, example: Example | None = None) -> Mapping[str, set[Key]]:
    """By word, the sites of the feed-forward parts in the layers of a model.

    Such a part is a linear layer, a nonlinearity and a linear layer, one after the other, within a
    ``ModuleList``: a pooler or a head is none. The sum is the input of the norm that runs next.
    """
    seen = _run(model, example)
    stacks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    given: dict[int, list[Key]] = {}
    for key, tensor in seen:
        given.setdefault(id(tensor), []).append(key)
    found: dict[str, set[Key]] = {word: set() for word in WORDS}
    for index, ((kind, second), tensor) in enumerate(seen):
        before = [name for each, name in given[id(tensor)] if each == "activation.output"]
        if kind != "linear.input" or not before or not second.startswith(stacks):
            continue
        first = _last(seen[:index], "linear.input")
        norm = next((name for (each, name), _ in seen[index:] if each == "layernorm.input"), "")
        found["@ffn_input"] |= set(given[id(first[1])]) | {first[0]}
        found["@ffn_output"] |= {("linear.output", second)}
        found["@ffn_sum"] |= {("layernorm.input", norm), ("residual.sum", norm)}
    return found


def _last(seen: list[tuple[Key, Tensor]], kind: str) -> tuple[Key, Tensor]:
    return next(each for each in reversed(seen) if each[0][0] == kind)


def _run(model: nn.Module, example: Example | None) -> list[tuple[Key, Tensor]]:
    """What passes linear layers, nonlinearities and norms, in order; kept alive, so that ids differ."""
    recorder = Recorder(two_sequences=False)
    points = [Point("linear.input", name, "input") for name in linears(model)]
    points += [Point("linear.output", name, "output") for name in linears(model)]
    points += [Point("layernorm.input", name, "input") for name in norms(model)]
    points += [Point("layernorm.output", name, "output") for name in norms(model)]
    run_once(model, attach(model, [*points, *nonlinearities(model)], recorder.tap), example)
    return recorder.seen
