"""The runtimes that execute an exported graph: one table of what each is, takes and computes with.

Sources of what graphs they take: ONNX Runtime 1.31 and OpenVINO 2026.4 as measured on tiny encoders
(``tests/deploy/runtimes``); TensorRT for RTX 1.7, whose parser refuses zero points; TensorRT takes the same
graphs. Unsigned integers are refused for both even with zero point 0: their INT8 is signed. torch_int8 moves
zero points itself, and computes what has more than 8 bits in floating point. TensorRT takes products of
blocks with 8-bit inputs, which are those of channels; its own INT4 in blocks has not been tried, nor have its
8-bit floats. OpenVINO 2026.4 rounds to them by way of FP16, so that 0.5 % of normal values get a neighbour.

A new runtime is one entry here, its name in :data:`qexp.naming.RuntimeName`, and a module with a function
``load``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qexp.naming import PRODUCTS, Execution, Precision, RuntimeName


@dataclass(frozen=True)
class RuntimeSpec:
    """What one runtime is and takes."""

    title: str
    engine: str
    """Module below :mod:`qexp.deploy.runtimes` whose ``load`` makes an engine of a graph."""
    packages: tuple[str, ...]
    """Distributions that the runtime can come from."""
    precisions: tuple[Precision, ...]
    products: Mapping[tuple[int, int], Execution]
    """How weights and activations of so many bits are computed; what is not listed is ``simulated``."""
    on_gpu: bool = False
    """Whether it computes on a GPU where there is one."""
    zero_points: bool = True
    """Whether it takes zero points other than 0 and unsigned integers."""
    wide: bool = True
    """Whether it takes grids of 16 bits."""
    blocks: bool = True
    """Whether it takes weights in blocks in front of inputs in floating point."""
    floats: bool = True
    """Whether it is known to give the numbers of grids of 8-bit floats, which none multiplies on a CPU."""
    states: bool = False
    """Whether an engine returns keys and values beside logits, which the search of a translation needs."""
    fp16_in_file: bool = False
    """Whether FP16 must be in the file; the others convert an FP32 graph themselves."""


RUNTIMES: dict[RuntimeName, RuntimeSpec] = {
    "onnxruntime": RuntimeSpec(
        "ONNX Runtime on the CPU", "onnxruntime.engine", packages=("onnxruntime", "onnxruntime-gpu"),
        precisions=("fp32", "fp16", "int8"), products=PRODUCTS["onnxruntime"], states=True,
        fp16_in_file=True,
    ),
    "openvino": RuntimeSpec(
        "OpenVINO on the CPU", "openvino.engine", packages=("openvino",),
        precisions=("fp32", "bf16", "int8"), products=PRODUCTS["openvino"], states=True, floats=False,
    ),
    "tensorrt": RuntimeSpec(
        "TensorRT on an NVIDIA GPU", "tensorrt.engine",
        packages=("tensorrt", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt-bindings"),
        precisions=("fp32", "fp16", "int8"), products=PRODUCTS["tensorrt"],
        on_gpu=True, zero_points=False, wide=False, blocks=False, floats=False,
    ),
    "tensorrt_rtx": RuntimeSpec(
        "TensorRT for RTX on an NVIDIA GPU", "tensorrt.engine_rtx",
        packages=("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
        precisions=("fp32", "fp16", "int8"), products=PRODUCTS["tensorrt_rtx"],
        on_gpu=True, zero_points=False, wide=False, blocks=False, floats=False,
    ),
    "torch_int8": RuntimeSpec(
        "PyTorch's own integer products, on a CPU or a GPU", "torch_int8.engine", packages=("torch",),
        precisions=("fp32", "fp16", "bf16", "int8"), products=PRODUCTS["torch_int8"], on_gpu=True,
        floats=False,
    ),
}  # fmt: skip
"""By name, as ``deploy.runtimes`` and Records have it."""
