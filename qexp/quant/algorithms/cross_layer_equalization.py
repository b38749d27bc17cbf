"""Cross-layer equalization: rescaling the weights of consecutive layers without changing the model.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv
1906.04721), section 4.1. If only a positively homogeneous, channel-wise map, ``f(s x) = s f(x)``, lies
between two linear layers, such as a ReLU, channel i of the first can be divided by ``s_i`` if the second
multiplies it again. With ``s_i = sqrt(r1_i / r2_i)`` both ranges of a channel become ``sqrt(r1_i r2_i)``
(equation 11). The weighted average over tokens in attention is such a map, too: it lies between the value
projection and the output projection.

The pairs are found by experiment, not by architecture. The output of a layer is multiplied, channel by
channel, by powers of two, which is exact in floating point. Layers whose input is multiplied by exactly these
factors get their original input instead. If then the inputs of all other layers and the output of the model
are bit-identical to those of a plain forward pass, nothing else reads what the first layer computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qexp.quant.insertion.discovery import Example, check_example, run_once
from qexp.quant.insertion.sites import linears, own_linears

LARGEST_EXPONENT = 16
"""Channels are multiplied by ``2**-16`` to ``2**16``, enough to expose a bounded nonlinearity."""
ROUNDS = 50
"""Maximum number of sweeps over all pairs, as pairs can form a chain."""
SMALLEST_CHANNEL = 2.0**-16
"""Smallest range of a channel, as a share of its layer's largest, that is equalized. A channel below computes
its bias alone, which the factor of its tiny weights would make large."""
EVEN = 1.001
"""Ranges count as equal after a round whose largest factor is below this."""


@dataclass(frozen=True)
class EqualizationPair:
    """A linear layer, and the linear layers that read its output channel by channel."""

    first: str
    seconds: tuple[str, ...]


def find_pairs(model: nn.Module, example: Example | None = None) -> list[EqualizationPair]:
    """Find all pairs of a model, with one forward pass and one more for each linear layer.

    Layers that share a parameter with another module are in no pair.

    Args:
        model: A language model of transformers, or any model if ``example`` is given.
        example: Arguments of a forward pass.

    Raises:
        QuantizationError: If the inputs of the model are not known.
    """
    check_example(model, example)
    plain = _Pass(model, example)
    own = set(own_linears(model))
    trials = [_Trial(model, name, plain, example).pair() for name in plain.inputs if name in own]
    return [pair for pair in trials if pair is not None and set(pair.seconds) <= own]


@torch.no_grad()
def equalize(model: nn.Module, pairs: Sequence[EqualizationPair]) -> dict[str, int]:
    """Rescale the weights of all pairs in place, until the ranges of each channel are equal.

    Returns:
        Number of channels that were left alone (:data:`SMALLEST_CHANNEL`), by the first layer of their pair.
    """
    usable = {pair.first: _usable(*_ranges_of(model, pair)) for pair in pairs}
    for _ in range(ROUNDS):
        if max((_equalize_pair(model, pair, usable[pair.first]) for pair in pairs), default=1.0) < EVEN:
            break
    return {name: left for name, used in usable.items() if (left := int((~used).sum()))}


def _ranges_of(model: nn.Module, pair: EqualizationPair) -> tuple[Tensor, Tensor]:
    """Return the largest magnitudes of the weights that write and that read each channel, [channels]."""
    first: Any = model.get_submodule(pair.first)
    seconds: list[Any] = [model.get_submodule(name) for name in pair.seconds]
    columns = torch.stack([second.weight.abs().amax(0) for second in seconds]).amax(0)
    return first.weight.abs().amax(1), columns


def _usable(rows: Tensor, columns: Tensor) -> Tensor:
    """Return which channels are neither zero nor next to it in one of the layers, bool [channels]."""
    large = [each > SMALLEST_CHANNEL * each.max() for each in (rows, columns)]
    return large[0] & large[1]


def _equalize_pair(model: nn.Module, pair: EqualizationPair, used: Tensor) -> float:
    """Equalize the channels of one pair that are used, and return the largest factor applied."""
    first: Any = model.get_submodule(pair.first)
    seconds: list[Any] = [model.get_submodule(name) for name in pair.seconds]
    rows, columns = _ranges_of(model, pair)
    factors = torch.where(used, (rows / columns.where(used, 1.0)).sqrt(), 1.0)
    first.weight.div_(factors[:, None])
    if first.bias is not None:
        first.bias.div_(factors)
    for second in seconds:
        second.weight.mul_(factors)
    return float(torch.maximum(factors, 1 / factors).max())


class _Pass:
    """Inputs of linear layers in one forward pass, call by call, and outputs of the model."""

    def __init__(self, model: nn.Module, example: Example | None) -> None:
        self.inputs: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.outputs: list[Tensor] = []
        handles = [
            model.get_submodule(name).register_forward_pre_hook(partial(self._read, name))
            for name in linears(model)
        ]
        run_once(model, [*handles, model.register_forward_hook(self._observe_output)], example)

    def _read(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inputs[name].append(args[0].clone())

    def _observe_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.outputs = _tensors(output)


class _Trial:
    """A forward pass with the output of one layer multiplied, compared with a plain forward pass."""

    def __init__(self, model: nn.Module, first: str, plain: _Pass, example: Example | None) -> None:
        self.first, self.plain = first, plain
        self.seen: defaultdict[str, list[str]] = defaultdict(list)
        layer: Any = model.get_submodule(first)
        generator = torch.Generator().manual_seed(0)
        span = (-LARGEST_EXPONENT, LARGEST_EXPONENT + 1)
        exponents = torch.randint(*span, (layer.out_features,), generator=generator)
        self.factors = torch.exp2(exponents.to(layer.weight.dtype)).to(layer.weight.device)
        handles = [
            model.get_submodule(name).register_forward_pre_hook(partial(self._read, name))
            for name in plain.inputs
        ]
        handles.append(layer.register_forward_hook(self._multiply))
        run_once(model, [*handles, model.register_forward_hook(self._observe_output)], example)

    def pair(self) -> EqualizationPair | None:
        """Return the layer and its readers, or None if its output affects anything else."""
        readers = tuple(name for name, calls in self.seen.items() if set(calls) == {"multiplied"})
        rest = {call for name, calls in self.seen.items() if name not in readers for call in calls}
        return EqualizationPair(self.first, readers) if readers and rest <= {"same"} else None

    def _multiply(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * self.factors

    def _read(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        calls = self.seen[name]
        before, now = self.plain.inputs[name][len(calls)], args[0]
        fits = before.shape[-1] == len(self.factors)
        if torch.equal(now, before):
            calls.append("same")
        elif fits and torch.equal(now, before * self.factors):
            calls.append("multiplied")
        else:
            calls.append("other")
        return (before, *args[1:])

    def _observe_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        same = [torch.equal(*both) for both in zip(_tensors(output), self.plain.outputs, strict=True)]
        self.seen["the caller"].append("same" if all(same) else "other")


def _tensors(output: Any) -> list[Tensor]:
    items = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else [output]
    )
    return [item for item in items if isinstance(item, Tensor)]
