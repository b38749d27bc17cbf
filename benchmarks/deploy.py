"""INT8 against FP32 on this CPU: this project's graphs, and what users would pick, in one run.

    python -m benchmarks.deploy [--model minilm_l6] [--checkpoint DIR] [--rows 1,32] [--length 128]
        [--rounds 9] [--threads 2] [--no-peers] [--both | --no-vnni] [--json FILE]

All of one checkpoint: FP32 and INT8 (``recipe=fast_cpu``, largest values of the calibration batch; linear
layers with ``scheme=dynamic`` and ``dynamic_token``) in ONNX Runtime and OpenVINO; ONNX Runtime's own
quantizers, dynamic and static; NNCF on OpenVINO. They take turns. Beside each stand the share of the
multiply-accumulates that it does in integers, how often it decides as torch in FP32 does, and how far it
moves the logits. Without ``--checkpoint`` weights are random. Below: the rates of plain products at the
model's shapes in FP32 and INT8, which is the most that INT8 can gain.

``--both`` adds the INT8 graphs of this project on the exact path (as with ``QEXP_EXACT_INT8_PRODUCTS=1``):
what engines do on a CPU without VNNI, done by this CPU. That is no measurement of such a CPU.

``--no-vnni`` measures such a CPU, or what is left of this one where Linux can hide its AVX-512 and VNNI
(:mod:`benchmarks.without_vnni`): ``recipe=fast_cpu`` with ``deploy.cpu=avx2`` and, of 8 bits, on the exact
path; the others with weights of 7 bits; CTranslate2's encoder; and rows of 20 to 60 tokens.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.forms import FP32_FILE, dynamic_onnxruntime, static_onnxruntime
from benchmarks.harness import Reading, alternate, write
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.peers import attempt
from benchmarks.shapes import SHAPES, Batch, Family, Shape, batch_of
from benchmarks.without_vnni import HIDDEN, REDUCED, ctranslate2, kind_of_cpu, nncf_options, ragged, rerun
from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Override,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
)
from qexp.deploy.engine import Audit, Engine, EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.onnxruntime import engine as ort_engine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.openvino import audit as openvino_audit
from qexp.deploy.runtimes.openvino import engine as openvino_engine
from qexp.quant.insertion.insert import insert

INT8_FILE, AVX2_FILE = "int8.onnx", "avx2.onnx"
BASELINE = "onnxruntime fp32"
EXACT_PATH = "exact path"
"""How forms are called that compute as on a CPU whose products of 8 bits saturate."""
PRODUCTS = ("linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value")
SIGNED = Override(activation=ActivationScheme(symmetric=True))
FAST = QuantizationConfig(
    placement=Placement(name="cpu_int8", sites=PRODUCTS, typed=True),
    quant=Quant(label="cpu", overrides={f"*:matmul.{each}": SIGNED for each in ("query", "key", "value")}),
)
"""As ``recipe=fast_cpu``."""
AVX2 = FAST.model_copy(update={"quant": FAST.quant.model_copy(update={"weight_bits": 7})})
"""As that with ``deploy.cpu=avx2``."""
DYNAMIC = {
    name: QuantizationConfig(
        placement=Placement(name="linear", sites=("linear.weight", "linear.input")),
        scheme=Scheme(activation=ActivationScheme(dynamic=each, symmetric=each == "token")),
    )
    for name, each in (("dynamic", "tensor"), ("dynamic_token", "token"))
}
"""As ``scheme=dynamic`` and ``dynamic_token`` with ``placement=linear``."""


@dataclass(frozen=True)
class Served:
    """A graph in a runtime: what runs a batch, and what tells how."""

    run: Callable[[dict[str, Any]], Any]
    audit: Callable[[dict[str, Any]], Audit | None]


Makers = dict[str, Callable[..., Served]]
"""What makes each form of family, calibration batch, folder and threads, by name."""


class Checkpoint(Family):
    """A family with weights of a folder in place of random ones."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification

        self.folder = folder
        self.load = AutoModelForSequenceClassification.from_pretrained
        self.shape = shape

    def build(self, attention: str = "sdpa") -> Any:
        return self.load(self.folder, attn_implementation=attention).eval()


def export(family: Family, calibration: Batch, folder: Path) -> None:
    """Write the graphs, in FP32, static and dynamic."""
    example = {name: values for name, values in calibration.items() if name != "labels"}
    export_onnx(family.build(), folder / FP32_FILE, example=example)
    forms = {INT8_FILE: FAST, AVX2_FILE: AVX2} | {f"{name}.onnx": each for name, each in DYNAMIC.items()}
    for file, quant_config in forms.items():
        model = family.build()
        quantization = insert(model, quant_config)
        if not quant_config.observes_nothing:
            with torch.no_grad(), quantization.observing(example["attention_mask"]):
                model(**example)
        quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
        quantization.export_mode()
        export_onnx(model, folder / file, example=example)


def in_onnxruntime(path: Path, threads: int, *, exact: bool | None = None) -> Served:
    """Through this project's engine."""
    return _in_engine(ort_engine.OnnxRuntimeEngine(EngineSpec(path, "int8", threads), exact=exact))


def _in_engine(engine: Engine) -> Served:
    return Served(
        lambda batch: engine.run({name: batch[name] for name in engine.inputs}),
        lambda batch: engine.audit({name: batch[name] for name in engine.inputs}),
    )


def in_openvino(path: Path, threads: int, model: Any = None) -> Served:
    """As users would, with the work of FP32 in FP32; the graph of ``path`` or a model made from it."""
    import openvino

    properties = {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }  # fmt: skip
    compiled = openvino.Core().compile_model(model or path, "CPU", properties)
    request, names = compiled.create_infer_request(), [port.any_name for port in compiled.inputs]

    def run(batch: dict[str, Any]) -> Any:
        answer = request.infer({name: batch[name] for name in names}, share_inputs=True)
        return answer[compiled.output(0)].copy()

    def audit(batch: dict[str, Any]) -> Audit:
        order = EngineSpec(path, "int8", threads)
        return openvino_audit.audit(compiled, order, {name: batch[name] for name in names})

    return Served(run, audit)


def by_onnxruntime(make: Callable[..., Any], file: str) -> Callable[[Family, Batch, Path, int], Served]:
    """One of ONNX Runtime's own quantizers."""

    def served(family: Family, calibration: Batch, folder: Path, threads: int) -> Served:
        import onnxruntime

        quant_config = make(family, calibration, folder, threads)

        def audit(batch: dict[str, Any]) -> Audit:
            names = {value.name for value in onnx.load(folder / file).graph.input}
            feed = {name: values for name, values in batch.items() if name in names}
            return ort_engine.audited(folder / file, onnxruntime.SessionOptions(), feed)

        return Served(
            lambda batch: quant_config.call({name: torch.from_numpy(each) for name, each in batch.items()})(),
            audit,
        )

    return served


def by_nncf(family: Family, calibration: Batch, folder: Path, threads: int, *, safe: bool = False) -> Served:
    """NNCF's post-training quantization of the FP32 graph, told that it is a transformer.

    ``safe`` keeps weights within 7 bits.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / FP32_FILE)
    rows = {name: each.numpy() for name, each in calibration.items() if name != "labels"}
    each = [{name: values[[row]] for name, values in rows.items()} for row in range(len(rows["input_ids"]))]
    options = nncf_options() if safe else {}
    quantized = nncf.quantize(model, nncf.Dataset(each), model_type=nncf.ModelType.TRANSFORMER, **options)
    return in_openvino(folder / FP32_FILE, threads, quantized)


PEERS: dict[str, Callable[[Family, Batch, Path, int], Served]] = {
    "onnxruntime.quantization dynamic": by_onnxruntime(dynamic_onnxruntime, "quantize_dynamic.onnx"),
    "onnxruntime.quantization static": by_onnxruntime(static_onnxruntime, "static.onnx"),
    "openvino + nncf": by_nncf,
}


def by_ctranslate2(precision: str) -> Callable[[Family, Batch, Path, int], Served]:
    """CTranslate2's encoder, which tells nothing of its kernels."""

    def served(family: Family, calibration: Batch, folder: Path, threads: int) -> Served:
        encoder = ctranslate2(precision)(family, calibration, folder, threads)
        return Served(encoder.run, lambda batch: None)

    return served


PEERS_7_BITS: dict[str, Callable[[Family, Batch, Path, int], Served]] = {
    **{name: by_onnxruntime(make, file) for name, (make, file) in REDUCED.items()},
    "openvino + nncf, 7 bits": partial(by_nncf, safe=True),
    "ctranslate2 int8": by_ctranslate2("int8"),
}


def served(family: Family, folder: Path, options: Any) -> tuple[dict[str, Served], dict[str, str]]:
    """Everything that is measured, and what is left out and why."""
    calibration = batch_of(family.shape, 32, options.length, seed=2, padded=True)
    export(family, calibration, folder)
    found = {
        BASELINE: in_onnxruntime(folder / FP32_FILE, options.threads),
        "onnxruntime int8, qexp": in_onnxruntime(folder / INT8_FILE, options.threads),
    }
    makers: Makers = {
        "openvino fp32": lambda *_: in_openvino(folder / FP32_FILE, options.threads),
        "openvino int8, qexp": lambda *_: in_openvino(folder / INT8_FILE, options.threads),
    }
    for name in DYNAMIC:
        file = folder / f"{name}.onnx"
        makers[f"onnxruntime int8, qexp {name}"] = lambda *_, file=file: in_onnxruntime(file, options.threads)
        makers[f"openvino int8, qexp {name}"] = lambda *_, file=file: in_openvino(file, options.threads)
    exact = _exact_path(folder / INT8_FILE, options.threads) if options.both else {}
    makers |= exact | (PEERS if options.peers else {})
    others, skipped = _made(makers, family, calibration, folder, threads=options.threads)
    return found | others, skipped


def served_without_vnni(
    family: Family, folder: Path, options: Any
) -> tuple[dict[str, Served], dict[str, str]]:
    """What is measured with ``--no-vnni``, and what is left out and why."""
    calibration = batch_of(family.shape, 32, options.length, seed=2, padded=True)
    export(family, calibration, folder)
    threads, order = options.threads, EngineSpec(folder / AVX2_FILE, "int8", options.threads)
    exact = _exact_path(folder / INT8_FILE, threads)
    makers: Makers = {
        BASELINE: lambda *_: in_onnxruntime(folder / FP32_FILE, threads),
        "openvino fp32": lambda *_: in_openvino(folder / FP32_FILE, threads),
        "onnxruntime int8, avx2, qexp": lambda *_: in_onnxruntime(folder / AVX2_FILE, threads),
        "openvino int8, avx2, qexp": lambda *_: _in_engine(openvino_engine.OpenVinoEngine(order)),
        "openvino int8 of attention, too, avx2": lambda *_: in_openvino(folder / AVX2_FILE, threads),
        **{name: make for name, make in exact.items() if name.startswith("onnxruntime")},
    }
    if options.peers:
        makers |= {"ctranslate2 fp32": by_ctranslate2("fp32")} | PEERS_7_BITS
    return _made(makers, family, calibration, folder, threads=threads)


def _made(
    makers: Makers, family: Family, calibration: Batch, folder: Path, *, threads: int
) -> tuple[dict[str, Served], dict[str, str]]:
    found, skipped = {}, {}
    for name, make in makers.items():
        each, problem = attempt(make, family, calibration, folder, threads)
        if problem is None:
            found[name] = each
        else:
            skipped[name] = problem
    return found, skipped


def _exact_path(path: Path, threads: int) -> dict[str, Callable[..., Served]]:
    order = EngineSpec(path, "int8", threads)
    return {
        f"onnxruntime int8, {EXACT_PATH}": lambda *_: in_onnxruntime(path, threads, exact=True),
        f"openvino int8, {EXACT_PATH}": lambda *_: _in_engine(
            openvino_engine.OpenVinoEngine(order, exact=True)
        ),
    }


def agreement(forms: dict[str, Served], family: Family, length: int) -> dict[str, tuple[float, float]]:
    """Percent of 64 rows decided as torch in FP32, and the largest change of a logit over the largest.

    A regression decides nothing; there the first figure is that of the order of neighbours.
    """
    batch = _arrays(batch_of(family.shape, 64, length, seed=3, padded=True))
    with torch.no_grad():
        model = family.build()
        truth = model(**{name: torch.from_numpy(each) for name, each in batch.items()}).logits.numpy()
    figures = {}
    for name, quant_config in forms.items():
        answer = np.asarray(quant_config.run(batch))
        same = float((_decided(answer) == _decided(truth)).mean())
        figures[name] = 100 * same, float(np.abs(answer - truth).max() / np.abs(truth).max())
    return figures


def _decided(logits: Any) -> Any:
    return logits.argmax(1) if logits.shape[1] > 1 else np.diff(logits[:, 0]) > 0


def _arrays(batch: Batch) -> dict[str, Any]:
    return {name: values.numpy() for name, values in batch.items() if name != "labels"}


def rates(shape: Shape, rows: int, options: Any) -> list[tuple[str, dict[str, float]]]:
    """Billions of multiply-accumulates per second of plain products in ONNX Runtime, by kind."""
    kinds: tuple[str, ...] = ("fp32", "int8", "exact") if options.both else ("fp32", "int8")
    kinds = ("fp32", "7 bits", "exact") if options.no_vnni else kinds
    sizes = {
        "query, key, value, output": (shape.width, shape.width),
        "feed-forward, first": (shape.width, shape.inner),
        "feed-forward, second": (shape.inner, shape.width),
    }
    found = []
    for name, (inner, width) in sizes.items():
        calls = {kind: _product(kind, rows * options.length, inner, width, options.threads) for kind in kinds}
        readings = alternate(calls, options.rounds, "fp32")
        macs = rows * options.length * inner * width / 1e9
        found.append((name, {kind: macs / readings[kind].seconds for kind in kinds}))
    return found


def _product(kind: str, rows: int, inner: int, width: int, threads: int) -> Callable[[], Any]:
    """One product with a stored weight, of floats or of uint8 by int8, that one also on the exact path."""
    import onnxruntime

    generator = np.random.default_rng(0)
    left = generator.integers(0, 255, (rows, inner)).astype(np.uint8)
    largest = 63 if kind == "7 bits" else 127
    right = generator.integers(-largest, largest + 1, (inner, width)).astype(np.int8)
    integer = kind != "fp32"
    if not integer:
        left, right = left.astype(np.float32), right.astype(np.float32)
    types = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", ["x", "w"], ["y"])], kind,
        [helper.make_tensor_value_info("x", types[0], left.shape)],
        [helper.make_tensor_value_info("y", types[1], (rows, width))],
        [numpy_helper.from_array(right, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = new_session(model, options, exact=True if kind == "exact" else None)
    return lambda: session.run(None, {"x": left})


def table(title: str, heads: list[str], lines: list[list[str]]) -> None:
    """Print Markdown."""
    print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def show(
    readings: dict[str, Reading], shares: dict[str, float], same: dict[str, tuple[float, float]], title: str
) -> None:
    """One batch size: times, audit and agreement, and the best INT8 over the best FP32."""
    lines = [
        [
            name, f"{each.seconds * 1e3:.1f}", f"{1 / each.ratio:.2f}", f"{shares[name]:.1f}",
            f"{same[name][0]:.1f}", f"{same[name][1]:.2%}",
        ]
        for name, each in readings.items()
    ]  # fmt: skip
    heads = ["", "ms", "times FP32", "% in integers", "% as FP32 torch", "moves logits"]
    table(title, heads, lines)
    show_best(readings)


def show_best(readings: dict[str, Reading]) -> None:
    """Print the best INT8 of each side over the best FP32."""
    fp32 = min(each.seconds for name, each in readings.items() if name.endswith("fp32"))
    groups = {
        "qexp": [each.seconds for name, each in readings.items() if name.endswith("qexp")],
        f"qexp, {EXACT_PATH}": [each.seconds for name, each in readings.items() if name.endswith(EXACT_PATH)],
        "others": [each.seconds for name, each in readings.items() if name in PEERS | PEERS_7_BITS],
    }
    for whose, of in groups.items():
        if of:
            print(f"\nBest INT8 over best FP32, {whose}: {fp32 / min(of):.2f} times.", flush=True)


def show_rates(rates: list[tuple[str, dict[str, float]]], title: str) -> None:
    """Plain products: rates in FP32 and INT8, and how many times FP32's each of INT8's is."""
    lines = [
        [name, *(f"{each:.0f}" for each in of.values())]
        + [f"{each / of['fp32']:.2f}" for kind, each in of.items() if kind != "fp32"]
        for name, of in rates
    ]
    words = {"fp32": "FP32", "int8": "INT8", "7 bits": "INT8, 7 bits", "exact": f"INT8, {EXACT_PATH}"}
    heads = [words[kind] for kind in rates[0][1]]
    table(title, ["", *heads, *(f"{each} / FP32" for each in heads[1:])], lines)


def time_ragged(forms: dict[str, Served], shape: Shape, options: Any) -> dict[str, Any]:
    """Print milliseconds a row of 20 to 60 tokens in batches of 32, by the order of the rows."""
    tables = {}
    for order, (batches, real) in ragged(shape, options.ragged).items():
        calls = {name: partial(_all, each.run, batches) for name, each in forms.items()}
        readings = alternate(calls, options.rounds, BASELINE)
        lines = [
            [name, f"{each.seconds * 1e3 / options.ragged:.2f}", f"{1 / each.ratio:.2f}"]
            for name, each in readings.items()
        ]
        title = f"{options.model}, rows of 20 to 60 tokens, {order}: {real:.0f} % of the tokens are real"
        table(title, ["", "ms a row", "times FP32"], lines)
        show_best(readings)
        tables[order] = {"readings": readings, "real": real}
    return tables


def _all(run: Callable[[dict[str, Any]], Any], batches: list[dict[str, Any]]) -> None:
    for batch in batches:
        run(batch)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=128, rounds=9)
    found.add_argument("--checkpoint", type=Path, help="folder of a fine-tuned encoder of this shape")
    found.add_argument("--rows", default="1,32", help="batch sizes, with commas between them")
    found.add_argument("--both", action="store_true", help="INT8 also as without VNNI: exact products")
    found.add_argument("--no-vnni", action="store_true", help="what is fast on a CPU without VNNI")
    found.add_argument("--ragged", type=int, default=128, help="rows of 20 to 60 tokens, with --no-vnni")
    add_peers(found)
    options = start(found, arguments)
    shape = SHAPES[options.model]
    family = Checkpoint(shape, options.checkpoint) if options.checkpoint else Family(shape)
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as folder:
        choose = served_without_vnni if options.no_vnni else served
        forms, skipped = choose(family, Path(folder), options)
        same = agreement(forms, family, options.length)
        for rows in (int(word) for word in options.rows.split(",")):
            batch = _arrays(batch_of(shape, rows, options.length, seed=4))
            audits = {name: quant_config.audit(batch) for name, quant_config in forms.items()}
            shares = {name: each.integer_share if each else 0.0 for name, each in audits.items()}
            calls = {name: partial(quant_config.run, batch) for name, quant_config in forms.items()}
            readings = alternate(calls, options.rounds, BASELINE)
            show(readings, shares, same, f"{options.model}, {rows} x {options.length}")
            limit = rates(shape, rows, options)
            show_rates(limit, f"Plain products, {rows * options.length} rows: 10^9 MAC/s")
            tables[str(rows)] = {"readings": readings, "audits": audits, "rates": limit}
        if options.no_vnni:
            tables |= time_ragged(forms, shape, options) if options.ragged else {}
            print(f"\nMeasured: {kind_of_cpu()}.", flush=True)
    for name, reason in skipped.items():
        print(f"\nLeft out: {name}: {reason}")
    write(options.json, {"settings": settings(options), "rows": tables, "same": same, "left_out": skipped})


if __name__ == "__main__":
    if "--no-vnni" in sys.argv and not os.environ.get(HIDDEN):
        sys.exit(rerun(sys.argv[1:]))
    main(sys.argv[1:])
