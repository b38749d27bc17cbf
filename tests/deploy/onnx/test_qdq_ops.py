from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qexp.custom_ops import fake_quantize
from qexp.deploy.onnx.export import _quiet
from qexp.deploy.onnx.qdq_ops import TRANSLATIONS, container
from qexp.deploy.runtimes.onnxruntime.session import new_session

ROWS, CHANNELS = 3, 4
GRIDS = [(-127, 127), (-128, 127), (0, 255), (-8, 7), (0, 15), (-2, 1)]
GRIDS += [(-2048, 2047), (-32768, 32767), (0, 65535)]
"""Full and narrow, 2 to 16 bits, signed and not."""


class _AllGrids(nn.Module):
    """Every grid along every axis, in one graph, because an export takes seconds."""

    def forward(self, x, scale, zero_points):
        outputs = []
        for row, (qmin, qmax) in enumerate(GRIDS):
            for axis, index in ((-1, slice(0, 1)), (1, slice(None))):
                zero_point = zero_points[row][index]
                outputs.append(fake_quantize(x, scale[index], zero_point, axis, qmin, qmax))
        return torch.stack(outputs)


@pytest.fixture(scope="module")
def session():
    zero_points = torch.zeros(len(GRIDS), CHANNELS, dtype=torch.int32)
    example = (torch.ones(ROWS, CHANNELS), torch.ones(CHANNELS), zero_points)
    with _quiet():
        program = torch.export.export(_AllGrids(), example)
        exported = torch.onnx.export(
            program, (), custom_translation_table=TRANSLATIONS, opset_version=21, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return new_session(exported.model_proto, options)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_graph_has_the_bits_of_torch(session, data):
    scale = data.draw(arrays.arrays(np.float32, CHANNELS, elements=st.floats(2**-20, 2**10, width=32)))
    shares = data.draw(arrays.arrays(np.float64, CHANNELS, elements=st.floats(0, 1)))
    zero_points = np.stack([np.round(qmin + shares * (qmax - qmin)) for qmin, qmax in GRIDS]).astype(np.int32)
    # Multiples of half a step, so that ties and the edges of the grids come up, and anything else.
    halves = st.integers(-70_000, 70_000).map(lambda n: np.float32(n / 2) * scale[0])
    anything = st.floats(-(2.0**100), 2.0**100, width=32)
    x = data.draw(arrays.arrays(np.float32, (ROWS, CHANNELS), elements=halves | anything))
    feed = dict(zip((value.name for value in session.get_inputs()), (x, scale, zero_points), strict=True))
    expected = _AllGrids()(*map(torch.from_numpy, (x, scale, zero_points)))
    assert np.array_equal(session.run(None, feed)[0], expected.numpy())


@pytest.mark.parametrize(
    ("grid", "dtype"),
    [((-7, 7), "int8"), ((0, 255), "uint8"), ((-129, 5), "int16"), ((0, 256), "uint16")],
)
def test_container_is_the_smallest_that_fits(grid, dtype):
    assert container(*grid) == np.dtype(dtype)


def test_grid_beyond_16_bits_is_refused():
    with pytest.raises(ValueError, match="16 bits"):
        container(-1, 40_000)
