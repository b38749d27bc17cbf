"""Grids compared with ONNX Runtime, bit for bit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qexp.config import ActivationScheme, WeightScheme
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import QuantizationError
from qexp.quant.grid import (
    SMALLEST_SCALE,
    Grid,
    activation_grid,
    dequantize,
    fake_quantize,
    quantize,
    quantize_dequantize,
    scale_and_zero_point,
    weight_grid,
)

Array = NDArray[Any]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-38, 0.5, 1.5, -2.5]


def container(grid: Grid) -> int:
    """Smallest type of ONNX that Clip and QuantizeLinear both know and that holds the grid."""
    if grid.bits <= 8:
        return TensorProto.INT8 if grid.signed else TensorProto.UINT8
    return TensorProto.INT16 if grid.signed else TensorProto.UINT16


@lru_cache(maxsize=64)
def session(kind: int, axis: int | None, shape: tuple[int, ...], clip: str) -> onnxruntime.InferenceSession:
    """A graph from x, s, z, lo, hi to y, with Clip before Q ("float") or after it ("integer")."""
    kw = {} if axis is None else {"axis": axis}
    parameter = [] if axis is None else [shape[axis]]
    first, last = ("c", "q") if clip == "float" else ("x", "c")
    nodes = [
        helper.make_node("QuantizeLinear", [first, "s", "z"], ["q"], **kw),
        helper.make_node("DequantizeLinear", [last, "s", "z"], ["y"], **kw),
    ]
    clipped = "x" if clip == "float" else "q"
    nodes.insert(int(clip == "integer"), helper.make_node("Clip", [clipped, "lo", "hi"], ["c"]))
    limit = TensorProto.FLOAT if clip == "float" else kind
    inputs = [("x", TensorProto.FLOAT, shape), ("s", TensorProto.FLOAT, parameter), ("z", kind, parameter)]
    inputs += [("lo", limit, []), ("hi", limit, [])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return new_session(model, options)


def runtime(x: Array, scale: Array, zero: Array, grid: Grid) -> Array:
    """What ONNX Runtime makes of x."""
    kind = container(grid)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    clip = "integer" if grid.bits <= 8 else "float"
    lo, hi = np.array(grid.qmin, dtype), np.array(grid.qmax, dtype)
    if clip == "float":  # Clip does not know 16-bit integers; one scale only, see the strategy
        if grid.bits == 16:
            lo, hi = np.float32(-np.inf), np.float32(np.inf)
        else:
            with np.errstate(over="ignore"):
                lo, hi = (np.float32(end - int(zero)) * np.float32(scale) for end in (grid.qmin, grid.qmax))
    feeds = {"x": x, "s": scale, "z": zero.astype(dtype), "lo": np.array(lo), "hi": np.array(hi)}
    result: Array = session(kind, grid.axis, x.shape, clip).run(None, feeds)[0]
    return result


def bits(values: Array | torch.Tensor) -> Array:
    """The bit patterns of float32 values."""
    return np.asarray(values, dtype=np.float32).view(np.int32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Grid, Array, torch.Tensor, torch.Tensor]:
    """A grid, values, and ranges for them."""
    width, symmetric = draw(st.integers(2, 16)), draw(st.booleans())
    shape = tuple(draw(st.lists(st.sampled_from([1, 3, 5, 16, 19]), min_size=1, max_size=3)))
    per_channel = width <= 8 or width == 16
    axis = draw(st.none() | st.integers(0, len(shape) - 1)) if per_channel else None
    narrow = symmetric and width != 16 and draw(st.booleans())
    grid = Grid(width, signed=symmetric, symmetric=symmetric, narrow=narrow, axis=axis)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    magnitude = np.float32(10.0 ** draw(st.integers(-30, 30)))
    x = (rng.standard_normal(shape) * magnitude).astype(np.float32)
    specials = [*SPECIAL, np.nan] if per_channel else SPECIAL  # else NaN leaves Clip for the type's minimum
    spots = rng.random(shape) < 0.2
    x[spots] = rng.choice(np.float32(specials), int(spots.sum()))
    channels = () if axis is None else (shape[axis],)
    ends = np.sort((rng.standard_normal((2, *channels)) * magnitude).astype(np.float32), axis=0)
    return grid, x, *scale_and_zero_point(torch.tensor(ends[0]), torch.tensor(ends[1]), grid)


@settings(deadline=None, max_examples=120)
@given(cases())
def test_the_same_bits_as_onnx_runtime(case: tuple[Grid, Array, torch.Tensor, torch.Tensor]) -> None:
    grid, x, scale, zero = case
    own = fake_quantize(torch.from_numpy(x), scale, zero, grid)
    np.testing.assert_array_equal(bits(own), bits(runtime(x, scale.numpy(), zero.numpy(), grid)))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_the_fast_path_has_the_bits_of_the_reference(
    case: tuple[Grid, Array, torch.Tensor, torch.Tensor],
) -> None:
    grid, values, scale, zero = case
    x = torch.from_numpy(values)
    expanded, z = grid.expand(scale, x.dim()), grid.expand(zero, x.dim())
    fast = quantize_dequantize(x, expanded, (grid.qmin - z).float(), (grid.qmax - z).float())
    np.testing.assert_array_equal(bits(fast), bits(fake_quantize(x, scale, zero, grid)))
    flipped = x.flip(0).transpose(0, -1)
    if grid.axis is None:
        fast = quantize_dequantize(flipped, scale, (grid.qmin - zero).float(), (grid.qmax - zero).float())
        np.testing.assert_array_equal(bits(fast), bits(fake_quantize(flipped, scale, zero, grid)))


@pytest.mark.parametrize("count", [1, 3, 4, 16, 37])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("width", [8, 16])
def test_nan_becomes_the_lowest_integer_in_body_and_tail(count: int, signed: bool, width: int) -> None:
    grid = Grid(width, signed=signed, symmetric=signed)
    x, scale, zero = np.full(count, np.nan, np.float32), np.float32(0.5), np.array(0 if signed else 9)
    reference = runtime(x, np.array(scale), zero, grid)
    integers = quantize(torch.from_numpy(x), torch.tensor(0.5), torch.tensor(int(zero)), grid)
    assert set(integers.tolist()) == {grid.qmin}
    np.testing.assert_array_equal((grid.qmin - zero) * scale, np.unique(reference))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_integers_lie_on_the_grid_and_come_back(case: tuple[Grid, Array, torch.Tensor, torch.Tensor]) -> None:
    grid, x, scale, zero = case
    q = quantize(torch.from_numpy(x), scale, zero, grid)
    assert q.dtype == torch.int32
    assert int(q.min()) >= grid.qmin
    assert int(q.max()) <= grid.qmax
    assert bool((zero >= grid.qmin).all() and (zero <= grid.qmax).all())
    again = quantize(dequantize(q, scale, zero, grid), scale, zero, grid)
    assert torch.equal(again, q)


@settings(deadline=None, max_examples=100)
@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(2, 16),
    st.booleans(),
)
def test_scales_are_normal_and_zero_is_on_the_grid(a: float, b: float, width: int, symmetric: bool) -> None:
    grid = Grid(width, signed=symmetric, symmetric=symmetric)
    low, high = torch.tensor(min(a, b)), torch.tensor(max(a, b))
    scale, zero = scale_and_zero_point(low, high, grid)
    assert scale.dtype == torch.float32
    assert zero.dtype == torch.int32
    assert SMALLEST_SCALE <= float(scale) < np.inf
    assert float(fake_quantize(torch.tensor(0.0), scale, zero, grid)) == 0.0
    if a == b == 0:
        assert float(scale) == 1.0


def test_the_range_is_covered_to_half_a_step() -> None:
    x = torch.linspace(-0.3, 2.7, 1001)
    for symmetric in (True, False):
        grid = Grid(8, signed=symmetric, symmetric=symmetric)
        scale, zero = scale_and_zero_point(x.min(), x.max(), grid)
        error = (fake_quantize(x, scale, zero, grid) - x).abs().max()
        assert float(error) <= float(scale) * 0.5001 * (1 if symmetric else 2)


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (0.0, float("inf")), (1.0, -1.0)])
def test_impossible_ranges_are_refused(low: float, high: float) -> None:
    with pytest.raises(QuantizationError, match="finite and ordered"):
        scale_and_zero_point(torch.tensor(low), torch.tensor(high), Grid(8, signed=True, symmetric=True))


def test_grids_of_the_configuration() -> None:
    weight = weight_grid(4, WeightScheme())
    assert weight == Grid(4, signed=True, symmetric=True, narrow=True, axis=0)
    assert (weight.qmin, weight.qmax) == (-7, 7)
    assert weight_grid(4, WeightScheme(granularity="per_tensor")).axis is None  # type: ignore[union-attr]
    activation = activation_grid(8, ActivationScheme(symmetric=True))
    assert activation is not None
    assert (activation.qmin, activation.qmax) == (-128, 127)
    unsigned = activation_grid(8, ActivationScheme(symmetric=False))
    assert unsigned is not None
    assert (unsigned.qmin, unsigned.qmax) == (0, 255)
    assert weight_grid(32, WeightScheme()) is None
    assert activation_grid(32, ActivationScheme()) is None


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(QuantizationError, match="2 to 16"):
        Grid(1, signed=True, symmetric=True)
    with pytest.raises(QuantizationError, match="narrow"):
        Grid(8, signed=False, symmetric=False, narrow=True)
