"""Greedy path of mixed-precision assignments, from the most precise one to the cheapest.

Each step lowers the bit-widths of one group, the one that adds the least noise for what it saves. The noise
of a group is that of the logits with only its sites quantized. The noise of an assignment is taken as the sum
over its groups, which is an estimate: callers measure the score of the assignments that they use.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from qexp.analysis.mixed_precision.groups import QuantizerGroup
from qexp.config import FLOAT_BITS
from qexp.errors import QuantizationError
from qexp.quant.cost import ForwardCost, MatmulGroup, StoredParameters

AHEAD = 2
"""Number of points of the path to try beyond the last acceptable one of the bisection."""


class BitWidthPair(NamedTuple):
    """Bit-widths of the weights and the activations of a group; 32 is floating point."""

    weight: int
    activation: int

    @property
    def name(self) -> str:
        """Name in the form of the ``quant`` option, such as ``w4a8``."""
        return f"w{self.weight}a{self.activation}"

    @classmethod
    def parse(cls, text: str) -> BitWidthPair:
        """Parse a name such as ``w4a8``.

        Raises:
            QuantizationError: If ``text`` is not the name of a pair.
        """
        match = re.fullmatch(r"w(\d+)a(\d+)", text)
        widths = (*range(2, 17), FLOAT_BITS)
        if not match or not all(int(bits) in widths for bits in match.groups()):
            raise QuantizationError(
                f"--bits {text!r}: no pair of bit-widths; write them as w4a8, each of 2 to 16 bits, or "
                f"{FLOAT_BITS} for floating point"
            )
        return cls(*map(int, match.groups()))


def pairs_of(words: str) -> tuple[BitWidthPair, ...]:
    """Parse comma-separated pairs such as ``w4a8,w8a8``.

    Raises:
        QuantizationError: If a name is not that of a pair, or there are fewer than two pairs.
    """
    pairs = tuple(dict.fromkeys(BitWidthPair.parse(word.strip()) for word in words.split(",")))
    if len(pairs) < 2:
        raise QuantizationError(f"--bits {words}: name at least two pairs to choose from, such as w4a8,w8a8")
    return pairs


Assignment = tuple[BitWidthPair, ...]
"""Pair of bit-widths of each group, in the order of the groups."""
Noise = Mapping[tuple[int, BitWidthPair], float]
"""Noise of the logits by index of a group and its pair, with only that group quantized."""


@dataclass(frozen=True)
class Costs:
    """Cost function of assignments, in bit operations or in bytes."""

    work: ForwardCost
    groups: tuple[QuantizerGroup, ...]
    weights: frozenset[str]
    """Names of weight quantizers; all others quantize activations."""
    unit: Literal["bops", "bytes"]

    def bits(self, assignment: Assignment) -> dict[str, int]:
        """Return the bit-width of each quantizer."""
        groups = zip(self.groups, assignment, strict=True)
        return {name: bits for group, pair in groups for name, bits in self._bits(group, pair)}

    def total(self, assignment: Assignment) -> int:
        """Return the cost of the whole model."""
        bits = self.bits(assignment)
        return self.work.bops(bits) if self.unit == "bops" else self.work.bytes(bits)

    def saved(self, bits: Mapping[str, int], index: int, pair: BitWidthPair) -> int:
        """Return what another pair saves at one group; negative if it costs more."""
        after = {**bits, **dict(self._bits(self.groups[index], pair))}
        return sum(_cost(item, bits) - _cost(item, after) for item in self._touched[index])

    def _bits(self, group: QuantizerGroup, pair: BitWidthPair) -> Iterator[tuple[str, int]]:
        for name in group.quantizers:
            yield name, pair.weight if name in self.weights else pair.activation

    @cached_property
    def _touched(self) -> Sequence[Sequence[MatmulGroup | StoredParameters]]:
        """Matmuls, or stored parameters, whose cost depends on each group."""
        items: Sequence[MatmulGroup | StoredParameters] = (
            self.work.products if self.unit == "bops" else self.work.stored
        )
        by_quantizer: dict[str | None, list[MatmulGroup | StoredParameters]] = defaultdict(list)
        for item in items:
            for name in {*(item.operands if isinstance(item, MatmulGroup) else (item.quantizer,))}:
                by_quantizer[name].append(item)
        return [
            list({id(item): item for name in group.quantizers for item in by_quantizer[name]}.values())
            for group in self.groups
        ]


def _cost(item: MatmulGroup | StoredParameters, bits: Mapping[str, int]) -> int:
    return item.bops(bits) if isinstance(item, MatmulGroup) else item.bytes(bits)


def greedy_path(costs: Costs, pairs: Sequence[BitWidthPair], noise: Noise) -> list[Assignment]:
    """Return the path from all groups at the most precise pair until no step saves anything more."""
    path = [(most_precise(pairs),) * len(costs.groups)]
    while advance := _least_noise(costs, pairs, noise, path[-1]):
        path.append(_replaced(path[-1], *advance))
    return path


def most_precise(pairs: Sequence[BitWidthPair]) -> BitWidthPair:
    """Return the pair with the largest product of bit-widths."""
    return max(pairs, key=lambda pair: (pair.weight * pair.activation, pair))


def _least_noise(
    costs: Costs, pairs: Sequence[BitWidthPair], noise: Noise, assignment: Assignment
) -> tuple[int, BitWidthPair] | None:
    """Return the step that adds the least noise per saved cost; None if no step saves anything."""
    bits = costs.bits(assignment)
    steps = [
        (_added(noise, index, current, pair) / saved, -saved, index, pair)
        for index, current in enumerate(assignment)
        for pair in pairs
        if pair != current and (saved := costs.saved(bits, index, pair)) > 0
    ]
    return min(steps)[2:] if steps else None


def cheapest_within(costs: Costs, pairs: Sequence[BitWidthPair], noise: Noise, budget: float) -> Assignment:
    """Return the first point of the path within the budget, after the remaining budget went to noisy groups.

    Raises:
        QuantizationError: If no assignment of these pairs is within the budget.
    """
    path = greedy_path(costs, pairs, noise)
    assignment = next((each for each in path if costs.total(each) <= budget), None)
    if assignment is None:
        raise QuantizationError(
            f"the cheapest assignment of {', '.join(pair.name for pair in pairs)} has "
            f"{costs.total(path[-1])} {costs.unit}, the budget is {budget:.0f}: raise it, or add narrower "
            "pairs with --bits"
        )
    while advance := _most_relief(
        costs, pairs, noise=noise, assignment=assignment, room=budget - costs.total(assignment)
    ):
        assignment = _replaced(assignment, *advance)
    return assignment


def _most_relief(
    costs: Costs, pairs: Sequence[BitWidthPair], noise: Noise, assignment: Assignment, room: float
) -> tuple[int, BitWidthPair] | None:
    bits = costs.bits(assignment)
    steps = [
        (added, -index, pair)
        for index, current in enumerate(assignment)
        for pair in pairs
        if (added := _added(noise, index, current, pair)) < 0 and -costs.saved(bits, index, pair) <= room
    ]
    if not steps:
        return None
    _, index, pair = min(steps)
    return -index, pair


def bisect_last_acceptable(
    path: Sequence[Assignment], good: Callable[[Assignment], bool]
) -> Assignment | None:
    """Return the last acceptable point of a path, or None if the first one is not acceptable.

    After the bisection, the next ``AHEAD`` points are tried, as acceptable points may follow others.
    """
    if not good(path[0]):
        return None
    low, high = 0, len(path)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(path[middle]) else (low, middle)
    ahead = [index for index in range(low + 2, min(low + 2 + AHEAD, len(path))) if good(path[index])]
    return path[max([low, *ahead])]


def shares(work: ForwardCost, bits: Mapping[str, int]) -> dict[str, float]:
    """Return the share of bit operations by operands: ``w4a8``, or ``a8a8`` for two activations."""
    operations: Counter[str] = Counter()
    for product in work.products:
        left, right = (bits.get(name or "", FLOAT_BITS) for name in product.operands)
        name = f"a{left}a{right}" if product.reads is None else f"w{right}a{left}"
        operations[name] += product.bops(bits)
    return {name: count / operations.total() for name, count in operations.most_common()}


def _added(noise: Noise, index: int, before: BitWidthPair, after: BitWidthPair) -> float:
    old, new = noise[index, before], noise[index, after]
    return 0.0 if old == new == math.inf else new - old


def _replaced(assignment: Assignment, index: int, pair: BitWidthPair) -> Assignment:
    return (*assignment[:index], pair, *assignment[index + 1 :])
