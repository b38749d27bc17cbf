"""How far a graph's own rounding moves its outputs: what a difference between runtimes is held against."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper

from qexp.deploy.runtimes.onnxruntime.session import new_session

SEEDS = 8
SMALL = 2.0**-19


def without_ties(model: ModelProto, seed: int = 0) -> ModelProto:
    """Make scales of activations up to one percent larger, in place, equal ones alike.

    Ranges of what is quantized already are whole multiples of a step, so that values lie exactly between two
    steps of the next grid, by the thousand, and each runtime may round those as it likes. Beside arbitrary
    scales there are no such ties.
    """
    generator = np.random.default_rng(seed)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    stored = [each for each in model.graph.initializer if each.name in scales]
    factors = dict[bytes, float]()
    for tensor in sorted(stored, key=lambda each: each.name):
        values = numpy_helper.to_array(tensor)
        factor = factors.setdefault(values.tobytes(), 1 + 0.01 * generator.random())
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values * factor, np.float32), tensor.name))
    return model


def floor(model: ModelProto, feed: dict[str, np.ndarray]) -> float:
    """Largest change of any output when what each quantizer reads moves by up to one part in 2**19.

    A product of 64 numbers, summed in another order in float32, or a norm computed in another way, moves by
    some units in the last place of its largest part: the root of 64 is 8, and 16 are one part in 2**19. Half
    of that explains all compositions but one, where a sum that cancels lies 1.2e-6 of itself beside a tie.
    """
    expected = plainly(model, feed)
    return max(float(np.abs(plainly(_moved(model, seed), feed) - expected).max()) for seed in range(SEEDS))


def plainly(model: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Run node by node, without any optimization."""
    return session(model, optimized=False).run(None, feed)[0]


def bare(model: ModelProto, feed: dict[str, np.ndarray], *, floats: bool = False) -> np.ndarray:
    """Run without options, but for the one that CPUs without VNNI need.

    With ``floats``, also the one without which float activations beside 4-bit blocks are quantized.
    """
    return session(model, floats=floats).run(None, feed)[0]


def session(
    model: ModelProto, *, optimized: bool = True, floats: bool = False
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # constants that a rewritten node no longer reads are no news
    if floats:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return new_session(model, options)


def _moved(model: ModelProto, seed: int) -> ModelProto:
    """With the scale of each ``QuantizeLinear`` a little up or down; what dequantizes keeps its own."""
    moved, generator = onnx.ModelProto(), np.random.default_rng(seed)
    moved.CopyFrom(model)
    stored = {each.name: each for each in moved.graph.initializer}
    for node in moved.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in stored:
            values = numpy_helper.to_array(stored[node.input[1]])
            name = f"{node.output[0]}.moved_scale"
            parts = generator.uniform(-SMALL, SMALL, values.shape)
            stepped = np.asarray(values * (1 + parts), np.float32)
            moved.graph.initializer.append(numpy_helper.from_array(stepped, name))
            node.input[1] = name
    return moved
