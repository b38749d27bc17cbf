"""Graphs of one encoder in runtimes, in FP32 and INT8: what ``benchmarks.deploy`` times."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from benchmarks.forms import FP32_FILE, INT8_FILE
from benchmarks.harness import Reading
from benchmarks.peers import attempt
from benchmarks.shapes import Batch, Family, Shape
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
from qexp.deploy.runtimes.openvino import audit as openvino_audit
from qexp.deploy.runtimes.openvino import engine as openvino_engine
from qexp.quant.insertion.insert import insert

AVX2_FILE = "avx2.onnx"
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
DYNAMIC = {
    name: QuantizationConfig(
        placement=Placement(name="linear", sites=("linear.weight", "linear.input")),
        scheme=Scheme(activation=ActivationScheme(dynamic=each, symmetric=each == "token")),
    )
    for name, each in (("dynamic", "tensor"), ("dynamic_token", "token"))
}
"""As ``scheme=dynamic`` and ``dynamic_token`` with ``placement=linear``."""
LINEAR = QuantizationConfig(placement=Placement(name="linear", sites=("linear.weight", "linear.input")))
"""As ``placement=linear``: attention's products stay in floating point."""


def of_seven_bits(quant_config: QuantizationConfig) -> QuantizationConfig:
    """The same with ``deploy.cpu=avx2``."""
    return quant_config.model_copy(update={"quant": quant_config.quant.model_copy(update={"weight_bits": 7})})


EVERYWHERE = {INT8_FILE: FAST} | {f"{name}.onnx": each for name, each in DYNAMIC.items()}
"""Quantized graphs for a CPU with VNNI, by file."""
ON_AVX2 = {
    INT8_FILE: FAST,
    AVX2_FILE: of_seven_bits(FAST),
    **{f"{name}.onnx": of_seven_bits(each) for name, each in (DYNAMIC | {"linear": LINEAR}).items()},
}
"""Those for one without: weights of 7 bits, and the static graph of 8 for the exact path."""


@dataclass(frozen=True)
class Served:
    """A graph in a runtime: what runs a batch, and what tells how."""

    run: Callable[[dict[str, Any]], Any]
    audit: Callable[[dict[str, Any]], Audit | None]


Maker = Callable[[Family, Batch, Path, int], Served]
"""What makes a form of family, calibration batch, folder and threads."""


class Checkpoint(Family):
    """A family with weights of a folder in place of random ones."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification

        self.folder = folder
        self.load = AutoModelForSequenceClassification.from_pretrained
        self.shape = shape

    def build(self, attention: str = "sdpa") -> Any:
        return self.load(self.folder, attn_implementation=attention).eval()


def export(family: Family, calibration: Batch, folder: Path, forms: Mapping[str, QuantizationConfig]) -> None:
    """Write the graphs, in FP32 and quantized."""
    example = {name: values for name, values in calibration.items() if name != "labels"}
    export_onnx(family.build(), folder / FP32_FILE, example=example)
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
    return in_engine(ort_engine.OnnxRuntimeEngine(EngineSpec(path, "int8", threads), exact=exact))


def in_engine(engine: Engine) -> Served:
    """In an engine of this project."""
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


def by_onnxruntime(make: Callable[..., Any], file: str) -> Maker:
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
    options: dict[str, Any] = {}
    if safe:
        parameters = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        options = {"advanced_parameters": parameters}
    quantized = nncf.quantize(model, nncf.Dataset(each), model_type=nncf.ModelType.TRANSFORMER, **options)
    return in_openvino(folder / FP32_FILE, threads, quantized)


def make_all(
    makers: dict[str, Maker], family: Family, calibration: Batch, folder: Path, *, threads: int
) -> tuple[dict[str, Served], dict[str, str]]:
    """Make all that can be made; the second dict says why each of the others was not."""
    found, skipped = {}, {}
    for name, make in makers.items():
        each, problem = attempt(make, family, calibration, folder, threads)
        if problem is None:
            found[name] = each
        else:
            skipped[name] = problem
    return found, skipped


def exact_path(path: Path, threads: int) -> dict[str, Maker]:
    """The static INT8 graph in both runtimes, computed as where pairs of products saturate."""
    order = EngineSpec(path, "int8", threads)
    return {
        f"onnxruntime int8, {EXACT_PATH}": lambda *_: in_onnxruntime(path, threads, exact=True),
        f"openvino int8, {EXACT_PATH}": lambda *_: in_engine(
            openvino_engine.OpenVinoEngine(order, exact=True)
        ),
    }


def show_best(readings: dict[str, Reading], others: Container[str]) -> None:
    """Print the best INT8 of each side over the best FP32; ``others`` are the forms of other projects."""
    fp32 = min(each.seconds for name, each in readings.items() if name.endswith("fp32"))
    groups = {
        "qexp": [each.seconds for name, each in readings.items() if name.endswith("qexp")],
        f"qexp, {EXACT_PATH}": [each.seconds for name, each in readings.items() if name.endswith(EXACT_PATH)],
        "others": [each.seconds for name, each in readings.items() if name in others],
    }
    for whose, of in groups.items():
        if of:
            print(f"\nBest INT8 over best FP32, {whose}: {fp32 / min(of):.2f} times.", flush=True)
