"""Forms in which a model is served: what ``inference`` times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

from benchmarks.peers.own import PLACEMENTS, prepare
from benchmarks.shapes import Batch, Family
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session

FP32_FILE, INT8_FILE = "fp32.onnx", "int8.onnx"


@dataclass(frozen=True)
class Form:
    """A model that is ready to serve; ``call`` binds it to a batch, a call gives logits."""

    call: Callable[[Batch], Callable[[], Any]]


def own_forms(family: Family, sites: str, calibration: Batch, folder: Path, threads: int) -> dict[str, Form]:
    """torch and ONNX Runtime, in FP32 and quantized; leaves both graphs in the folder."""
    quantized = family.build()
    prepare(quantized, PLACEMENTS[sites], calibration)
    export_onnx(family.build("eager"), folder / FP32_FILE, example=calibration)
    exported = family.build()
    prepare(exported, PLACEMENTS[sites], calibration).export_mode()
    export_onnx(exported, folder / INT8_FILE, example=calibration)
    return {
        "torch fp32": _in_torch(family.build()),
        "torch fake-quantized": _in_torch(quantized),
        "onnxruntime fp32": _in_session(folder / FP32_FILE, threads),
        "onnxruntime int8, qexp": _in_session(folder / INT8_FILE, threads),
    }


def _in_torch(model: nn.Module) -> Form:
    def call(batch: Batch) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return model(**batch).logits

        return run

    return Form(call)


def _in_session(path: Path, threads: int) -> Form:
    session = OnnxRuntimeEngine(EngineSpec(path, "int8", threads))

    def call(batch: Batch) -> Callable[[], Any]:
        arrays = {name: batch[name].numpy() for name in session.inputs}
        return lambda: session.run(arrays)

    return Form(call)


def _in_plain_session(path: Path, threads: int) -> Form:
    """ONNX Runtime as it is configured by default, but for threads, and exact products on every CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    session = new_session(path, options)
    inputs = [value.name for value in session.get_inputs()]

    def call(batch: Batch) -> Callable[[], Any]:
        arrays = {name: batch[name].numpy() for name in inputs}
        return lambda: session.run(None, arrays)[0]

    return Form(call)


def static_onnxruntime(
    family: Family, calibration: Batch, folder: Path, threads: int, *, reduce_range: bool = False
) -> Form:
    """``quantize_static``: Q/DQ pairs on all operators that it knows, extremes of the calibration batch."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            names = ("input_ids", "attention_mask", "token_type_ids")
            self.batches = iter([{name: calibration[name].numpy() for name in names}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = folder / ("static_reduced.onnx" if reduce_range else "static.onnx")
    quantize_static(
        str(folder / FP32_FILE), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=reduce_range,
    )  # fmt: skip
    return _in_plain_session(path, threads)


def dynamic_onnxruntime(
    family: Family, calibration: Batch, folder: Path, threads: int, *, reduce_range: bool = False
) -> Form:
    """``quantize_dynamic``: integer products, with ranges of activations found in every run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / ("quantize_dynamic_reduced.onnx" if reduce_range else "quantize_dynamic.onnx")
    quantize_dynamic(
        str(folder / FP32_FILE), str(path), per_channel=True, weight_type=QuantType.QInt8,
        reduce_range=reduce_range,
    )  # fmt: skip
    return _in_plain_session(path, threads)


def dynamic_torch(family: Family, calibration: Batch, folder: Path, threads: int) -> Form:
    """torch's dynamic quantization of linear layers."""
    from torch.ao.quantization import quantize_dynamic

    return _in_torch(quantize_dynamic(family.build(), {nn.Linear}, dtype=torch.qint8))


def openvino_fp32(family: Family, calibration: Batch, folder: Path, threads: int) -> Form:
    """OpenVINO on qexp's FP32 graph."""
    return _in_openvino(folder / FP32_FILE, threads)


def openvino_int8(family: Family, calibration: Batch, folder: Path, threads: int) -> Form:
    """OpenVINO on qexp's INT8 graph."""
    return _in_openvino(folder / INT8_FILE, threads)


def _in_openvino(path: Path, threads: int) -> Form:
    import openvino

    compiled = openvino.Core().compile_model(
        path, "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
    )  # fmt: skip
    request = compiled.create_infer_request()
    inputs = [port.any_name for port in compiled.inputs]

    def call(batch: Batch) -> Callable[[], Any]:
        arrays = {name: batch[name].numpy() for name in inputs}
        return lambda: request.infer(arrays)[compiled.output(0)].copy()

    return Form(call)


PEERS: dict[str, Callable[[Family, Batch, Path, int], Form]] = {
    "onnxruntime int8, its own static": static_onnxruntime,
    "onnxruntime int8, its own dynamic": dynamic_onnxruntime,
    "torch int8 dynamic": dynamic_torch,
    "openvino fp32, qexp": openvino_fp32,
    "openvino int8, qexp": openvino_int8,
}
