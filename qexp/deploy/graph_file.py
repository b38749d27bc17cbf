"""A graph read from its file."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from qexp.errors import DeployError


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        DeployError: the file is missing, damaged, or holds no graph.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise DeployError(f"{path}: cannot be read as ONNX ({error}); export the model again") from error
    if not model.graph.node:
        raise DeployError(f"{path}: cannot be read as ONNX (it has no nodes); export the model again")
    return model
