"""NVIDIA TensorRT Model Optimizer: ``mtq.quantize`` with its INT8 configuration, ``max`` calibration.

Symmetric int8, per channel for weights and per tensor for activations. Quantizers on the inputs of
LayerNorm, which its wildcards would also enable, are disabled, which makes it faster. With
``qdqbert`` come the inputs of query, key and value to attention, which is all that it has in INT8:
probabilities only in FP8 and NVFP4, residual inputs not at all; it is measured with fewer sites there.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.shapes import Batch

SITES = {
    "linear": "inputs and weights of linear layers",
    "qdqbert": "the same, and query, key and value at the matmuls; neither probabilities nor residuals",
}


def prepare(model: Any, sites: str, batch: Batch) -> Any:
    """Quantize in place, calibrated on the batch."""
    with quiet():
        import modelopt.torch.quantization as mtq

        return mtq.quantize(model, configuration(sites), _forward(batch))


def insert(model: Any, sites: str, calibrator: str) -> Any:
    """Put quantizers into the model, and calibrate nothing."""
    with quiet():
        import modelopt.torch.quantization as mtq

        return mtq.quantize(model, configuration(sites, calibrator) | {"algorithm": None})


def configuration(sites: str, calibrator: str = "max") -> dict[str, Any]:
    """Its INT8 default, with the sites of ``SITES``; ``calibrator`` of activations is max or histogram."""
    import modelopt.torch.quantization as mtq

    chosen = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
    activation = {"num_bits": 8, "axis": None, "calibrator": calibrator}
    rules = [rule for rule in chosen["quant_cfg"] if rule["quantizer_name"] != "*input_quantizer"]
    rules += [
        {"quantizer_name": "*input_quantizer", "cfg": activation},
        {"quantizer_name": "*LayerNorm*", "enable": False},
    ]
    if sites == "qdqbert":
        rules += [{"quantizer_name": f"*{letter}_bmm_quantizer", "cfg": activation} for letter in "qkv"]
    chosen["quant_cfg"] = rules
    return chosen


@contextmanager
def quiet() -> Iterator[None]:
    """Without its advice on versions of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _forward(batch: Batch) -> Any:
    def forward(model: Any) -> None:
        with torch.no_grad():
            model(**batch)

    return forward
