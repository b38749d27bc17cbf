"""Ranges by libraries that change a process that imports them; so they get one of their own.

    python -m tests.support.other_observers modelopt batches.npz

prints a JSON object. Batches are arrays ``0``, ``1`` and so on; the percentile is in ``percentile``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor


def modelopt(batches: list[Tensor], percentile: float) -> dict[str, Any]:
    """Largest magnitudes of the whole and of each row, and thresholds, by NVIDIA's Model Optimizer."""
    from modelopt.torch.quantization import calib

    whole, rows = calib.MaxCalibrator(8, None, False), calib.MaxCalibrator(8, 0, False)
    histogram = calib.HistogramCalibrator(8, None, False)
    for batch in batches:
        whole.collect(batch)
        rows.collect(batch)
        histogram.collect(batch)
    return {
        "max": float(whole.compute_amax()),
        "rows": rows.compute_amax().flatten().tolist(),
        "entropy": float(histogram.compute_amax("entropy", stride=8)),
        "percentile": float(histogram.compute_amax("percentile", percentile=percentile)),
    }


def torchao(batches: list[Tensor], percentile: float) -> dict[str, Any]:
    """Scales and zero points by torchao's observers: unsigned per tensor, and signed of each row."""
    from torchao.quantization.granularity import PerAxis, PerTensor
    from torchao.quantization.observer import AffineQuantizedMinMaxObserver
    from torchao.quantization.quant_primitives import MappingType

    types = {"scale_dtype": torch.float32, "zero_point_dtype": torch.int32, "eps": 1e-30}
    whole = AffineQuantizedMinMaxObserver(
        MappingType.ASYMMETRIC, torch.uint8, granularity=PerTensor(), **types
    )
    rows = AffineQuantizedMinMaxObserver(MappingType.SYMMETRIC, torch.int8, granularity=PerAxis(0), **types)
    for batch in batches:
        whole(batch)
        rows(batch)
    found = {"whole": whole.calculate_qparams(), "rows": rows.calculate_qparams()}
    return {name: [each.flatten().tolist() for each in pair] for name, pair in found.items()}


if __name__ == "__main__":
    given = dict(np.load(sys.argv[2]))
    percentile = float(given.pop("percentile"))
    batches = [torch.from_numpy(given[str(index)]) for index in range(len(given))]
    print(json.dumps({"modelopt": modelopt, "torchao": torchao}[sys.argv[1]](batches, percentile)))
