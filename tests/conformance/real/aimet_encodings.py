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


def onnx_outputs() -> dict[str, Any]:
    """Return the outputs of a linear layer whose encodings are written from scales and zero points.

    The weights in the file lie on their grids already.
    """
    weight, values = inputs.linear_layer()
    scales = inputs.linear_scales()
    steps = np.clip(np.round(weight / scales[:, None]), -7, 7)
    stored = (steps * scales[:, None]).astype(np.float32).T
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(values.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(values), len(scales)])],
        [numpy_helper.from_array(np.ascontiguousarray(stored), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    sim = QuantizationSimModel(model, config_file="default", providers=["CPUExecutionProvider"])
    with contextlib.redirect_stdout(io.StringIO()):
        load_encodings_to_sim(sim, encodings(), strict=False)
    for name, quantizer in sim.qc_quantize_op_dict.items():
        if name not in ("x", "w"):
            quantizer.enabled = False
    return {"outputs": numbers(sim.session.run(None, {"x": values})[0])}


def encodings() -> dict[str, Any]:
    """Return the encodings file: x = (q + offset) * scale, with q from 0."""
    scales = inputs.linear_scales().tolist()
    activation = {"name": "x", "dtype": "INT", "bw": 8, "is_sym": False, "enc_type": "PER_TENSOR"}
    parameter = {"name": "w", "dtype": "INT", "bw": 4, "is_sym": True, "enc_type": "PER_CHANNEL"}
    return {
        "version": "1.0.0",
        "activation_encodings": [
            activation | {"scale": [inputs.INPUT_SCALE], "offset": [-inputs.INPUT_ZERO_POINT]}
        ],
        "param_encodings": [parameter | {"scale": scales, "offset": [-8] * len(scales)}],
    }
