"""Tests of the greedy path on synthetic costs and noises."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.analysis.mixed_precision.groups import QuantizerGroup, groups_of
from qexp.analysis.mixed_precision.overrides import quant_of, schemes_of
from qexp.analysis.mixed_precision.path import (
    Assignment,
    BitWidthPair,
    Costs,
    Noise,
    bisect_last_acceptable,
    cheapest_within,
    greedy_path,
    most_precise,
    pairs_of,
    shares,
)
from qexp.config import Override, Quant, QuantizationConfig, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.cost import ForwardCost, MatmulGroup, StoredParameters, work_of
from qexp.quant.insertion.insert import insert
from tests.support.tiny_models import NEURST, QDQBERT, build, calibrated

PAIRS = (BitWidthPair(4, 8), BitWidthPair(8, 8), BitWidthPair(8, 16))


def is_synthetic(sizes: list[int], unit: str = "bops") -> Costs:
    """Linear layers of so many weights, each multiplied once."""
    names = [(f"{index}:w", f"{index}:a") for index in range(len(sizes))]
    work = ForwardCost(
        1,
        tuple(
            MatmulGroup(str(index), size, (a, w), index)
            for index, (size, (w, a)) in enumerate(zip(sizes, names, strict=True))
        ),
        tuple(StoredParameters(w, size, 1, 0) for size, (w, _) in zip(sizes, names, strict=True)),
        floats=3,
    )
    groups = tuple(QuantizerGroup(str(index), pair) for index, pair in enumerate(names))
    return Costs(work, groups, frozenset(w for w, _ in names), unit)  # type: ignore[arg-type]


def brute(costs: Costs, noise: Noise, budget: float) -> float:
    """The least sum of noises within a budget, of all assignments."""
    every = product(PAIRS, repeat=len(costs.groups))
    return min((total(noise, each) for each in every if costs.total(each) <= budget), default=math.inf)


def total(noise: Noise, assignment: Assignment) -> float:
    return sum(noise[index, pair] for index, pair in enumerate(assignment))


def test_costs_are_those_of_the_work() -> None:
    costs = is_synthetic([100, 30])
    assert costs.total((BitWidthPair(4, 8), BitWidthPair(8, 16))) == 100 * 32 + 30 * 128
    assert (
        is_synthetic([100, 30], "bytes").total((BitWidthPair(4, 8), BitWidthPair(8, 16)))
        == 50 + 4 + 30 + 4 + 12
    )
    bits = costs.bits((BitWidthPair(8, 16), BitWidthPair(8, 16)))
    assert costs.saved(bits, 0, BitWidthPair(4, 8)) == 100 * (128 - 32)
    assert costs.saved(bits, 1, BitWidthPair(8, 16)) == 0


noises = st.lists(st.tuples(*[st.floats(0.001, 1.0)] * 3), min_size=1, max_size=4)


@given(noises, st.lists(st.integers(1, 50), min_size=4, max_size=4), st.floats(0.0, 1.0))
def test_the_walk_only_gets_cheaper_and_a_budget_is_kept(
    drawn: list[tuple[float, float, float]], sizes: list[int], share: float
) -> None:
    costs = is_synthetic(sizes[: len(drawn)])
    noise = {
        (index, pair): value
        for index, values in enumerate(drawn)
        for pair, value in zip(PAIRS, sorted(values, reverse=True), strict=True)
    }
    path = greedy_path(costs, PAIRS, noise)
    assert path[0] == (BitWidthPair(8, 16),) * len(drawn)
    assert path[-1] == (BitWidthPair(4, 8),) * len(drawn)
    assert all(costs.total(first) > costs.total(second) for first, second in pairwise(path))
    budget = costs.total(path[-1]) + share * (costs.total(path[0]) - costs.total(path[-1]))
    result = cheapest_within(costs, PAIRS, noise, budget)
    assert costs.total(result) <= budget
    assert total(noise, result) >= brute(costs, noise, budget) - 1e-12
    assert share < 1 or result == path[0]


def test_the_noisy_group_keeps_its_bits() -> None:
    costs = is_synthetic([10, 10, 10])
    noise = {(index, pair): 0.0 for index in range(3) for pair in PAIRS}
    noise |= {(1, BitWidthPair(4, 8)): 1.0, (1, BitWidthPair(8, 8)): 0.5}
    result = cheapest_within(
        costs, PAIRS, noise, costs.total((BitWidthPair(4, 8), BitWidthPair(8, 16), BitWidthPair(4, 8)))
    )
    assert result == (BitWidthPair(4, 8), BitWidthPair(8, 16), BitWidthPair(4, 8))


def test_room_that_is_left_goes_to_the_noisiest() -> None:
    """The walk lowers the big layer and lands far below the budget: the small ones get their bits back."""
    costs = is_synthetic([1000, 10, 10])
    noise = {(index, pair): 0.0 for index in range(3) for pair in PAIRS}
    noise |= {(index, pair): 0.001 for index in (1, 2) for pair in (BitWidthPair(4, 8), BitWidthPair(8, 8))}
    noise |= {(0, BitWidthPair(4, 8)): 5.0, (0, BitWidthPair(8, 8)): 5.0}
    budget = costs.total((BitWidthPair(8, 8), BitWidthPair(8, 16), BitWidthPair(8, 16)))
    assert cheapest_within(costs, PAIRS, noise, budget)[1:] == (BitWidthPair(8, 16), BitWidthPair(8, 16))


def test_what_breaks_the_model_comes_last() -> None:
    costs = is_synthetic([10, 1])
    noise = {(index, pair): 0.1 for index in range(2) for pair in PAIRS} | {(0, BitWidthPair(4, 8)): math.inf}
    path = greedy_path(costs, PAIRS, noise)
    assert path[-2] == (BitWidthPair(8, 8), BitWidthPair(4, 8))
    assert path[-1] == (BitWidthPair(4, 8), BitWidthPair(4, 8))


def test_no_budget_is_too_small_in_silence() -> None:
    costs = is_synthetic([10])
    noise = {(0, pair): 0.1 for pair in PAIRS}
    with pytest.raises(
        QuantizationError, match=r"has 320 bops, the budget is 319: raise it, or add narrower"
    ):
        cheapest_within(costs, PAIRS, noise, 319)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_bisection_finds_a_good_point_and_the_last_where_good_ones_come_first(drawn: list[bool]) -> None:
    path: list[Assignment] = [(BitWidthPair(8, index),) for index in range(len(drawn))]
    asked = []

    def good(point: Assignment) -> bool:
        asked.append(point)
        return drawn[point[0].activation]

    result = bisect_last_acceptable(path, good)
    if not drawn[0]:
        assert result is None
        return
    assert result is not None
    assert drawn[result[0].activation]
    assert result in asked, "what is found was tried"
    if drawn == sorted(drawn, reverse=True):
        assert result[0].activation == sum(drawn) - 1
    assert len(asked) <= 1 + len(drawn).bit_length() + 2


def test_names_of_pairs() -> None:
    assert pairs_of("w8a8, w4a16,w8a8") == (BitWidthPair(8, 8), BitWidthPair(4, 16))
    assert most_precise((BitWidthPair(16, 4), BitWidthPair(8, 8), BitWidthPair(4, 16))) == BitWidthPair(16, 4)
    assert BitWidthPair.parse("w32a8").name == "w32a8"


def test_shares_are_of_bit_operations() -> None:
    work = ForwardCost(1, (MatmulGroup("l", 10, ("a", "w"), 0), MatmulGroup("m", 10, ("a", "b"))), (), 0)
    assert shares(work, {"a": 8, "w": 4, "b": 8}) == {"a8a8": 64 / 96, "w4a8": 32 / 96}
    assert shares(work, {}) == {"w32a32": 0.5, "a32a32": 0.5}


@pytest.mark.parametrize("placement", [QDQBERT, NEURST], ids=lambda placement: placement.name)
@pytest.mark.parametrize("architecture", ["bert", pytest.param("distilbert", marks=pytest.mark.slow)])
@given(data=st.data())
def test_overrides_say_an_assignment_exactly(
    architecture: str, placement: object, data: st.DataObject
) -> None:
    model, sites, groups, weights = known(architecture, placement.name)  # type: ignore[attr-defined]
    pairs = st.sampled_from((*PAIRS, BitWidthPair(32, 8), BitWidthPair(4, 32)))
    assignment = tuple(data.draw(pairs) for _ in groups)
    quant = quant_of(groups, assignment, sites)
    quantization = insert(model, QuantizationConfig(placement=placement, quant=quant))  # type: ignore[arg-type]
    result = quantization.bits
    quantization.remove()
    costs = Costs(ForwardCost(1, (), (), 0), groups, weights, "bops")
    assert result == {name: bits for name, bits in costs.bits(assignment).items() if bits != 32}
    assert all(len(each) <= len(groups) * 4 for each in [quant.overrides])


_known: dict[tuple[str, str], tuple[object, ...]] = {}


def known(architecture: str, placement: str) -> tuple:  # type: ignore[type-arg]
    """A float model with its sites and groups; made once."""
    if (architecture, placement) not in _known:
        model = build(architecture)
        quant_config = {"qdqbert": QDQBERT, "neurst": NEURST}[placement]
        quantization = calibrated(model, placement=quant_config)
        sites = quantization.sites
        groups = groups_of(sites, work_of(quantization))
        quantization.remove()
        weights = frozenset(site.quantizer for site in sites if site.is_weight)
        _known[architecture, placement] = model, sites, groups, weights
    return _known[architecture, placement]


def test_one_name_of_a_module_stands_for_all_of_its_sites() -> None:
    _, sites, groups, _ = known("bert", "qdqbert")
    lowered = tuple(
        BitWidthPair(4, 8) if "output.dense" in group.name else BitWidthPair(8, 8) for group in groups
    )
    assert set(quant_of(groups, lowered, sites).overrides) == {
        f"bert.encoder.layer.{layer}.{part}output.dense" for layer in (0, 1) for part in ("", "attention.")
    }


def test_a_name_that_looks_like_a_glob_is_taken_as_it_is() -> None:
    from qexp.quant.insertion.sites import Site

    sites = (Site("linear.weight", "a[0].b*", "q"), Site("linear.weight", "a0.bc", "r"))
    groups = (QuantizerGroup("g", ("q",)), QuantizerGroup("h", ("r",)), QuantizerGroup("i", ()))
    named = quant_of(groups, (BitWidthPair(4, 8), BitWidthPair(8, 8), BitWidthPair(8, 8)), sites).overrides
    assert set(named) == {"a[[]0].b[*]"}


def test_schemes_of_overrides_stay() -> None:
    scheme = WeightScheme(granularity="per_tensor")
    quant = Quant(
        overrides={"classifier": Override(weight_bits=4, weight=scheme), "x": Override(weight_bits=2)}
    )
    kept = schemes_of(quant)
    assert kept == {"classifier": Override(weight=scheme)}
    _, sites, groups, _ = known("bert", "qdqbert")
    assignment = tuple(
        BitWidthPair(4, 8) if group.name == "classifier" else BitWidthPair(8, 8) for group in groups
    )
    assert quant_of(groups, assignment, sites, kept).overrides == {
        "classifier": Override(weight_bits=4, weight=scheme)
    }
