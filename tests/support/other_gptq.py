"""GPTQ by NVIDIA's Model Optimizer and by Brevitas, on the same layers, moments and grids.

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 numpy nvidia-modelopt==0.47.0 brevitas==0.13.4 \
        requests huggingface_hub safetensors
    ENV/bin/python -m tests.support.other_gptq > tests/quant/algorithms/gptq_golden.json

prints the integers of each case. Model Optimizer has no activation order; it gets the columns in that order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DAMPING = 0.01


@dataclass(frozen=True)
class Layer:
    """A weight [out, in], its scales [out], and second moments of its input [in, in]."""

    weight: Tensor
    scale: Tensor
    gram: Tensor
    levels: int
    """Largest level; the smallest is its negative."""
    activation_order: bool

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """Return the nearest values of the grid."""
        return (weight / self.scale).round().clamp(-self.levels, self.levels) * self.scale


def layer(bits: int, *, activation_order: bool, width: int = 144, rows: int = 8) -> Layer:
    """Make a layer whose inputs depend on each other, have a mean, and differ in size."""
    rng = np.random.default_rng(bits)
    mixed = rng.standard_normal((width, width)) * np.exp(rng.standard_normal(width))
    x = rng.standard_normal((4 * width, width)) @ mixed + rng.standard_normal(width)
    weight = torch.from_numpy(rng.standard_normal((rows, width)).astype(np.float32))
    levels = 2 ** (bits - 1) - 1
    gram = torch.from_numpy((x.T @ x / len(x)).astype(np.float32))
    return Layer(weight, 0.8 * weight.abs().amax(1, keepdim=True) / levels, gram, levels, activation_order)


LAYERS = {
    f"{bits} bits, by {'activation' if order else 'index'}": layer(bits, activation_order=order)
    for bits in (2, 3, 4, 8)
    for order in (False, True)
}
"""Layers by the name of their case."""


def modelopt(given: Layer) -> Tensor:
    """Return the rounded weight of Model Optimizer."""
    from modelopt.torch.quantization.utils import calib_utils

    order = torch.arange(len(given.gram))
    if given.activation_order:
        order = given.gram.diagonal().argsort(descending=True)
    weight = given.weight[:, order].clone()
    factor = calib_utils.compute_hessian_inverse(given.gram[order][:, order], weight, DAMPING)
    calib_utils.gptq_blockwise_update(weight, factor, 128, given.fake_quantize)
    return weight[:, order.argsort()]


def brevitas(given: Layer) -> Tensor:
    """Return the rounded weight of Brevitas."""
    from brevitas.graph.gptq import GPTQ

    rounded = torch.empty_like(given.weight)

    class Columns(GPTQ):  # type: ignore[misc]
        """Algorithm of Brevitas, with the grid of the case."""

        def get_quant_weights(self, i: int, i1: int, permutation_list: list[Tensor], **_: Any) -> Tensor:
            """Return the fake-quantized column that is next."""
            column = permutation_list[0][i1 + i]
            rounded[:, column] = given.fake_quantize(self.layer.weight.data[:, column, None])[:, 0]
            return rounded[None, :, column]

    linear: Any = nn.Linear(given.weight.shape[1], len(given.weight), bias=False)
    linear.weight.data = given.weight.clone()
    linear.weight_quant = SimpleNamespace(requires_quant_input=False)
    algorithm = Columns(linear, "layer", given.activation_order, 1, create_weight_orig=False, num_blocks=2)
    algorithm.H = given.gram[None].clone()
    algorithm.single_layer_update(percdamp=DAMPING)
    return rounded


def main() -> None:
    """Print the integers of both libraries."""
    found = {
        name: {
            library.__name__: (library(given) / given.scale).round().int().tolist()
            for library in (modelopt, brevitas)
        }
        for name, given in LAYERS.items()
    }
    print(json.dumps(found, separators=(",", ":")))


if __name__ == "__main__":
    main()
