"""Reading and writing of ONNX files: checked before writing, written atomically, read with clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from qexp.artifacts.disk import write_whole
from qexp.config.deploy import LARGEST_FILE
from qexp.deploy.onnx.packing import unpack_weights
from qexp.errors import DeployError

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_BYTES = LARGEST_FILE
"""Capacity of one ONNX file without external data."""


def checked(graph: ir.Model) -> onnx.ModelProto:
    """Return the protobuf form of a graph, with shapes and types that follow from its inputs alone.

    Raises:
        DeployError: The graph is too large, or not valid ONNX.
    """
    import onnx_ir as ir  # takes sympy along, which those who only read do without

    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
    if size > MAX_BYTES:
        raise DeployError(
            f"the model's values take {size:,} bytes, and one ONNX file holds {MAX_BYTES:,}; "
            "choose a smaller model"
        )
    proto = ir.to_proto(graph)
    del proto.graph.value_info[:]
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployError(
            f"the graph is not valid ONNX: {first_line(error)}; try another opset, or other "
            "versions of torch and onnxscript"
        ) from error
    return proto


def write(proto: onnx.ModelProto, path: Path) -> None:
    """Write a file atomically.

    Raises:
        StoreError: The file cannot be written.
    """
    write_whole(path, proto.SerializeToString(deterministic=True))


def read(path: Path, *, unpack: bool = True) -> onnx.ModelProto:
    """Load the graph of a file.

    Args:
        path: File of the graph.
        unpack: Whether to store packed weights in whole bytes.

    Raises:
        DeployError: The file is missing, damaged, or holds no graph.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.graph.node:
            raise DecodeError("no graph in it")
    except (OSError, DecodeError) as error:
        raise DeployError(f"{path}: cannot be read as ONNX ({error}); export the model again") from error
    if unpack:
        unpack_weights(proto)
    return proto


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX operators of a graph, 0 if it has none."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def first_line(error: BaseException) -> str:
    """Return type and first line of the root cause of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
