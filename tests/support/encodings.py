"""An interpreter of encodings files that shares no code with the writer: it puts grids back into graphs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class ReadEncoding:
    """``x = (q + offset) * scale`` for ``q`` from 0 to ``2**bits - 1``."""

    bits: int
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    axis: int | None
    """None where the file does not say it."""


def read_encodings(file: Path) -> dict[str, ReadEncoding]:
    content = json.loads(file.read_text(encoding="utf-8"))
    return {"0.6.1": _of_dicts, "1.0.0": _of_lists, "2.0.0": _of_onnx}[content["version"]](content)


def _of_dicts(content: dict[str, Any]) -> dict[str, ReadEncoding]:
    found = {}
    for name, entries in {**content["activation_encodings"], **content["param_encodings"]}.items():
        (bits,) = {entry["bitwidth"] for entry in entries}
        levels = 2**bits - 1
        scale = [(entry["max"] - entry["min"]) / levels for entry in entries]
        assert np.allclose(scale, [entry["scale"] for entry in entries], rtol=1e-12, atol=0)
        offset = [round(entry["min"] / each) for entry, each in zip(entries, scale, strict=True)]
        assert offset == [entry["offset"] for entry in entries]
        assert {entry["is_symmetric"] for entry in entries} <= {"True", "False"}
        found[name] = _read(bits, [entry["scale"] for entry in entries], offset, None)
    return found


def _of_lists(content: dict[str, Any]) -> dict[str, ReadEncoding]:
    entries = content["activation_encodings"] + content["param_encodings"]
    assert all((entry["enc_type"] == "PER_TENSOR") <= (len(entry["scale"]) == 1) for entry in entries)
    return {entry["name"]: _read(entry["bw"], entry["scale"], entry["offset"], None) for entry in entries}


def _of_onnx(content: dict[str, Any]) -> dict[str, ReadEncoding]:
    found = {}
    for entry in content["encodings"]:
        signed = entry["output_dtype"].startswith("int")
        bits = int(entry["output_dtype"].removeprefix("u").removeprefix("int"))
        scale = np.atleast_1d(entry["y_scale"])
        zero = np.atleast_1d(entry.get("y_zero_point", 0)) + (2 ** (bits - 1) if signed else 0)
        found[entry["name"]] = _read(bits, scale, np.broadcast_to(-zero, scale.shape), entry.get("axis"))
    return found


def _read(bits: int, scale: Any, offset: Any, axis: int | None) -> ReadEncoding:
    return ReadEncoding(bits, np.asarray(scale, np.float32), np.asarray(offset, np.float32), axis)


def with_grids(model: onnx.ModelProto, encodings: dict[str, ReadEncoding]) -> onnx.ModelProto:
    """Quantize the constants of a graph, and put the arithmetic of a grid behind each encoded tensor.

    Raises:
        KeyError: An encoding has the name of no tensor.
    """
    rest = dict(encodings)
    graph, nodes = model.graph, []
    for tensor in graph.initializer:
        if (encoding := rest.pop(tensor.name, None)) is not None:
            values = _on_grid(numpy_helper.to_array(tensor), encoding, _axis(graph, tensor.name))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if (encoding := rest.pop(name, None)) is not None:
                node.output[index] = f"{name}.float"
                nodes += _grid_nodes(graph, name, encoding)
    if rest:
        raise KeyError(sorted(rest))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _axis(graph: onnx.GraphProto, name: str) -> int:
    """The output channels of a product, as versions without an axis mean them."""
    readers = [node for node in graph.node if name in node.input]
    (kind,) = {node.op_type for node in readers}
    transposed = any(each.name == "transB" and each.i for node in readers for each in node.attribute)
    return 0 if kind == "Gemm" and transposed else 1


def _on_grid(values: NDArray[Any], encoding: ReadEncoding, axis: int) -> NDArray[np.float32]:
    assert encoding.axis in (None, axis)
    shape = [-1 if index == axis else 1 for index in range(values.ndim)]
    scale, offset = (each.reshape(shape) for each in (encoding.scale, encoding.offset))
    steps = np.clip(np.round(values / scale), offset, offset + 2**encoding.bits - 1)
    return np.asarray(steps * scale, np.float32)


def _grid_nodes(graph: onnx.GraphProto, name: str, encoding: ReadEncoding) -> list[onnx.NodeProto]:
    (scale,), (low,) = encoding.scale, encoding.offset
    for key, number in (("scale", scale), ("low", low), ("high", low + 2**encoding.bits - 1)):
        graph.initializer.append(numpy_helper.from_array(np.float32(number), f"{name}.{key}"))
    return [
        helper.make_node("Div", [f"{name}.float", f"{name}.scale"], [f"{name}.ratio"]),
        helper.make_node("Round", [f"{name}.ratio"], [f"{name}.whole"]),
        helper.make_node("Clip", [f"{name}.whole", f"{name}.low", f"{name}.high"], [f"{name}.steps"]),
        helper.make_node("Mul", [f"{name}.steps", f"{name}.scale"], [name]),
    ]
