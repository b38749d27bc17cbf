from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.hardware import exact_products_forced
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.openvino import engine as runtime
from qexp.deploy.runtimes.openvino.rewrites import safe_quantizers
from qexp.errors import DeployError
from tests.support.graphs import Exported, export
from tests.support.qdq_graphs import SIZE, _graph, _plainly
from tests.support.tiny_encoders import batch

pytestmark = [pytest.mark.slow, pytest.mark.integer_products]

QUANTIZED = {
    "w8a8": ("quant=w8a8", "placement=gemm", "scheme=per_channel"),
    "w8a8 symmetric": ("quant=w8a8", "placement=gemm", "scheme=symmetric"),
    "w8a8 per tensor": ("quant=w8a8", "placement=linear", "scheme=per_tensor"),
    "w4a8": ("quant=w4a8", "placement=gemm", "scheme=per_channel"),
    "w4a4 symmetric": ("quant=w4a4", "placement=gemm", "scheme=symmetric"),
    "w8a16": ("quant=w8a16", "placement=gemm", "scheme=per_channel"),
    "w4a16 symmetric": ("quant=w4a16", "placement=gemm", "scheme=symmetric"),
    "w8a32": ("quant=w8a32", "placement=gemm", "scheme=per_channel"),
    "everywhere": ("quant=w8a8", "placement=bondarenko", "scheme=per_channel"),
    "tables": ("quant=w8a8", "placement=neurst", "scheme=symmetric"),
    "groups": ("quant=w8a16", "placement=linear", "scheme=embedding_groups"),
}
INTEGER = {"w8a8": "u8", "w8a8 symmetric": "i8", "w8a8 per tensor": "u8", "w4a8": "u8", "everywhere": "u8"}
"""Type that every linear layer reads its activations in, unless products of wide weights would saturate."""
NARROW = {"w4a8"}
"""Those whose weights cannot saturate."""


@pytest.fixture(scope="module", params=QUANTIZED)
def quantized(request, tmp_path_factory):
    return request.param, export(tmp_path_factory.mktemp("graph"), *QUANTIZED[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp("plain"))


def _kinds(engine: runtime.OpenVinoEngine) -> list[str]:
    """Kernel and precision of every executed node."""
    facts = [node.get_rt_info() for node in engine._compiled.get_runtime_model().get_ordered_ops()]
    return [f"{each['layerType'].astype(str)}:{each['runtimePrecision'].astype(str)}" for each in facts]


def test_quantized_graph_gives_what_torch_gives(quantized):
    name, case = quantized
    engine = load("openvino", EngineSpec(case.path, "int8", 1))
    logits = engine.run(case.batch)
    assert logits.dtype == np.float32
    # Sums in another order may push a tie over; with 16 bits a step is hardly above that order's own effect.
    np.testing.assert_allclose(logits, case.expected, atol=3e-4 * np.abs(case.expected).max())
    linears = [kind for kind in _kinds(engine) if kind.startswith("FullyConnected")]
    assert len(linears) == 8
    if name in INTEGER:
        if name not in NARROW and (exact_products_forced() or runtime._products_saturate()):
            assert engine.audit(case.batch).integer_share == 0
        else:
            assert set(linears) == {f"FullyConnected:{INTEGER[name]}"}


def test_float_graph_gives_what_torch_gives_at_every_shape(plain):
    engine = load("openvino", EngineSpec(plain.path, "fp32", 1, shapes=((6, 11),)))
    np.testing.assert_allclose(engine.run(plain.batch), plain.expected, rtol=1e-4, atol=1e-5)
    for shape in [(1, 1), (3, 3), (2, 40)]:
        assert engine.run(batch(engine.inputs, *shape)).shape == (shape[0], 3)
    again = engine.run(plain.batch)
    engine.run(batch(engine.inputs, 6, 11) | {"token_type_ids": np.ones((6, 11), np.int64)})
    np.testing.assert_allclose(again, plain.expected, rtol=1e-4, atol=1e-5)  # not overwritten by the next
    assert engine.info.runtime == "openvino" and engine.info.bytes == plain.path.stat().st_size
    assert openvino.get_version().startswith(engine.info.version)
    assert "-nthreads 1 -infer_precision f32" in engine.info.command
    assert "input_ids[6,11]" in engine.info.command


def test_bfloat16_where_the_cpu_has_it_and_never_half_by_another_name(plain):
    known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability in (("bf16", "BF16"), ("fp16", "FP16")):
        if capability in known:
            engine = load("openvino", EngineSpec(plain.path, precision, 1))
            difference = np.abs(engine.run(plain.batch) - plain.expected).max()
            assert 1e-6 < difference < 0.05 * np.abs(plain.expected).max()
        else:
            with pytest.raises(DeployError, match=f"precision {precision}.*allowed here are fp32"):
                load("openvino", EngineSpec(plain.path, precision, 1))


WEIGHTS = {
    "narrow": lambda wide: wide // 2,
    "paired": lambda wide: np.resize([[127], [1]], (SIZE, 1)).repeat(SIZE, 1),
    "unpaired": lambda wide: np.resize([[127, 1]], (SIZE, SIZE)),
}
"""Of 7 bits; beyond them, with neighbours along the contracted axis that fit 16 bits; along the other."""
SATURATING = """
import json, sys
import numpy as np
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.openvino import engine as runtime
from qexp.deploy.runtimes.openvino.rewrites import safe_quantizers
from pathlib import Path
results = []
for path in sys.argv[1:]:
    engine = runtime.load(EngineSpec(Path(path), "int8", 1))
    feed = dict(np.load(Path(path).with_suffix(".npz")))
    results.append(engine.run(feed).tolist())
print(json.dumps([runtime._products_saturate(), results]))
"""


def test_without_vnni_only_what_cannot_saturate_is_left_to_integers(tmp_path):
    """oneDNN, told that the CPU is an older one, takes the kernels that it has for that."""
    graphs = {"wide": _graph(), "unsigned": _graph(activation=np.uint8, zero_point=5), "narrow": _graph()}
    graphs |= {"paired": _graph(), "unpaired": _graph()}
    for name, model in graphs.items():
        for tensor in model.graph.initializer:
            if tensor.name == "w0" and name in WEIGHTS:
                changed = WEIGHTS[name](numpy_helper.to_array(tensor)).astype(np.int8)
                tensor.CopyFrom(numpy_helper.from_array(changed, "w0"))
        values = np.random.default_rng(1).integers(50, 70, (5, SIZE))
        np.savez(tmp_path / f"{name}.npz", x=values)
        onnx.save(model, tmp_path / f"{name}.onnx")
    paths = [str(tmp_path / f"{name}.onnx") for name in graphs]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", SATURATING, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    saturates, results = json.loads(done.stdout.splitlines()[-1])
    if not saturates:
        pytest.skip("this OpenVINO does not take kernels of an older CPU when told so")
    for (name, model), logits in zip(graphs.items(), results, strict=True):
        np.testing.assert_allclose(logits, _plainly(model, values), rtol=1e-5)
        assert safe_quantizers(model) == ({"q"} if name in ("narrow", "paired") else set())


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="no emulator: apt-get install qemu-user")
def test_a_cpu_without_vnni_saturates_and_the_engine_does_not(tmp_path):
    models, values = (_graph(), _graph()), np.random.default_rng(1).integers(50, 70, (5, SIZE))
    for tensor in models[1].graph.initializer:
        if tensor.name == "w0":
            changed = WEIGHTS["paired"](numpy_helper.to_array(tensor)).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(changed, "w0"))
    paths = [tmp_path / "wide.onnx", tmp_path / "paired.onnx"]
    for path, model in zip(paths, models, strict=True):
        np.savez(path.with_suffix(".npz"), x=values)
        onnx.save(model, path)
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", SATURATING, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    saturates, logits = json.loads(done.stdout.splitlines()[-1])
    assert saturates
    for model, each in zip(models, logits, strict=True):
        np.testing.assert_allclose(each, _plainly(model, values), rtol=1e-5)


@pytest.mark.parametrize("saturates", [False, True], ids=["this_cpu", "without_vnni"])
@pytest.mark.parametrize("products", [1, 3])
def test_largest_values_give_the_numbers_of_the_file(products, saturates, tmp_path, monkeypatch):
    saturates = saturates or runtime._products_saturate()
    monkeypatch.setattr(runtime, "_products_saturate", lambda: saturates)
    model = _graph(products)
    onnx.save(model, tmp_path / "m.onnx")
    values = np.random.default_rng(1).integers(50, 70, (5, SIZE))
    got = runtime.load(EngineSpec(tmp_path / "m.onnx", "int8", 1)).run({"x": values})
    np.testing.assert_allclose(got, _plainly(model, values), rtol=2e-6)


def _pair(scale: float, zero_point: int, kind: type) -> onnx.ModelProto:
    stored = [
        numpy_helper.from_array(np.array(scale, np.float32), "s"),
        numpy_helper.from_array(np.array(zero_point, kind), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "logits")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@settings(max_examples=25)
@given(
    kind=st.sampled_from([np.int8, np.uint8, np.int16, np.uint16]),
    part=st.floats(0, 1),
    scale=st.floats(1e-4, 10),
    seed=st.integers(0, 99),
)
def test_a_pair_gives_the_definition_except_at_ties(tmp_path_factory, kind, part, scale, seed):
    """q = clamp(round(x / s) + z) in double precision; beside a tie the next step is right as well."""
    limits, scale = np.iinfo(kind), np.float32(scale)
    zero_point = int(limits.min + part * (int(limits.max) - int(limits.min)))
    path = tmp_path_factory.mktemp("pair") / "m.onnx"
    onnx.save(_pair(scale, zero_point, kind), path)
    spread = (int(limits.max) - int(limits.min)) * scale
    x = (np.random.default_rng(seed).uniform(-1, 1, 500) * spread).astype(np.float32)
    got = runtime.load(EngineSpec(path, "int8", 1)).run({"x": x})
    places = x.astype(np.float64) / scale
    steps = np.clip(np.round(places) + zero_point, limits.min, limits.max) - zero_point
    near_tie = np.abs(np.abs(places - np.floor(places)) - 0.5) < 1e-6 * (np.abs(places) + 65536)
    off = np.abs(got / np.float64(scale) - steps)
    assert np.all(off[~near_tie] < 0.05)
    assert np.all(off < 1.05)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07\x12\x03abc"])
def test_damaged_file_is_refused(content, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(DeployError, match=r"m\.onnx.*export"):
        load("openvino", EngineSpec(path, "int8", 1))
    assert capfd.readouterr() == ("", "")


def test_truncated_missing_and_foreign_graphs_are_refused(tmp_path, plain):
    content = plain.path.read_bytes()
    (tmp_path / "short.onnx").write_bytes(content[:-100])
    foreign = onnx.load(plain.path)
    next(node for node in foreign.graph.node if node.op_type == "Tanh").op_type = "NoSuchOperator"
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for name in ("short.onnx", "no.onnx", "foreign.onnx"):
        with pytest.raises(DeployError, match=f"{name}.*export"):
            load("openvino", EngineSpec(tmp_path / name, "fp32", 1))


def test_what_does_not_fit_a_graph_is_refused(plain: Exported):
    engine = load("openvino", EngineSpec(plain.path, "fp32", 1))
    good = plain.batch
    with pytest.raises(DeployError, match=r"add \['input_ids'\], leave out \['y'\]"):
        engine.run({name.replace("input_ids", "y"): values for name, values in good.items()})
    with pytest.raises(DeployError, match=r"41 tokens.*positions for 40"):
        engine.run(batch(engine.inputs, 2, 41))
    with pytest.raises(DeployError, match=r"input_ids holds 4 to 50.*rows 0 to 49"):
        engine.run(good | {"input_ids": np.array([[4, 50]])})
    with pytest.raises(DeployError, match=r"refuses it.*\(1, 4, 3\)"):
        engine.run({name: np.ones((1, 4, 3), np.int64) for name in good})
    with pytest.raises(TypeError, match="safe"):
        engine.run({name: values.astype(np.float32) for name, values in good.items()})
    np.testing.assert_allclose(engine.run(good), plain.expected, rtol=1e-4, atol=1e-5)


def test_package_that_is_not_there_is_one_error_with_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeployError, match=r"openvino is not installed; pip install 'qexp\[openvino\]'"):
        load("openvino", EngineSpec(Path("m.onnx"), "fp32", 1))


@pytest.mark.parametrize("name", ["w8a8", "w8a16", "w8a32"])
def test_printed_command_gives_the_engines_numbers(name, tmp_path):
    case = export(tmp_path, *QUANTIZED[name])
    engine = load("openvino", EngineSpec(case.path, "int8", 1, cache=tmp_path / "engines"))
    assert engine.info.command is not None
    words = shlex.split(engine.info.command.replace("<(echo", "").replace("}')", "}'"))
    given = {word: words[at + 1] for at, word in enumerate(words) if word.startswith("-")}
    properties = json.loads(given["-load_config"])["CPU"] | {
        "INFERENCE_PRECISION_HINT": given["-infer_precision"]
    }
    core = openvino.Core()
    logits = core.compile_model(core.read_model(given["-m"]), "CPU", properties)(case.batch)[0]
    np.testing.assert_array_equal(logits, engine.run(case.batch))
    changed = Path(given["-m"]) != case.path
    assert changed == (name == "w8a16")
    if changed:
        assert load("openvino", EngineSpec(case.path, "int8", 1)).info.command is None  # nowhere to keep it


def test_groups_of_dimensions_are_taken_wherever_they_are(tmp_path):
    case = export(tmp_path, "quant=w8a8", "placement=aimet", "scheme=embedding_groups")
    logits = load("openvino", EngineSpec(case.path, "int8", 1)).run(case.batch)
    np.testing.assert_allclose(logits, case.expected, atol=3e-4 * np.abs(case.expected).max())
