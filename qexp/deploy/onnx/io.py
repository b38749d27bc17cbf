"""ONNX files: checked before they are written, written whole or not at all, and read with clear errors."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from qexp.artifacts.disk import write_whole
from qexp.errors import DeployError

MAX_BYTES = 2**31 - 1
"""What one protobuf message, and so one ONNX file without side files, can hold."""


def checked(graph: ir.Model) -> onnx.ModelProto:
    """A graph as it is written: valid, and with shapes and types that follow from its inputs alone.

    Raises:
        DeployError: It is too large, or no valid ONNX.
    """
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
    """Write a file whole or not at all.

    Raises:
        StoreError: It cannot be written.
    """
    write_whole(path, proto.SerializeToString(deterministic=True))


def read(path: Path) -> onnx.ModelProto:
    """What a file holds.

    Raises:
        DeployError: It is missing, damaged, or holds no graph.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.graph.node:
            raise DecodeError("no graph in it")
    except (OSError, DecodeError) as error:
        raise DeployError(f"{path}: cannot be read as ONNX ({error}); export the model again") from error
    return proto


def first_line(error: BaseException) -> str:
    """The cause at the bottom of a chain of exceptions, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
