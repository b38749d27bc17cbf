"""AIMET 2.42 on the common inputs: ``python -m tests.conformance.real.aimet GOLDEN.json ARRAYS.npz``.

Runs in the environment of aimet-torch and aimet-onnx. The torchvision of a package index is built for CUDA;
beside torch for the CPU it imports once its two operators are declared, and none of it is called.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import torch

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
DECLARED = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from aimet_torch import QuantizationSimModel  # noqa: E402
from aimet_torch.quantization.affine import QuantizeDequantize  # noqa: E402
from aimet_torch.quantization.encoding_analyzer import (  # noqa: E402
    MinMaxEncodingAnalyzer,
    SqnrEncodingAnalyzer,
    TfEnhancedEncodingAnalyzer,
)

from tests.conformance import inputs  # noqa: E402
from tests.conformance.inputs import Array  # noqa: E402
from tests.conformance.real.aimet_encodings import onnx_outputs  # noqa: E402
from tests.conformance.real.aimet_model import Classifier, arguments, quantized_sites  # noqa: E402
from tests.conformance.real.results import nested, number, numbers, write  # noqa: E402

ANALYZERS = {
    "tf": MinMaxEncodingAnalyzer,
    "tf_enhanced": TfEnhancedEncodingAnalyzer,
    "sqnr": SqnrEncodingAnalyzer,
}


def calibrated(batches: list[Array], scheme: str, bits: int, *, symmetric: bool, channels: int = 0) -> Any:
    """Return AIMET's quantizer with the range of its scheme; one for each row with ``channels``."""
    shape = (channels, 1) if channels else ()
    analyzer = ANALYZERS[scheme](shape)
    quantizer = QuantizeDequantize(shape, bits, symmetric, encoding_analyzer=analyzer)
    with quantizer.compute_encodings():
        for batch in batches:
            quantizer(torch.from_numpy(batch))
    return quantizer


def encoding(quantizer: Any) -> list[Any]:
    """Return the scales, and the integer that stands for the lowest value, counted from zero."""
    offset = torch.zeros_like(quantizer.get_scale()) if quantizer.symmetric else quantizer.get_offset()
    return [numbers(quantizer.get_scale().detach()), numbers(offset.detach() + quantizer.qmin)]


def ranges() -> dict[str, Any]:
    """Return encodings of each tensor, scheme, bit-width and symmetry, and of rows and of batches."""
    found = {}
    for scheme in ANALYZERS:
        for name, values in inputs.tensors().items():
            for bits in (4, 8):
                for symmetric in (True, False):
                    quantizer = calibrated([values], scheme, bits, symmetric=symmetric)
                    found[f"{name} {scheme} {bits} {_form(symmetric)}"] = encoding(quantizer)
        for name in ("normal", "laplace", "skewed", "outlier_below"):
            weight = inputs.rows(inputs.tensors()[name])
            for bits in (4, 8):
                quantizer = calibrated([weight], scheme, bits, symmetric=True, channels=inputs.ROWS)
                found[f"{name} {scheme} {bits} rows"] = encoding(quantizer)
        found[f"batches {scheme} 8 asymmetric"] = encoding(
            calibrated(inputs.batches(), scheme, 8, symmetric=False)
        )
    return found


def _form(symmetric: bool) -> str:
    return "symmetric" if symmetric else "asymmetric"


GRIDS = {"asymmetric 8": (8, False, 0.03), "symmetric 8": (8, True, 0.03), "symmetric 4": (4, True, 0.5)}
"""Bits, symmetry and scale."""


def fixed(bits: int, symmetric: bool, scale: float) -> Any:
    """Return a quantizer with a given scale, and zero point 100 if asymmetric."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (-100, 2**bits - 101)
    quantizer = QuantizeDequantize((), bits, symmetric)
    quantizer.set_range(torch.tensor(scale * low), torch.tensor(scale * high))
    return quantizer


def integers_and_gradients() -> dict[str, Any]:
    """Return steps from zero of fixed values, and the gradients of the values and of minimum and maximum."""
    found = {}
    for name, (bits, symmetric, scale) in GRIDS.items():
        quantizer = fixed(bits, symmetric, scale)
        scale = float(quantizer.get_scale())
        values = torch.from_numpy(inputs.points(scale, bits)).requires_grad_()
        weights = torch.linspace(-1, 1, len(values))
        result = quantizer(values)
        (result * weights).sum().backward()
        found[name] = {
            "scale": number(scale),
            "steps": (result.detach() / scale).round().int().tolist(),
            "passes": (values.grad != 0).int().tolist(),
            "minimum": number(quantizer.min.grad),
            "maximum": number(quantizer.max.grad),
        }
    return found


def simulated(scheme: str, bits: int, *, float_weights: bool) -> Any:
    """Return a calibrated QuantizationSimModel of the random BERT, with 8-bit activations."""
    batches = inputs.bert_batches(4)
    sim = QuantizationSimModel(
        Classifier(inputs.bert_weights()),
        arguments(batches[0]),
        quant_scheme="tf",
        default_param_bw=bits,
        config_file="default_config_per_channel.json",
    )
    for module in sim.model.modules():
        for name in getattr(module, "param_quantizers", {}):
            if float_weights:
                module.param_quantizers[name] = None
    for each in quantized_sites(sim.model).values():
        each.encoding_analyzer = ANALYZERS[scheme](each.shape)
    sim.compute_encodings(lambda model: [model(*arguments(batch)) for batch in batches])
    return sim.model


CASES = {"tf 4": ("tf", 4), "tf 8": ("tf", 8), "sqnr 8": ("sqnr", 8)}
"""Range scheme and bits of weights of each simulation; weights have a range for each row."""


@torch.no_grad()
def models() -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the sites of the quantized BERT, and encodings and logits of several settings.

    The second logits are without the quantizers of ``add_1`` and of the inputs of ``mask_add``.
    """
    evaluated = arguments(inputs.bert_batches(5)[4])
    arrays = {"logits float": Classifier(inputs.bert_weights())(*evaluated).numpy()}
    sites: dict[str, Any] = {}
    for case, (scheme, bits) in CASES.items():
        for float_weights in (False, True):
            label = f"{case} float weights" if float_weights else case
            model = simulated(scheme, bits, float_weights=float_weights)
            found = quantized_sites(model)
            sites = sites or {
                name: [each.bitwidth, each.symmetric, list(each.shape)] for name, each in found.items()
            }
            for name, each in found.items():
                arrays[f"{label}|{name}"] = np.array(encoding(each))
            arrays[f"{label}|logits"] = model(*evaluated).numpy()
            without_inputs_of_adds(model)
            arrays[f"{label}|logits without inputs of adds"] = model(*evaluated).numpy()
    return sites, arrays


def without_inputs_of_adds(model: Any) -> None:
    """Remove the quantizers whose values are inputs of adds alone."""
    for name, module in model.named_modules():
        if name.endswith("add_1"):
            module.output_quantizers[0] = None
        if name.endswith("mask_add"):
            module.input_quantizers[0] = module.input_quantizers[1] = None


def learned_ranges() -> dict[str, Any]:
    """Return minimum and maximum of a weight's 4-bit range, and their values after a step of Adam.

    The range is that of ``tf_enhanced``; the loss weighs the quantized values by a ramp.
    """
    weight = inputs.rows(inputs.tensors()["normal"]) * np.float32(0.05)
    quantizer = calibrated([weight], "tf_enhanced", 4, symmetric=True)
    before = [number(quantizer.get_min()), number(quantizer.get_max())]
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-3)
    values = torch.from_numpy(weight)
    (quantizer(values) * torch.linspace(-1, 1, values.numel()).view_as(values)).sum().backward()
    gradients = [number(quantizer.min.grad), number(quantizer.max.grad)]
    optimizer.step()
    after = [number(quantizer.get_min()), number(quantizer.get_max())]
    return {"before": before, "gradients": gradients, "after": after}


def weights_after_a_step() -> dict[str, Any]:
    """Return encodings of weights after a training step: anew, as AIMET 1.27 finds them in each of them."""
    found = {}
    for name, weight in inputs.bert_weights().items():
        if weight.ndim == 2 and "embeddings" not in name:
            moved = inputs.stepped(weight)
            for scheme in ("tf", "sqnr"):
                quantizer = calibrated([moved], scheme, 4, symmetric=True, channels=len(moved))
                found[f"{name}|{scheme}"] = numbers(quantizer.get_scale().detach())
    return found


TESTED = ("tf 4|", "tf 4 float weights|", "moved|bert.encoder.layer.0.attention.self.query")
"""Beginnings of the arrays that the tests need."""


def main() -> None:
    """Write all results."""
    torch.set_num_threads(1)
    sites, arrays = models()
    moved = weights_after_a_step()
    arrays |= {f"moved|{name}": np.array(scales) for name, scales in moved.items()}
    golden = {
        "ranges": ranges(),
        "values": integers_and_gradients(),
        "learned": learned_ranges(),
        "sites": sites,
        "bert": {name: nested(value) for name, value in arrays.items() if name.startswith(TESTED)},
        "onnx": onnx_outputs(),
    }
    write(golden, arrays, ("aimet-torch", "aimet-onnx", "torch"))


if __name__ == "__main__":
    main()
