"""ONNX graph with an encodings file of version 1.0.0, computed by aimet-onnx."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import onnx
from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from onnx import TensorProto, helper, numpy_helper

from tests.conformance import inputs
from tests.conformance.real.results import numbers

BITS, OUTPUTS, INPUTS = 4, 6, 16
SCALE, ZERO_POINT = 0.0251, 113
"""Of the 8-bit input."""


def weight() -> inputs.Array:
    """Return a weight [OUTPUTS, INPUTS] whose values lie on the grids of ``scales``."""
    values = inputs.tensors()["normal"][: OUTPUTS * INPUTS].reshape(OUTPUTS, INPUTS)
    steps = np.clip(np.round(values / scales()[:, None]), -7, 7)
    return (steps * scales()[:, None]).astype(np.float32)


def scales() -> inputs.Array:
    """Return a scale for each output, float32."""
    return (0.1 + 0.02 * np.arange(OUTPUTS)).astype(np.float32)


def onnx_outputs() -> dict[str, Any]:
    """Return the outputs of a linear layer whose encodings are written from scales and zero points."""
    values = inputs.tensors()["normal"][-8 * INPUTS :].reshape(8, INPUTS) * np.float32(1.5)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, OUTPUTS])],
        [numpy_helper.from_array(np.ascontiguousarray(weight().T), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    sim = QuantizationSimModel(model, config_file="default", providers=["CPUExecutionProvider"])
    activation = {"name": "x", "dtype": "INT", "bw": 8, "is_sym": False, "enc_type": "PER_TENSOR"}
    parameter = {"name": "w", "dtype": "INT", "bw": BITS, "is_sym": True, "enc_type": "PER_CHANNEL"}
    encodings = {
        "version": "1.0.0",
        "activation_encodings": [activation | {"scale": [SCALE], "offset": [-ZERO_POINT]}],
        "param_encodings": [parameter | {"scale": scales().tolist(), "offset": [-8] * OUTPUTS}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        load_encodings_to_sim(sim, encodings, strict=False)
    for name, quantizer in sim.qc_quantize_op_dict.items():
        if name not in ("x", "w"):
            quantizer.enabled = False
    return {"outputs": numbers(sim.session.run(None, {"x": values})[0])}
