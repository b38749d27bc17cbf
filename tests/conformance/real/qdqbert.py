"""QDQBERT on pytorch-quantization: ``python -m tests.conformance.real.qdqbert GOLDEN.json ARRAYS.npz``.

The model is that of transformers 4.40; the steps around it are those of NVIDIA's example in the same
repository. The package's CUDA extension is not in its wheel, and only used for what is left out here. It
moves some tensors to a GPU; without one, they stay.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore")
sys.modules["pytorch_quantization.cuda_ext"] = types.ModuleType("pytorch_quantization.cuda_ext")
torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment]

from absl import logging  # noqa: E402
from pytorch_quantization import calib  # noqa: E402
from pytorch_quantization import nn as quant_nn  # noqa: E402
from pytorch_quantization.nn import TensorQuantizer  # noqa: E402
from pytorch_quantization.tensor_quant import QuantDescriptor, fake_tensor_quant  # noqa: E402
from transformers import QDQBertConfig, QDQBertForSequenceClassification  # noqa: E402

from tests.conformance import inputs  # noqa: E402
from tests.conformance.inputs import Array  # noqa: E402
from tests.conformance.real.results import nested, number, numbers, write  # noqa: E402

logging.set_verbosity(logging.FATAL)
PERCENTILES = (99.99, 99.0)
ENTROPY = ("normal", "laplace", "relu")
"""Tensors of the entropy search, which takes seconds for each."""


def halves(values: Array) -> list[Tensor]:
    """Return the two batches that a tensor is calibrated with."""
    return [torch.from_numpy(each.copy()) for each in np.array_split(values, 2)]


def calibrators() -> dict[str, Any]:
    """Return the ranges of each calibrator for each tensor; null if it raises an error."""
    found: dict[str, Any] = {}
    for name, values in inputs.tensors().items():
        histogram = calib.HistogramCalibrator(8, None, False)
        largest = calib.MaxCalibrator(8, None, False)
        for batch in halves(values):
            largest.collect(batch)
            if values.any():
                histogram.collect(batch)
        found[f"{name} max"] = number(largest.compute_amax())
        if not values.any():
            continue
        for share in PERCENTILES:
            found[f"{name} percentile {share}"] = number(
                histogram.compute_amax("percentile", percentile=share)
            )
        found[f"{name} mse"] = number(histogram.compute_amax("mse"))
        if name in ENTROPY:
            found[f"{name} entropy"] = number(histogram.compute_amax("entropy"))
        edges = histogram._calib_bin_edges
        found[f"{name} bin"] = number(edges[1] - edges[0])
    return found


def integers_and_gradients() -> dict[str, Any]:
    """Return the integers of fixed values, and which pass their gradient: on a quantizer of 8 and 4 bits."""
    found = {}
    for bits in (4, 8):
        values = torch.from_numpy(inputs.points(0.25, bits)).requires_grad_()
        quantizer = TensorQuantizer(QuantDescriptor(num_bits=bits))
        quantizer.amax = torch.tensor(0.25 * (2 ** (bits - 1) - 1))
        result = quantizer(values)
        result.sum().backward()
        found[str(bits)] = {
            "steps": (result.detach() / 0.25).round().int().tolist(),
            "passes": (values.grad != 0).int().tolist(),
        }
    weight = torch.from_numpy(inputs.rows(inputs.tensors()["normal"]).copy()).requires_grad_()
    largest = weight.detach().abs().amax(1, keepdim=True)
    fake_tensor_quant(weight, largest, 8, False, False).sum().backward()
    found["rows"] = {
        "scales": numbers(largest / 127),
        "passes": (weight.grad.gather(1, weight.detach().abs().argmax(1, keepdim=True)) != 0)
        .int()
        .flatten()
        .tolist(),
    }
    return found


def bert(method: str) -> Any:
    """Return the random BERT with quantizers for a calibration method, ``max`` or ``histogram``."""
    descriptor = QuantDescriptor(num_bits=8, calib_method=method)
    quant_nn.QuantLinear.set_default_quant_desc_input(descriptor)
    quant_nn.QuantLinear.set_default_quant_desc_weight(QuantDescriptor(num_bits=8, axis=(0,)))
    model = QDQBertForSequenceClassification(QDQBertConfig(**inputs.BERT))
    state = {name: torch.from_numpy(value) for name, value in inputs.bert_weights().items()}
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    return model.eval()


def quantizers(model: nn.Module) -> dict[str, Any]:
    """Return all quantizers by name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, TensorQuantizer)}


def arguments(batch: dict[str, Array]) -> dict[str, Tensor]:
    """Return the model's inputs."""
    return {name: torch.from_numpy(value) for name, value in batch.items() if name != "labels"}


def calibrated(calib_method: str, **options: Any) -> Any:
    """Return the model calibrated on four batches, quantizing.

    Weights always have the largest magnitude of each row; ``options`` go to the histogram calibrators.
    """
    model = bert(calib_method)
    for each in quantizers(model).values():
        each.disable_quant()
        each.enable_calib()
    for batch in inputs.bert_batches(4):
        model(**arguments(batch))
    for each in quantizers(model).values():
        histogram = isinstance(each._calibrator, calib.HistogramCalibrator)
        each.load_calib_amax(**(options if histogram else {}))
        each.disable_calib()
        each.enable_quant()
    return model


def fuse_qkv(model: Any) -> None:
    """Give query, key and value of each layer the largest of their ranges, as ``--fuse-qkv`` does."""
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        fused = [getattr(attention, f"matmul_{each}_input_quantizer") for each in "qkv"]
        largest = max(float(each.amax) for each in fused)
        for each in fused:
            each.amax.fill_(largest)


def disable(model: Any) -> Any:
    """Return the model in floating point."""
    for each in quantizers(model).values():
        each.disable()
    return model


@torch.no_grad()
def models() -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the sites, and ranges and logits by calibrator."""
    evaluated = arguments(inputs.bert_batches(5)[4])
    arrays = {"logits float": disable(bert("max"))(**evaluated).logits.numpy()}
    cases = {
        "max": calibrated("max"),
        "percentile": calibrated("histogram", method="percentile", percentile=99.99),
        "percentile fused": calibrated("histogram", method="percentile", percentile=99.99),
        "mse": calibrated("histogram", method="mse"),
    }
    fuse_qkv(cases["percentile fused"])
    for case, model in cases.items():
        for name, each in quantizers(model).items():
            arrays[f"{case}|{name}"] = each.amax.flatten().numpy()
        arrays[f"{case}|logits"] = model(**evaluated).logits.numpy()
    found = quantizers(cases["max"])
    return {name: [each.num_bits, each.amax.numel()] for name, each in found.items()}, arrays


def main() -> None:
    """Write all results."""
    torch.set_num_threads(1)
    sites, arrays = models()
    activations = {
        name: nested(value) for name, value in arrays.items() if not name.endswith("_weight_quantizer")
    }
    golden = {
        "calibrators": calibrators(),
        "values": integers_and_gradients(),
        "sites": sites,
        "bert": activations,
    }
    write(golden, arrays, ("pytorch-quantization", "transformers", "torch"))


if __name__ == "__main__":
    main()
