"""Names that code, Records and tables share: stages, models of a run, and runtimes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch_int8"]
"""A runtime that executes an exported graph."""
Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Arithmetic of an engine's large products; ``int8`` wherever the graph quantizes."""
Execution = Literal["float", "integer", "widened", "stored", "simulated"]
"""Nothing is quantized; products of integers of these widths; weights stored in these widths, in half a byte
up to 4 bits, and multiplied as 8-bit integers; weights stored in these widths and multiplied in floating
point; the numbers of the grid without any gain, in a wider format."""

EXECUTIONS: tuple[Execution, ...] = ("float", "integer", "widened", "stored", "simulated")
"""From the most to the least real."""
_INT8: Mapping[tuple[int, int], Execution] = {
    (8, 8): "integer", **{(bits, 8): "widened" for bits in range(2, 8)},
}  # fmt: skip
_CPU: Mapping[tuple[int, int], Execution] = {**_INT8, **{(bits, 32): "stored" for bits in range(2, 9)}}
_TENSORRT: Mapping[tuple[int, int], Execution] = {**_INT8, (4, 32): "stored"}
PRODUCTS: Mapping[RuntimeName, Mapping[tuple[int, int], Execution]] = {
    "onnxruntime": _CPU, "openvino": _CPU, "tensorrt": _TENSORRT, "tensorrt_rtx": _TENSORRT,
    "torch_int8": _INT8,
}  # fmt: skip
"""How each runtime computes products of weights and activations of so many bits, 32 for floating point; what
is not listed is ``simulated``."""


def execution(runtime: RuntimeName, widths: Iterable[tuple[int, int]]) -> Execution:
    """Return how a runtime computes products; for mixed bit-widths, the least real execution of any part.

    Args:
        runtime: A runtime of :data:`PRODUCTS`.
        widths: Bits of weights and of activations for each part of the model.
    """
    executions = [PRODUCTS[runtime].get(pair, "simulated") for pair in widths if pair != (32, 32)]
    return max(executions, key=EXECUTIONS.index, default="float")


_FLOATS = ("fp8", "nvfp4")
"""Parts of the short names of quantized models whose numbers are floats, which nothing here multiplies."""


def has_floats(quant: str) -> bool:
    """Return whether the numbers of a quantized model are floats, by its short name such as ``fp8-mixed``."""
    return any(each in quant.partition("-")[0] for each in _FLOATS)


def is_simulated(bits: tuple[int, int], quant: str = "") -> bool:
    """Return whether no engine of a CPU gains anything from weights and activations of so many bits.

    ``quant`` is the short name of the quantized model, of which 8-bit floats have others than integers.
    """
    return has_floats(quant) or execution("onnxruntime", [bits]) == "simulated"


EncodingsVersion = Literal["0.6.1", "1.0.0", "2.0.0"]
"""Version of an AIMET encodings file."""


POOLED, HIDDEN = "sentence_embedding", "last_hidden_state"
"""Name of the output of an exported model with a pooling, float32 [batch, width], and of the value in its
graph that is pooled, float32 [batch, length, width]."""


class StageName:
    """Folders below ``outputs/artifacts``, which Records name, too."""

    TOKENS = "1-tokens"
    FP32 = "2-fp32"
    EQUALIZED = "2-equalized"
    STATISTICS = "3-statistics"
    MOMENTS = "3-moments"
    RANGES = "4-ranges"
    PRETRAINED = "4-pretrained"
    REFINED = "4-refined"
    CONTROL = "5-control"
    QAT = "5-qat"
    SCORES = "6-scores"
    ONNX = "7-onnx"
    FP16 = "7-half"
    FLOOR = "8-floor"
    PARITY = "8-parity"
    LATENCY = "9-latency"


MODEL_STAGES = ("fp32", "control", "ptq", "qat")
"""Models that a run evaluates in torch, in the order in which they come."""
MODEL_TITLES = {"fp32": "FP32", "control": "control", "ptq": "PTQ", "qat": "QAT"}
"""Each in tables."""


_SHORT = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8e5m2"}
"""Names of formats of floats in tables, where these differ."""


def short_format(bits: int, number_format: str | None) -> str:
    """Return bits, or the short name of a format of floats."""
    return str(bits) if number_format is None else _SHORT.get(number_format, number_format)


def quant_name(weight: str, activation: str) -> str:
    """Return ``w4a8`` of bits, ``wfp8a32`` of a format and bits, or the name that two formats share."""
    return weight if weight == activation and not weight.isdigit() else f"w{weight}a{activation}"
