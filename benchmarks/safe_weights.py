"""What weights that cannot saturate cost: signal over noise of a checkpoint's linear layers.

    python -m benchmarks.safe_weights CHECKPOINT        # a folder, or a name on the hub

On a CPU without VNNI pairs of 8-bit products are added in 16 bits (:mod:`qexp.deploy.onnx.saturation`).
Compared are weights of 8 and 7 bits with ranges of least squares, 8 bits where a channel cannot saturate and
7 elsewhere, and 8 bits whose ranges are as wide as the largest pair of each channel needs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict

import torch
from torch import Tensor, nn

from benchmarks.harness import table
from qexp.config import MseCalibrator, WeightScheme
from qexp.deploy.onnx.saturation import SAFE_PAIR, largest_pairs
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.grid import Grid, dequantize, quantize, scale_and_zero_point, weight_grid

CALIBRATOR = MseCalibrator(kind="mse", weights="mse")


def forms(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return a weight [out, in] in each form, and whether each channel of 8 bits cannot saturate."""
    wide, eight = _quantized(weight, 8)
    _, seven = _quantized(weight, 7)
    safe = torch.from_numpy(largest_pairs(wide.numpy(), 1) <= SAFE_PAIR)
    sums = torch.from_numpy(largest_pairs(weight.numpy(), 1))
    # Each of a pair rounds by at most a half, so that a sum of 127 steps stays within 128.
    scale = (sums / (SAFE_PAIR - 1)).clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    mixed = torch.where(safe[:, None], eight, seven)
    by_pairs = (weight / scale).round() * scale
    names = ("8 bits", "7 bits", "8 bits where safe, else 7", "8 bits, ranges by pairs")
    return dict(zip(names, (eight, seven, mixed, by_pairs), strict=True)), safe


def _quantized(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    grid = weight_grid(bits, WeightScheme())
    assert isinstance(grid, Grid)
    scale, zero = scale_and_zero_point(*weight_range(weight, CALIBRATOR, grid), grid)
    integers = quantize(weight, scale, zero, grid)
    return integers, dequantize(integers, scale, zero, grid)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    from transformers import AutoModel

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="a folder, or a name on the hub")
    model = AutoModel.from_pretrained(parser.parse_args(arguments).checkpoint)
    signal, noise, counts = 0.0, defaultdict[str, float](float), [0, 0]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight.detach()
            found, safe = forms(weight)
            counts = [counts[0] + int(safe.sum()), counts[1] + len(safe)]
            signal += float(weight.square().sum())
            for name, each in found.items():
                noise[name] += float((each - weight).square().sum())
    lines = [[name, f"{10 * math.log10(signal / each):.1f}"] for name, each in noise.items()]
    table(f"{counts[0]} of {counts[1]} channels of 8 bits cannot saturate", ["weights", "dB"], lines)


if __name__ == "__main__":
    main(sys.argv[1:])
