"""Translation of the ``torch.ops.qexp`` operators to one node each, which only this package reads.

:mod:`qexp.deploy.onnx.qdq_ops` writes a grid as several standard operators, for runtimes. Here it stays one
node with its limits as attributes, so that a pass can take it out again and say what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript import values

DOMAIN = "qexp"
FAKE_QUANTIZE, DEQUANTIZE = "FakeQuantize", "Dequantize"


def _operator(name: str, stored: list[str], integers: tuple[str, ...]) -> values.Op:
    inputs = [OpSchema.FormalParameter(each, each) for each in ("x", "scale", "zero_point")]
    types = {
        "x": stored,
        "scale": ["tensor(float)"],
        "zero_point": ["tensor(int8)", "tensor(int16)", "tensor(int32)"],
    }
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=inputs,
        outputs=[OpSchema.FormalParameter("y", "tensor(float)")],
        type_constraints=[(each, allowed, "") for each, allowed in types.items()],
        attributes=[OpSchema.Attribute(each, OpSchema.AttrType.INT, required=True) for each in integers],
    )
    return values.Op(values.Opset(DOMAIN, 1), name, schema)


_GRID = ("axis", "qmin", "qmax")
_FAKE_QUANTIZE = _operator(FAKE_QUANTIZE, ["tensor(float)"], _GRID)
_DEQUANTIZE = _operator(DEQUANTIZE, ["tensor(int8)", "tensor(int16)"], ("axis", "block"))


def _fake_quantize(x: ir.Value, scale: ir.Value, zero_point: ir.Value, *grid: int) -> Any:
    return _FAKE_QUANTIZE(x, scale, zero_point, **dict(zip(_GRID, grid, strict=True)))


def _dequantize(q: ir.Value, scale: ir.Value, zero_point: ir.Value, axis: int, block: int = 0) -> Any:
    return _DEQUANTIZE(q, scale, zero_point, axis=axis, block=block)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.qexp.fake_quantize.default: _fake_quantize,
    torch.ops.qexp.dequantize.default: _dequantize,
}
"""Translation of each custom operator to a node of its own."""
