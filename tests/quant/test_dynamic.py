"""Ranges that are found at run time: ONNX Runtime's rule for tensors, torchao's for tokens."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

import qexp.custom_ops  # noqa: F401  defines torch.ops.qexp
from qexp.custom_ops import dynamic_qparams
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.quant.fake_quantize import choose_kernels, fake_quantize_dynamic
from qexp.quant.grid import Grid
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

TENSOR = Grid(8, signed=False, symmetric=False, dynamic="tensor")
TOKEN = Grid(8, signed=True, symmetric=True, dynamic="token")
UINT8 = {"tokens": False, "symmetric": False, "qmin": 0, "qmax": 255}


@pytest.fixture(scope="module")
def onnx_runtime() -> onnxruntime.InferenceSession:
    """DynamicQuantizeLinear and what it dequantizes to."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    kinds = {"q": TensorProto.UINT8, "scale": TensorProto.FLOAT, "zero": TensorProto.UINT8}
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])]
    outputs += [
        helper.make_tensor_value_info(name, kind, ["n"] if name == "q" else [])
        for name, kind in kinds.items()
    ]
    graph = helper.make_graph(
        nodes, "dynamic", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])], outputs
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return new_session(model)


def _agrees(session: onnxruntime.InferenceSession, x: NDArray[np.float32]) -> None:
    values, integers, scale, zero = session.run(None, {"x": x})
    ours = fake_quantize_dynamic(torch.from_numpy(x), TENSOR).numpy()
    assert np.array_equal(ours, values)
    with torch.no_grad():
        assert np.array_equal(fake_quantize_dynamic(torch.from_numpy(x), TENSOR).numpy(), values)
        assert np.array_equal(fake_quantize_dynamic(torch.from_numpy(x), TENSOR, plain=True).numpy(), values)
        exported = torch.ops.qexp.fake_quantize_dynamic(torch.from_numpy(x), False, False, 0, 255)
    assert np.array_equal(exported.numpy(), values)
    our_scale, our_zero = dynamic_qparams(torch.from_numpy(x), **UINT8)
    if scale > 0:
        assert (our_scale.item(), our_zero.item()) == (scale, zero)
        steps = torch.from_numpy(x).div(our_scale).round() + our_zero
        assert np.array_equal(steps.clamp(0, 255).numpy(), integers)


@given(
    size=st.integers(1, 300),
    seed=st.integers(0, 2**20),
    power=st.integers(-36, 30),
    shift=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]),
)
@settings(deadline=None, max_examples=300)
def test_a_tensor_is_quantized_bit_for_bit_as_by_onnx_runtime(
    onnx_runtime: onnxruntime.InferenceSession, size: int, seed: int, power: int, shift: float
) -> None:
    x = np.random.default_rng(seed).normal(shift, 1, size) * 10.0**power
    _agrees(onnx_runtime, x.astype(np.float32))


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0], [-0.0, 0.0], [1.0, 2.0], [-1.0, -2.0], [5.0], [1e-37, -1e-37], [1e-40, 0.0],
        [1e-44, -1e-44], [1e-45, 0.0], [0.0, -1e-45], [-1.0, 0.5, 0.49803924], [3e38, 0.0], [1.5e38, -1.5e38],
    ],
    ids=str,
)  # fmt: skip
def test_extreme_tensors_are_too(
    onnx_runtime: onnxruntime.InferenceSession, values: list[float], kernels: str
) -> None:
    choose_kernels(kernels)  # type: ignore[arg-type]
    try:
        _agrees(onnx_runtime, np.array(values, np.float32))
    finally:
        choose_kernels("auto")


@given(seed=st.integers(0, 2**20), power=st.integers(-30, 30))
@settings(deadline=None, max_examples=50)
def test_tokens_have_the_scales_of_torchao(seed: int, power: int) -> None:
    """``choose_qparams_affine`` of torchao 0.14, SYMMETRIC_NO_CLIPPING_ERR, -127 to 127, without its eps."""
    x = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    scale, zero = dynamic_qparams(x, tokens=True, symmetric=True, qmin=-128, qmax=127)
    largest = x.abs().amax(-1, keepdim=True)
    assert torch.equal(scale, largest / torch.full_like(largest, 127.0))
    assert not zero.any()
    expected = torch.clamp(torch.round(x / scale), -127, 127) * scale
    assert torch.equal(fake_quantize_dynamic(x, TOKEN), expected)


@pytest.mark.parametrize("grid", [TENSOR, TOKEN], ids=["tensor", "token"])
@pytest.mark.parametrize("plain", [False, True])
def test_the_whole_gradient_passes(grid: Grid, plain: bool) -> None:
    x, grad = torch.randn(3, 5, 7, requires_grad=True), torch.randn(3, 5, 7)
    fake_quantize_dynamic(x, grid, plain=plain).backward(grad)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", [QuantizerMode.FROZEN, QuantizerMode.LEARNED, QuantizerMode.EMA])
def test_a_tensor_is_dynamic_in_every_mode_and_learns_nothing(mode: QuantizerMode) -> None:
    quantizer, x = Quantizer("value", TENSOR), torch.randn(2, 3, 4)
    quantizer.switch(mode)
    assert quantizer.mode is QuantizerMode.FROZEN
    assert not list(quantizer.parameters())
    assert torch.equal(quantizer(x), fake_quantize_dynamic(x, TENSOR))
