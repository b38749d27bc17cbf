from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.io import read
from qexp.deploy.onnx.packing import SMALLEST
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import DeployError
from tests.support.tiny_encoders import EXAMPLE, QuantizedLinear, batch, encoder, quantized, torch_logits

pytestmark = pytest.mark.integer_products

SHAPES = [(1, 1), (1, 9), (3, 3), (5, 38)]
"""Rows and tokens; (3, 3) because equal sizes must not become one axis."""


def _run_plainly(path: Path, values: dict[str, np.ndarray]) -> np.ndarray:
    """Run node by node, without any fusion."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(path, options)
    return session.run(None, values)[0]


def _export(folder: Path, model: nn.Module, **bits) -> SimpleNamespace:
    path = folder / "model.onnx"
    export_onnx(model, path, example=EXAMPLE)
    return SimpleNamespace(
        path=path,
        model=model,
        proto=onnx.load(path),
        session=OnnxRuntimeEngine(EngineSpec(path, "int8", 1)),
        **bits,
    )


@pytest.fixture(scope="module")
def own_attention():
    """An attention function of the user's, as transformers lets one register it."""

    def attend(*args, **kwargs):
        return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register("own", attend)
    AttentionMaskInterface.register("own", sdpa_mask)
    return "own"


CASES = {
    "bert": ("sdpa", {"weight_bits": 8, "activation_bits": 8}),
    "roberta": ("eager", {"weight_bits": 4, "activation_bits": 4}),
    "distilbert": ("sdpa", {"weight_bits": 8, "activation_bits": 8, "signed": False}),
    "electra": ("own", {"weight_bits": 16, "activation_bits": 16}),
}


FAST = ("bert", "electra")
"""The others repeat the walk with another architecture, 4 bits and unsigned activations."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CASES],
)
def exported(request, tmp_path_factory, own_attention):
    attention, bits = CASES[request.param]
    model = quantized(encoder(request.param, attention), **bits)
    return _export(tmp_path_factory.mktemp(request.param), model, **bits)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return _export(tmp_path_factory.mktemp("plain"), encoder("bert"))


def test_graph_agrees_with_torch_at_every_shape(exported):
    differences = []
    for rows, length in SHAPES:
        values = batch(exported.session.inputs, rows, length)
        expected = torch_logits(exported.model, values)
        for logits in (_run_plainly(exported.path, values), exported.session.run(values)):
            assert logits.shape == expected.shape
            differences.append(np.abs(logits - expected).max(axis=1))
    # Sums in another order may push a tie over, which moves a value by a whole step of its grid: rarely.
    assert np.mean(np.concatenate(differences) < 5e-4) >= 0.8


def test_float_graph_agrees_with_torch_at_every_shape(plain):
    for rows, length in SHAPES:
        values = batch(plain.session.inputs, rows, length)
        expected = torch_logits(plain.model, values)
        np.testing.assert_allclose(plain.session.run(values), expected, rtol=1e-4, atol=1e-5)


def test_inputs_and_output_are_named_and_dynamic(exported):
    graph = exported.proto.graph
    taken = [name for name in EXAMPLE if name in exported.session.inputs]
    assert [value.name for value in graph.input] == taken
    assert taken[:2] == ["input_ids", "attention_mask"]
    for value in graph.input:
        assert value.type.tensor_type.elem_type == TensorProto.INT64
        assert [size.dim_param for size in value.type.tensor_type.shape.dim] == ["batch", "length"]
    assert [value.name for value in graph.output] == ["logits"]


def test_weights_stay_integers_of_one_scale_per_output(exported):
    proto = read(exported.path)  # 4 bits in whole bytes
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    wanted = TensorProto.INT8 if exported.weight_bits <= 8 else TensorProto.INT16
    linears = [module for module in exported.model.modules() if isinstance(module, QuantizedLinear)]
    matches = []
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            weight, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            (axis,) = (attribute.i for attribute in node.attribute if attribute.name == "axis")
            assert {stored[node.input[0]].data_type, stored[node.input[2]].data_type} == {wanted}
            matches.append(np.moveaxis(weight, axis, 0) * scale[:, None])
    assert len(matches) == len(linears)
    for linear in linears:
        expected = (linear.integers * linear.scale[:, None]).numpy()
        assert any(weight.shape == expected.shape and np.array_equal(weight, expected) for weight in matches)


def test_quantized_products_read_dequantized_values_directly(exported):
    made_by = {name: node for node in exported.proto.graph.node for name in node.output}
    products = [node for node in exported.proto.graph.node if node.op_type in ("MatMul", "Gemm")]
    fed = [[made_by.get(name) for name in node.input[:2]] for node in products]
    linears = sum(isinstance(module, QuantizedLinear) for module in exported.model.modules())
    assert sum(all(node and node.op_type == "DequantizeLinear" for node in pair) for pair in fed) == linears


def test_only_grids_narrower_than_their_type_are_clipped(exported):
    clips = [node for node in exported.proto.graph.node if node.op_type == "Clip"]
    assert bool(clips) == (exported.activation_bits not in (8, 16))


def test_opset_is_the_lowest_that_knows_the_bits(exported):
    assert exported.proto.opset_import[0].version == (20 if exported.weight_bits == 8 else 21)


def test_integer_weights_take_their_own_size_in_the_file(exported):
    """Half a byte for 4 bits, one for 8, where float32 takes four; no float copy is left beside them."""
    matrices = [tensor for tensor in exported.proto.graph.initializer if len(tensor.dims) == 2]
    others = ("_embeddings.weight", "_ids")
    stored = sum(len(tensor.raw_data) for tensor in matrices if not tensor.name.endswith(others))
    linears = [module for module in exported.model.modules() if isinstance(module, QuantizedLinear)]
    counts = [linear.integers.numel() for linear in linears]
    half = {4: 1, 8: 2, 16: 4}[exported.weight_bits]
    assert stored == sum(count * (half if count >= SMALLEST else max(2, half)) // 2 for count in counts)


def test_graph_tells_nothing_about_where_it_was_made(exported):
    content = exported.path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_model_keeps_its_mode_and_a_second_export_is_the_same_file(plain, capfd):
    plain.model.train()
    other = plain.path.with_name("other.onnx")
    export_onnx(plain.model, other, example={name: values.repeat(3, 2) for name, values in EXAMPLE.items()})
    assert all(module.training for module in plain.model.modules())
    assert other.read_bytes() == plain.path.read_bytes()
    assert {file.name for file in plain.path.parent.iterdir()} == {"model.onnx", "other.onnx"}
    assert capfd.readouterr() == ("", "")
    plain.model.eval()


def test_missing_input_is_named(tmp_path):
    with pytest.raises(DeployError, match="attention_mask"):
        export_onnx(encoder("bert"), tmp_path / "m.onnx", example={"input_ids": EXAMPLE["input_ids"]})


class _Branching(nn.Module):
    def forward(self, input_ids):
        return input_ids.float() if input_ids.sum() > 3 else input_ids.float() + 1


def test_model_that_cannot_be_traced_leaves_no_file(tmp_path):
    with pytest.raises(DeployError, match="_Branching cannot be traced"):
        export_onnx(_Branching(), tmp_path / "m.onnx", example=EXAMPLE)
    assert not list(tmp_path.iterdir())


def test_inserted_calibrated_exported(tmp_path):
    from qexp.quant.insertion.insert import insert

    model = encoder("bert")
    sites = ("linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value")
    quantization = insert(model, QuantizationConfig(placement=Placement(name="all", sites=sites)))
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    with quantization.export_mode():
        case = _export(tmp_path, model)
        feed = batch(case.session.inputs, 6, 11)
        expected = torch_logits(model, feed)
    np.testing.assert_allclose(case.session.run(feed), expected, atol=0.03 * np.abs(expected).max())
    assert all(node.domain == "" for node in case.proto.graph.node)


@pytest.mark.parametrize(
    ("granularity", "symmetric"),
    [
        ("per_channel", True),
        ("per_tensor", False),
        pytest.param("per_channel", False, marks=pytest.mark.slow),
        pytest.param("per_tensor", True, marks=pytest.mark.slow),
    ],
)
def test_tables_stay_integers_and_are_looked_up_as_such(tmp_path, granularity, symmetric):
    from qexp.quant.insertion.insert import insert
    from tests.support.tiny_models import NEURST

    model = encoder("bert")
    scheme = Scheme(
        weight=WeightScheme(granularity=granularity, symmetric=symmetric),
        activation=ActivationScheme(symmetric=symmetric),
    )
    quantization = insert(model, QuantizationConfig(placement=NEURST, scheme=scheme))
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    with quantization.export_mode():
        case = _export(tmp_path, model)
        feed = batch(case.session.inputs, 6, 11)
        expected = torch_logits(model, feed)
    for logits in (_run_plainly(case.path, feed), case.session.run(feed)):
        np.testing.assert_allclose(logits, expected, atol=0.03 * np.abs(expected).max())
    stored = {tensor.name: tensor for tensor in case.proto.graph.initializer}
    tables = [node for node in case.proto.graph.node if node.op_type == "Gather" and node.input[0] in stored]
    kinds = [stored[node.input[0]].data_type for node in tables if len(stored[node.input[0]].dims) == 2]
    assert kinds == [TensorProto.INT8] * 3
    floats = [
        each
        for each in stored.values()
        if each.data_type == TensorProto.FLOAT and len(each.dims) == 2 and min(each.dims) > 1
    ]
    assert not floats


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_groups_of_dimensions_are_scales_along_the_last_axis(tmp_path, bits):
    from qexp.quant.insertion.insert import insert

    model = encoder("bert")
    activation = ActivationScheme(granularity="per_embedding_group", groups=5)
    placement = Placement(name="inputs", sites=("linear.weight", "linear.input"))
    quant_config = QuantizationConfig(
        placement=placement, quant=Quant(activation_bits=bits), scheme=Scheme(activation=activation)
    )
    quantization = insert(model, quant_config)
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"], dimensions=True), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    with quantization.export_mode():
        case = _export(tmp_path, model)
        feed = batch(case.session.inputs, 6, 11)
        expected = torch_logits(model, feed)
    for logits in (_run_plainly(case.path, feed), case.session.run(feed)):
        np.testing.assert_allclose(logits, expected, atol=0.03 * np.abs(expected).max())
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in case.proto.graph.initializer}
    nodes = [node for node in case.proto.graph.node if node.op_type == "QuantizeLinear"]
    scales = [stored[node.input[1]] for node in nodes]
    along = [{each.name: each.i for each in node.attribute}.get("axis") for node in nodes]
    widths = [
        (len(scale), len(np.unique(scale)), axis)
        for scale, axis in zip(scales, along, strict=True)
        if scale.ndim
    ]
    assert sorted(widths) == [(32, 5, 2)] * 3 + [(64, 5, 2)]
    assert not [name for name in stored if "members" in name]  # constants, not looked up by the runtime
