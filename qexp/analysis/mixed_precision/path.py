"""Mixed precision: pairs of bits for each group of sites, from the most precise on down.

Groups are lowered one by one, always the one that adds the least noise for what it saves. The noise of a
group is that of the logits with only its sites quantized; noises of groups are taken as adding up, which is
an estimate: what an assignment scores is measured by whoever asks for a point of the path.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from qexp.analysis.mixed_precision.groups import Group
from qexp.config import FLOAT_BITS
from qexp.errors import QuantizationError
from qexp.quant.cost import Product, Stored, Work

AHEAD = 2
"""Points of the path that are tried beyond the last one that bisection found good."""


class Pair(NamedTuple):
    """Bits of the weights and of the activations of a group; 32 is floating point."""

    weight: int
    activation: int

    @property
    def name(self) -> str:
        """As an option of ``quant``."""
        return f"w{self.weight}a{self.activation}"

    @classmethod
    def parse(cls, text: str) -> Pair:
        """From its name.

        Raises:
            QuantizationError: it is no name of a pair.
        """
        found = re.fullmatch(r"w(\d+)a(\d+)", text)
        widths = (*range(2, 17), FLOAT_BITS)
        if not found or not all(int(bits) in widths for bits in found.groups()):
            raise QuantizationError(
                f"--bits {text!r}: no pair of bit-widths; write them as w4a8, each of 2 to 16 bits, or "
                f"{FLOAT_BITS} for floating point"
            )
        return cls(*map(int, found.groups()))


def pairs_of(words: str) -> tuple[Pair, ...]:
    """The candidates of ``w4a8,w8a8``.

    Raises:
        QuantizationError: one is no pair, or there are fewer than two.
    """
    found = tuple(dict.fromkeys(Pair.parse(word.strip()) for word in words.split(",")))
    if len(found) < 2:
        raise QuantizationError(f"--bits {words}: name at least two pairs to choose from, such as w4a8,w8a8")
    return found


Assignment = tuple[Pair, ...]
"""A pair for each group, in their order."""
Noise = Mapping[tuple[int, Pair], float]
"""By index of a group and pair: of the logits, with only that group quantized so."""


@dataclass(frozen=True)
class Costs:
    """What assignments cost, in bit operations or in bytes."""

    work: Work
    groups: tuple[Group, ...]
    weights: frozenset[str]
    """Quantizers of weights; all others are of activations."""
    unit: Literal["bops", "bytes"]

    def bits(self, assignment: Assignment) -> dict[str, int]:
        """Bits by quantizer."""
        groups = zip(self.groups, assignment, strict=True)
        return {name: bits for group, pair in groups for name, bits in self._bits(group, pair)}

    def total(self, assignment: Assignment) -> int:
        """Of the whole model."""
        bits = self.bits(assignment)
        return self.work.bops(bits) if self.unit == "bops" else self.work.bytes(bits)

    def saved(self, bits: Mapping[str, int], index: int, pair: Pair) -> int:
        """What another pair saves at one group; less than nothing where it costs more."""
        after = {**bits, **dict(self._bits(self.groups[index], pair))}
        return sum(_cost(item, bits) - _cost(item, after) for item in self._touched[index])

    def _bits(self, group: Group, pair: Pair) -> Iterator[tuple[str, int]]:
        for name in group.quantizers:
            yield name, pair.weight if name in self.weights else pair.activation

    @cached_property
    def _touched(self) -> Sequence[Sequence[Product | Stored]]:
        """What of the work depends on each group."""
        items: Sequence[Product | Stored] = self.work.products if self.unit == "bops" else self.work.stored
        of: dict[str | None, list[Product | Stored]] = defaultdict(list)
        for item in items:
            for name in {*(item.operands if isinstance(item, Product) else (item.quantizer,))}:
                of[name].append(item)
        return [
            list({id(item): item for name in group.quantizers for item in of[name]}.values())
            for group in self.groups
        ]


def _cost(item: Product | Stored, bits: Mapping[str, int]) -> int:
    return item.bops(bits) if isinstance(item, Product) else item.bytes(bits)


def downhill(costs: Costs, pairs: Sequence[Pair], noise: Noise) -> list[Assignment]:
    """From all groups at the most precise pair to where nothing more can be saved, one step for each move."""
    path = [(most_precise(pairs),) * len(costs.groups)]
    while move := _least_noise(costs, pairs, noise, path[-1]):
        path.append(_replaced(path[-1], *move))
    return path


def most_precise(pairs: Sequence[Pair]) -> Pair:
    """The pair with the most bits to multiply."""
    return max(pairs, key=lambda pair: (pair.weight * pair.activation, pair))


def _least_noise(
    costs: Costs, pairs: Sequence[Pair], noise: Noise, assignment: Assignment
) -> tuple[int, Pair] | None:
    """The move that adds the least noise for what it saves; None where none saves anything."""
    bits = costs.bits(assignment)
    found = [
        (_added(noise, index, now, pair) / saved, -saved, index, pair)
        for index, now in enumerate(assignment)
        for pair in pairs
        if pair != now and (saved := costs.saved(bits, index, pair)) > 0
    ]
    return min(found)[2:] if found else None


def within(costs: Costs, pairs: Sequence[Pair], noise: Noise, budget: float) -> Assignment:
    """The first point of the path that costs no more, with what still fits given back to the noisiest groups.

    Raises:
        QuantizationError: no assignment of these pairs is so cheap.
    """
    path = downhill(costs, pairs, noise)
    found = next((each for each in path if costs.total(each) <= budget), None)
    if found is None:
        raise QuantizationError(
            f"the cheapest assignment of {', '.join(pair.name for pair in pairs)} has "
            f"{costs.total(path[-1])} {costs.unit}, the budget is {budget:.0f}: raise it, or add narrower "
            "pairs with --bits"
        )
    while move := _most_relief(costs, pairs, noise, found, budget - costs.total(found)):
        found = _replaced(found, *move)
    return found


def _most_relief(
    costs: Costs, pairs: Sequence[Pair], noise: Noise, assignment: Assignment, room: float
) -> tuple[int, Pair] | None:
    bits = costs.bits(assignment)
    found = [
        (added, -index, pair)
        for index, now in enumerate(assignment)
        for pair in pairs
        if (added := _added(noise, index, now, pair)) < 0 and -costs.saved(bits, index, pair) <= room
    ]
    if not found:
        return None
    _, index, pair = min(found)
    return -index, pair


def furthest(path: Sequence[Assignment], good: Callable[[Assignment], bool]) -> Assignment | None:
    """The last good point of a path, by bisection, and as good ones may follow bad ones, a look ahead.

    None where even the first one is not good.
    """
    if not good(path[0]):
        return None
    low, high = 0, len(path)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(path[middle]) else (low, middle)
    ahead = [index for index in range(low + 2, min(low + 2 + AHEAD, len(path))) if good(path[index])]
    return path[max([low, *ahead])]


def shares(work: Work, bits: Mapping[str, int]) -> dict[str, float]:
    """Share of the bit operations by what is multiplied: ``w4a8``, or ``a8a8`` of two activations."""
    found: Counter[str] = Counter()
    for product in work.products:
        left, right = (bits.get(name or "", FLOAT_BITS) for name in product.operands)
        name = f"a{left}a{right}" if product.reads is None else f"w{right}a{left}"
        found[name] += product.bops(bits)
    return {name: count / found.total() for name, count in found.most_common()}


def _added(noise: Noise, index: int, before: Pair, after: Pair) -> float:
    old, new = noise[index, before], noise[index, after]
    return 0.0 if old == new == math.inf else new - old


def _replaced(assignment: Assignment, index: int, pair: Pair) -> Assignment:
    return (*assignment[:index], pair, *assignment[index + 1 :])
