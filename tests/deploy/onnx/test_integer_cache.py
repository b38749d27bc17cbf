"""Keys and values that pass between the steps of a search as integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.integer_cache import store_integers
from qexp.deploy.runtimes import load
from qexp.errors import DeployError

SCALE = 0.05
AXES = ["rows", 1, "length", 2]


def stored(name: str, value: float, kind: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def saved(path: Path, nodes: list[Any], inputs: list[str], outputs: list[str], values: list[Any]) -> Path:
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, AXES) for name in names]
        for names in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "part", *sides, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def pair(read: str, name: str) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [read, "scale", "zero"], [f"{name}.q"]),
        helper.make_node("DequantizeLinear", [f"{name}.q", "scale", "zero"], [name]),
    ]


def files(folder: Path, *, quantized: bool = True) -> tuple[Path, Path]:
    """An encoder whose ``scale`` is no grid's, and a decoder that adds up what it attends to."""
    encoder = saved(
        folder / "encoder.onnx", [helper.make_node("Mul", ["x", "scale"], ["cross_key_0"])],
        ["x"], ["cross_key_0"], [stored("scale", 3.0)],
    )  # fmt: skip
    join = helper.make_node("Concat", ["past_key_0", "new"], ["present_key_0"], axis=2)
    read = [*pair("present_key_0", "own"), *pair("cross_key_0", "other")] if quantized else []
    names = ["own", "other"] if quantized else ["present_key_0", "cross_key_0"]
    nodes = [join, *read, helper.make_node("Concat", names, ["logits"], axis=2)]
    values = [stored("scale", SCALE), stored("zero", -3, np.int8)] if quantized else []
    inputs = ["new", "past_key_0", "cross_key_0"]
    return encoder, saved(folder / "decoder.onnx", nodes, inputs, ["logits", "present_key_0"], values)


def searched(paths: tuple[Path, Path], runtime: str) -> tuple[list[Any], Any]:
    """Logits of three steps, and the cache after them."""
    encoder, decoder = (load(runtime, EngineSpec(path, "fp32", 1)) for path in paths)
    generator = np.random.default_rng(0)
    cross = encoder.run_all({"x": generator.normal(size=(2, 1, 4, 2)).astype(np.float32)})  # type: ignore[attr-defined]
    past = np.zeros((2, 1, 0, 2), decoder.types["past_key_0"])  # type: ignore[attr-defined]
    logits = []
    for _ in range(3):
        new = generator.normal(size=(2, 1, 1, 2)).astype(np.float32)
        found = decoder.run_all({"new": new, "past_key_0": past, **cross})  # type: ignore[attr-defined]
        past = found["present_key_0"]
        logits.append(found["logits"])
    return logits, past


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_integers_between_steps_change_no_result(tmp_path: Path, runtime: str) -> None:
    paths = files(tmp_path)
    expected, before = searched(paths, runtime)
    assert before.dtype == np.float32
    store_integers(*paths)
    logits, after = searched(paths, runtime)
    assert after.dtype == np.uint8
    np.testing.assert_allclose((after.astype(np.float32) - 125) * SCALE, before, atol=SCALE / 2 * 1.01)
    for own, reference in zip(logits, expected, strict=True):
        np.testing.assert_array_equal(own, reference)


def test_without_a_quantizer_integers_are_refused(tmp_path: Path) -> None:
    paths = files(tmp_path, quantized=False)
    with pytest.raises(DeployError, match=r"deploy\.cache_bits=8: no key or value of the decoder has"):
        store_integers(*paths)
