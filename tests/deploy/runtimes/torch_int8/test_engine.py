from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.onnxruntime.engine import as_written
from qexp.deploy.runtimes.torch_int8 import engine as runtime
from qexp.deploy.runtimes.torch_int8.translate import ComputeOptions, translate
from qexp.errors import DeployError
from tests.conftest import tiny_config
from tests.support import tiny_encoders
from tests.support.graphs import Exported, export
from tests.support.qdq_graphs import SIZE, _graph, _plainly
from tests.support.tiny_encoders import VOCABULARY, batch

pytestmark = pytest.mark.slow

QUANTIZED = {
    "w8a8": ("quant=w8a8", "placement=gemm", "scheme=per_channel"),
    "w8a8 symmetric": ("quant=w8a8", "placement=gemm", "scheme=symmetric"),
    "w8a8 per tensor": ("quant=w8a8", "placement=linear", "scheme=per_tensor"),
    "w4a8": ("quant=w4a8", "placement=gemm", "scheme=per_channel"),
    "w4a4 symmetric": ("quant=w4a4", "placement=gemm", "scheme=symmetric"),
    "w8a16": ("quant=w8a16", "placement=gemm", "scheme=per_channel"),
    "w8a32": ("quant=w8a32", "placement=gemm", "scheme=per_channel"),
    "everywhere": ("quant=w8a8", "placement=bondarenko", "scheme=per_channel"),
    "tables": ("quant=w8a8", "placement=neurst", "scheme=symmetric"),
    "groups": ("quant=w8a16", "placement=linear", "scheme=embedding_groups"),
    "for this cpu": ("recipe=fast_cpu",),
}
LINEAR = 8
"""Linear layers of the tiny encoder."""
INTEGER = {
    "w8a8": LINEAR, "w8a8 symmetric": LINEAR, "w8a8 per tensor": LINEAR, "w4a8": LINEAR,
    "w4a4 symmetric": LINEAR, "for this cpu": LINEAR, "everywhere": LINEAR - 1, "w8a16": 0,
    "w8a32": 0, "groups": 0,
}  # fmt: skip
"""Products of integers; the first token is taken of what is dequantized where everything is quantized."""


@pytest.fixture(scope="module", params=QUANTIZED)
def quantized(request, tmp_path_factory):
    return request.param, export(tmp_path_factory.mktemp("graph"), *QUANTIZED[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory):
    return export(tmp_path_factory.mktemp("eight"), *QUANTIZED["w8a8"])


def test_quantized_graph_gives_what_the_file_and_torch_say(quantized):
    name, case = quantized
    engine = load("torch_int8", EngineSpec(case.path, "int8", 1))
    logits = engine.run(case.batch)
    largest = np.abs(case.expected).max()
    assert logits.dtype == np.float32
    written = as_written(EngineSpec(case.path, "int8", 1)).run(case.batch)
    # With 16 bits a step is hardly above the effect of the order of a sum.
    np.testing.assert_allclose(logits, written, atol=(3e-6 if INTEGER.get(name, 1) else 1e-4) * largest)
    # Fake quantization sums in another order, which may push a tie over.
    np.testing.assert_allclose(logits, case.expected, atol=3e-4 * largest)
    result = engine.audit(case.batch)
    integer = [each for each in result.products if each.integer]
    assert len(integer) == INTEGER.get(name, len(integer))
    assert {each.kernel for each in integer} <= {"_int_mm"}
    assert len(result.products) == LINEAR + 2


@settings(max_examples=12)
@given(rows=st.integers(1, 9), length=st.integers(1, 40), which=st.sampled_from(["eight_bits", "plain"]))
def test_every_shape_gives_what_the_file_says(request, rows, length, which):
    case: Exported = request.getfixturevalue(which)
    spec = EngineSpec(case.path, "int8" if which == "eight_bits" else "fp32", 1)
    feed = batch(tuple(case.batch), rows, length)
    logits, written = load("torch_int8", spec).run(feed), as_written(spec).run(feed)
    np.testing.assert_allclose(logits, written, atol=3e-6 * np.abs(written).max())


@pytest.mark.parametrize("words", [(), QUANTIZED["w8a8"]], ids=["fp32", "int8"])
@pytest.mark.parametrize("architecture", ["roberta", "electra", "distilbert", "mobilebert"])
def test_every_architecture(architecture, words, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_encoders.CONFIGS, "mobilebert", tiny_config("mobilebert", VOCABULARY))
    case = export(tmp_path, *words, architecture=architecture)
    spec = EngineSpec(case.path, "int8" if words else "fp32", 1)
    engine, written = load("torch_int8", spec), as_written(spec).run(case.batch)
    largest = np.abs(written).max()
    np.testing.assert_allclose(engine.run(case.batch), written, atol=1e-5 * largest)
    products = engine.audit(case.batch).products
    assert any(each.integer for each in products) == bool(words)


@pytest.mark.parametrize("activation", [np.int8, np.uint8, None])
@pytest.mark.parametrize("products", [1, 3])
def test_largest_values_give_the_numbers_of_the_file(products, activation, tmp_path):
    model = _graph(products, activation, zero_point=5)
    onnx.save(model, tmp_path / "m.onnx")
    values = np.random.default_rng(1).integers(50, 70, (5, SIZE))
    values[1] *= -1
    got = load("torch_int8", EngineSpec(tmp_path / "m.onnx", "int8", 1)).run({"x": values})
    np.testing.assert_allclose(got, _plainly(model, values), rtol=2e-6)


def test_a_weight_with_a_zero_point_is_multiplied_in_floating_point(tmp_path):
    model = _graph()
    for tensor in model.graph.initializer:
        if tensor.name == "w0_zero":
            tensor.CopyFrom(numpy_helper.from_array(np.full(SIZE, 3, np.int8), tensor.name))
    onnx.save(model, tmp_path / "m.onnx")
    values = {"x": np.random.default_rng(1).integers(-70, 70, (5, SIZE))}
    engine = load("torch_int8", EngineSpec(tmp_path / "m.onnx", "int8", 1))
    np.testing.assert_allclose(engine.run(values), _plainly(model, values["x"]), rtol=1e-5)
    (product,) = engine.audit(values).products
    assert (product.integer, product.kernel, product.macs) == (False, "mm", 5 * SIZE * SIZE)


def test_kernels_that_saturate_are_not_used(eight_bits, monkeypatch):
    monkeypatch.setattr(runtime, "exact", lambda device: False)
    engine = load("torch_int8", EngineSpec(eight_bits.path, "int8", 1))
    np.testing.assert_allclose(engine.run(eight_bits.batch), eight_bits.expected, rtol=1e-3, atol=1e-4)
    assert engine.audit(eight_bits.batch).integer_share == 0


def test_without_vnni_the_product_of_this_cpu_is_still_looked_at():
    code = "from qexp.deploy.runtimes.torch_int8.int8_matmul import exact; print(exact('cpu'))"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=200
    )
    assert done.stdout.strip() in ("True", "False")


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="no emulator: apt-get install qemu-user")
def test_a_cpu_without_vnni_multiplies_exactly():
    """Unlike one with VNNI whose oneDNN is told to be older (see above): that may saturate, this does not."""
    code = "from qexp.deploy.runtimes.torch_int8.int8_matmul import exact; print(exact('cpu'))"
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout.strip() == "True"


def test_the_audit_counts_the_work(eight_bits):
    result = load("torch_int8", EngineSpec(eight_bits.path, "int8", 1)).audit(eight_bits.batch)
    rows, tokens = result.shape
    assert result.shape == (6, 11)
    width, inner, labels = 32, 64, 3
    layer = rows * tokens * (4 * width * width + 2 * width * inner)
    head = rows * (width * width + width * labels)
    scores = 2 * rows * tokens * tokens * width
    assert sum(each.macs for each in result.products) == layer + head + scores
    assert result.integer_share == pytest.approx(100 * (layer + head) / (layer + head + scores))
    assert {each.kernel for each in result.in_float} == {"bmm"}
    assert result.nodes["MatMul"] + result.nodes["Gemm"] == LINEAR + 2
    assert result.conversions > 0
    assert any(each.name.endswith("dense/MatMul") for each in result.products)


def test_attention_without_quantizers_is_one_call_with_both_products_told(plain, tmp_path):
    engine = load("torch_int8", EngineSpec(plain.path, "fp32", 1))
    result = engine.audit(plain.batch)
    attention = [each for each in result.products if each.kernel == "scaled_dot_product_attention"]
    assert [each.macs for each in attention] == [6 * 11 * 11 * 32] * 2
    assert result.nodes["Attention"] == 1 and "Softmax" not in result.nodes
    model = onnx.load(plain.path)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.helper.make_tensor_value_info(softmax.output[0], TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "m.onnx")  # whose probabilities are wanted, too
    apart = load("torch_int8", EngineSpec(tmp_path / "m.onnx", "fp32", 1))
    assert {each.kernel for each in apart.audit(plain.batch).in_float} == {"mm", "bmm"}
    np.testing.assert_allclose(apart.run(plain.batch), engine.run(plain.batch), rtol=1e-4, atol=1e-5)


def test_precisions_of_a_float_graph(plain):
    exact = load("torch_int8", EngineSpec(plain.path, "fp32", 1))
    np.testing.assert_allclose(exact.run(plain.batch), plain.expected, rtol=1e-4, atol=1e-5)
    bf16 = load("torch_int8", EngineSpec(plain.path, "bf16", 1))
    difference = np.abs(bf16.run(plain.batch) - plain.expected).max()
    assert 1e-6 < difference < 0.1 * np.abs(plain.expected).max()
    info = bf16.info
    assert (info.runtime, info.precision, info.bytes) == ("torch_int8", "bf16", plain.path.stat().st_size)
    assert info.version == torch.__version__ and info.build_seconds > 0
    if not torch.cuda.is_available():
        assert info.memory_bytes is None
        with pytest.raises(DeployError, match=r"precision fp16.*allowed here are fp32, bf16, int8"):
            load("torch_int8", EngineSpec(plain.path, "fp16", 1))


def test_half_precision_is_close_and_finite_with_masked_rows(plain, eight_bits):
    """The form that a GPU computes in, slowly: what is left of numbers there, and that no mask overflows."""
    for case, integer in ((plain, False), (eight_bits, True)):
        module = translate(onnx.load(case.path), ComputeOptions(torch.device("cpu"), torch.float16, integer))
        feed = case.batch | {"attention_mask": case.batch["attention_mask"] * (np.arange(6) > 0)[:, None]}
        written = as_written(EngineSpec(case.path, "int8", 1)).run(feed)
        logits = module(*map(torch.from_numpy, feed.values())).float().numpy()
        assert np.isfinite(logits).all()
        np.testing.assert_allclose(logits[1:], written[1:], atol=0.05 * np.abs(written).max())


class Counted:
    """torch.compile without a compiler: keeps count of what it would compile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.options = 0, []
        real = torch.compile

        def backend(module: Any, example: Any) -> Any:
            self.count += 1
            return module.forward

        def compile(module: Any, *, dynamic: bool, options: Any = None) -> Any:
            self.options.append(options)
            return real(module, dynamic=dynamic, backend=backend)

        monkeypatch.setattr(torch, "compile", compile)


def test_each_known_length_is_compiled_twice_and_all_others_once(eight_bits, monkeypatch):
    counted = Counted(monkeypatch)
    module = translate(onnx.load(eight_bits.path), ComputeOptions(torch.device("cpu"), torch.float32, True))
    compiled = runtime.CompiledByLength(module, ((1, 11), (8, 11)))

    def total(*shapes: tuple[int, int]) -> int:
        for shape in shapes:
            inputs = tuple(map(torch.from_numpy, batch(tuple(eight_bits.batch), *shape).values()))
            with torch.no_grad():
                assert torch.equal(compiled(*inputs), module(*inputs))
        return counted.count

    assert total((1, 11)) == 1
    assert total((2, 11), (8, 11), (3, 11), (1, 11)) == 2
    assert total((2, 5), (3, 6), (9, 12), (20, 30)) == 3
    assert [bool(each) for each in counted.options] == [True, True, False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_results_are_close_and_memory_is_told(plain, eight_bits):
    for case, precision in ((plain, "fp32"), (plain, "fp16"), (plain, "bf16"), (eight_bits, "int8")):
        engine = load("torch_int8", EngineSpec(case.path, precision, 1, shapes=((1, 11), (6, 11))))
        assert engine.info.memory_bytes > 0 and engine.info.device == torch.cuda.get_device_name()
        for shape in ((6, 11), (1, 11), (3, 7)):
            feed = batch(tuple(case.batch), *shape)
            written = as_written(EngineSpec(case.path, precision, 1)).run(feed)
            np.testing.assert_allclose(engine.run(feed), written, atol=0.1 * np.abs(written).max())


@pytest.mark.parametrize("operator", ["NonMaxSuppression", "NoSuchOperator"])
def test_an_unknown_operator_is_named_with_the_runtimes_that_take_it(operator, plain, tmp_path):
    foreign = onnx.load(plain.path)
    next(node for node in foreign.graph.node if node.op_type == "Tanh").op_type = operator
    onnx.save(foreign, tmp_path / "m.onnx")
    with pytest.raises(DeployError, match=f"operator {operator}; run the graph in onnxruntime or openvino"):
        load("torch_int8", EngineSpec(tmp_path / "m.onnx", "fp32", 1))


def test_an_unknown_type_is_named(plain, tmp_path):
    foreign = onnx.load(plain.path)
    node = next(node for node in foreign.graph.node if node.op_type == "Cast")
    node.attribute[0].i = TensorProto.STRING
    onnx.save(foreign, tmp_path / "m.onnx")
    with pytest.raises(DeployError, match="type STRING; run the graph in onnxruntime"):
        load("torch_int8", EngineSpec(tmp_path / "m.onnx", "fp32", 1))


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07\x12\x03abc"])
def test_damaged_and_missing_files_are_refused(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    for name in ("m.onnx", "no.onnx"):
        with pytest.raises(DeployError, match=f"{name}.*export"):
            load("torch_int8", EngineSpec(tmp_path / name, "int8", 1))


def test_what_does_not_fit_a_graph_is_refused(plain: Exported):
    engine = load("torch_int8", EngineSpec(plain.path, "fp32", 1))
    good = plain.batch
    with pytest.raises(DeployError, match=r"add \['input_ids'\], leave out \['y'\]"):
        engine.run({name.replace("input_ids", "y"): values for name, values in good.items()})
    with pytest.raises(DeployError, match=r"41 tokens.*positions for 40"):
        engine.run(batch(engine.inputs, 2, 41))
    with pytest.raises(DeployError, match=r"input_ids holds 4 to 50.*rows 0 to 49"):
        engine.run({name: np.full((1, 2), 4) for name in good} | {"input_ids": np.array([[4, 50]])})
    with pytest.raises(DeployError, match=r"shape \(1, 4, 3\), the graph takes 2 axes"):
        engine.run({name: np.ones((1, 4, 3), np.int64) for name in good})
    with pytest.raises(DeployError, match=r"refuses it, with shapes.*\(6, 5\)"):
        engine.run(good | {"attention_mask": np.ones((6, 5), np.int64)})
    with pytest.raises(TypeError, match="safe"):
        engine.run({name: values.astype(np.float32) for name, values in good.items()})
    np.testing.assert_allclose(engine.run(good), plain.expected, rtol=1e-4, atol=1e-5)


def test_out_of_memory_names_the_shape_and_the_engine_goes_on(plain, monkeypatch):
    engine = load("torch_int8", EngineSpec(plain.path, "fp32", 1))

    def fail(*inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as context:
        context.setattr(engine, "_module", fail)
        with pytest.raises(DeployError, match=r"no memory for shapes.*\(6, 11\).*fewer rows"):
            engine.run(plain.batch)
    np.testing.assert_allclose(engine.run(plain.batch), plain.expected, rtol=1e-4, atol=1e-5)


def test_threads_are_those_of_before_after_a_run(plain):
    before = torch.get_num_threads()
    engine = load("torch_int8", EngineSpec(Path(plain.path), "fp32", before + 1))
    engine.run(plain.batch)
    assert torch.get_num_threads() == before
