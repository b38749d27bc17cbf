"""Calibration passes of the peers that need no package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.observers import BINS, PASSES, Histogram, brevitas_pass, hooks_pass
from benchmarks.shapes import SHAPES, Family, batch_of


def test_histc_counts_what_lies_in_the_range_of_the_first_batch() -> None:
    histogram = Histogram()
    histogram(torch.tensor([-1.0, 0.0, 1.0]))
    histogram(torch.tensor([-5.0, 0.5, 1.0]))
    assert histogram.ends == (-1.0, 1.0)
    assert (histogram.low, histogram.high) == (-5.0, 1.0)
    assert histogram.counts.sum() == 5 and histogram.counts[-1] == 2 and len(histogram.counts) == BINS


@pytest.mark.parametrize(("sites", "watched"), [("linear", 14), ("qdqbert", 14 + 8 + 8)])
def test_a_pass_begins_anew_and_sees_every_batch(sites: str, watched: int) -> None:
    made: list[nn.Module] = []

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0
            made.append(self)

        def forward(self, x: torch.Tensor) -> None:
            self.seen += 1

    shape = SHAPES["tiny"]
    batches = [batch_of(shape, 2, 8, seed) for seed in range(3)]
    run = hooks_pass(Family(shape).build(), sites, batches, observer=Counter)
    for _ in range(2):
        made.clear()
        run()
        assert [counter.seen for counter in made] == [3] * watched


def test_sites_that_a_peer_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="does not quantize the sites of qdqbert"):
        brevitas_pass(None, "qdqbert", [])


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.filterwarnings("default")
def test_a_pass_runs_again_and_again(name: str) -> None:
    module = name.partition(" ")[0]
    if module in ("modelopt", "brevitas"):
        pytest.importorskip(module)
    shape = SHAPES["tiny"]
    model = Family(shape).build()
    batches = [batch_of(shape, 2, 8, seed) for seed in range(2)]
    run = PASSES[name](model, "linear", batches)
    run()
    run()
