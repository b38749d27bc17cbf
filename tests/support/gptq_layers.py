"""GPTQ here and in two libraries, on the layers of a checkpoint and the moments that a run kept of real rows.

    python -m qexp task=stsb_embedding quant=w4a8 method=ptq refinement=gptq deploy=none
    ENV/bin/python -m tests.support.gptq_layers outputs/artifacts/2-fp32/KEY/model/model.safetensors \
        outputs/artifacts/3-moments/KEY/moments.safetensors [--layers '*layer.0.*']

ENV is that of :mod:`tests.support.other_gptq`. For each library, bit-width and order of columns it prints the
share of equal integers, over all weights and in the worst layer; and the error of the integers here over that
of the other ones and over that of nearest levels, means over the layers. Scales have the least squared error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from qexp.quant.algorithms.gptq import gptq
from qexp.quant.algorithms.rounding import RoundingProblem
from qexp.quant.grid import Grid, quantize
from tests.support.other_gptq import DAMPING, Layer, brevitas, modelopt

Library = Callable[[Layer], Tensor]


@dataclass(frozen=True)
class Agreement:
    """Integers of one layer beside those of a library."""

    equal: int
    weights: int
    error: float
    """Error over that of the library."""
    gain: float
    """Error over that of nearest levels."""

    @property
    def share(self) -> float:
        """Share of equal integers."""
        return self.equal / self.weights


def layers(checkpoint: Path, moments: Path, glob: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weight [out, in] and the second moments [in, in] of each layer whose name matches."""
    with safe_open(checkpoint, framework="pt") as weights, safe_open(moments, framework="pt") as sums:
        for name, value in json.loads(sums.metadata()["layers"]).items():
            if fnmatchcase(name, glob):
                yield weights.get_tensor(f"{name}.weight").float(), sums.get_tensor(f"{value}/gram")


def least_squares(weight: Tensor, levels: int) -> Tensor:
    """Return the scale of each row [out] that leaves the smallest squared error, of 71 candidates."""
    scales = torch.linspace(0.3, 1, 71)[:, None] * weight.abs().amax(1) / levels
    errors = [
        ((weight / scale[:, None]).round().clamp(-levels, levels) * scale[:, None] - weight).square().sum(1)
        for scale in scales
    ]
    return scales.gather(0, torch.stack(errors).argmin(0)[None])[0]


def agreement(case: Layer, bits: int, library: Library) -> Agreement:
    """Round a layer here and by a library."""
    grid = Grid(bits, signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = case.scale[:, 0], torch.zeros(len(case.scale), dtype=torch.int32)
    posed = RoundingProblem.of(case.weight, scale, zero, grid=grid, gram=case.gram)
    result = gptq(
        case.weight, scale, zero, grid=grid, gram=case.gram, damping=DAMPING,
        activation_order=case.activation_order,
    )  # fmt: skip
    other = (library(case) / case.scale).round()
    equal = int((quantize(result.weight, scale, zero, grid) == other).sum())
    return Agreement(equal, other.numel(), result.error / float(posed.row_errors(other).sum()), result.ratio)


def main() -> None:
    """Print a line for each library, bit-width and order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("moments", type=Path)
    parser.add_argument("--layers", default="*", metavar="GLOB")
    options = parser.parse_args()
    given = list(layers(options.checkpoint, options.moments, options.layers))
    for bits, order, library in product((4, 3), (False, True), (modelopt, brevitas)):
        levels = 2 ** (bits - 1) - 1
        found = [
            agreement(
                Layer(weight, least_squares(weight, levels)[:, None], gram, levels, order), bits, library
            )
            for weight, gram in given
        ]
        equal = sum(each.equal for each in found) / sum(each.weights for each in found)
        print(
            f"{library.__name__}, {bits} bits, by {'activation' if order else 'index'}, {len(found)} layers: "
            f"equal {equal:.3%}, at least {min(each.share for each in found):.3%}; error over the other's "
            f"{sum(each.error for each in found) / len(found):.4f}, over nearest "
            f"{sum(each.gain for each in found) / len(found):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
