"""Weights in half a byte against the same weights in whole bytes: file, memory, first answer and latency.

    python -m benchmarks.packed [--model minilm_l6] [--bits 4] [--sites tables] [--rows 8] [--length 128]
        [--rounds 9] [--threads 1] [--json FILE]

One model (random weights, WxA8) in ONNX Runtime and OpenVINO: FP32; integers in whole bytes; packed as this
project writes them (INT4 or INT2, then Cast); INT4 straight into DequantizeLinear; and, as a peer, ONNX
Runtime's own quantizer of weights (MatMulNBits, blocks of 32, accuracy level 4) on the FP32 file.
``--sites tables`` quantizes the tables of words and positions, too, as ``placement=q8bert`` does; ``gemm``
leaves them.

Memory is what the resident set of a fresh process grows by, from before the session to when it is loaded, and
to after its first batch.
First answer: seconds from the file to the first batch, in that process. Latency: medians in turns, in one
process. ``difference`` is the largest from whole bytes in the same runtime, as a share of the largest output.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.harness import alternate, table, write
from benchmarks.options import parser, settings, start
from benchmarks.shapes import SHAPES, Family, batch_of
from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig
from qexp.deploy.engine import Engine, EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.packing import PACKED
from qexp.deploy.runtimes import load
from qexp.quant.insertion.insert import insert

RUNTIMES = ("onnxruntime", "openvino")
BASELINE = "onnxruntime fp32"
PRODUCTS = ("linear.weight", "linear.input", "matmul.query", "matmul.key")
SITES = {"tables": (*PRODUCTS, "embedding.weight"), "gemm": PRODUCTS}
MEBIBYTE = 2**20
CHILD = """
import json, sys, time
import numpy as np
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
runtime, graph, batch, threads = sys.argv[1:]
__import__(runtime)
feed = dict(np.load(batch))

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

__import__("qexp.deploy.runtimes." + runtime + ".engine")
before, started = resident(), time.perf_counter()
engine = load(runtime, EngineSpec(__import__("pathlib").Path(graph), "int8", int(threads)))
loaded = resident() - before
engine.run({name: feed[name] for name in engine.inputs})
print(json.dumps({"kib": resident() - before, "loaded": loaded, "first": time.perf_counter() - started}))
"""


def export(family: Family, options: Any, folder: Path) -> dict[str, Path]:
    """Write the graphs, and return their files by form."""
    calibration = batch_of(SHAPES[options.model], 4, options.length, seed=3)
    example = {name: values for name, values in calibration.items() if name != "labels"}
    files = {name: folder / f"{name.replace(' ', '_')}.onnx" for name in ("fp32", "whole bytes", "packed")}
    export_onnx(family.build(), files["fp32"], example=example)
    model = family.build()
    quant_config = QuantizationConfig(
        placement=Placement(name=options.sites, sites=SITES[options.sites], exclude=("*token_type*",)),
        quant=Quant(weight_bits=options.bits, activation_bits=8),
    )
    quantization = insert(model, quant_config)
    with torch.no_grad(), quantization.observing(example["attention_mask"]):
        model(**example)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.export_mode()
    export_onnx(model, files["whole bytes"], example=example, packed=False)
    export_onnx(model, files["packed"], example=example)
    if options.bits > 2:
        files["int4, DequantizeLinear"] = straight(files["packed"], folder / "straight.onnx")
    if peer := matmul_nbits(files["fp32"], folder / "matmul_nbits.onnx"):
        files["MatMulNBits"] = peer
    return files


def straight(packed: Path, target: Path) -> Path:
    """Write the packed graph with INT4 as the input of DequantizeLinear where nothing else reads it."""
    model = onnx.load(packed)
    stored = {each.name: each for each in model.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for cast in [node for node in model.graph.node if node.input and node.input[0] in stored]:
        tensor, of = stored[cast.input[0]], readers.get(cast.output[0], []) if cast.op_type == "Cast" else []
        if tensor.data_type in PACKED and of and all(each.op_type == "DequantizeLinear" for each in of):
            for node in of:
                zero = numpy_helper.to_array(stored[node.input[2]])
                name = f"{node.output[0]}.zero4"
                kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                model.graph.initializer.append(numpy_helper.from_array(zero.astype(kind), name))
                node.input[0], node.input[2] = cast.input[0], name
            model.graph.node.remove(cast)
    onnx.save(model, target)
    return target


def matmul_nbits(fp32: Path, target: Path) -> Path | None:
    """Quantize the weights of the FP32 graph with ONNX Runtime's own tool; None where it is not there."""
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError:
        return None
    quantizer = MatMulNBitsQuantizer(onnx.load(fp32), block_size=32, is_symmetric=True, accuracy_level=4)
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))
    return target


def in_a_process(runtime: str, graph: Path, batch: Path, threads: int) -> dict[str, Any]:
    """Load a graph in a fresh process, and return growth of its resident set and times."""
    words = [sys.executable, "-c", CHILD, runtime, str(graph), str(batch), str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(files: dict[str, Path], options: Any, folder: Path) -> list[dict[str, Any]]:
    """Measure every form in every runtime that takes it."""
    values = batch_of(SHAPES[options.model], options.rows, options.length, seed=4)
    feed = {name: each.numpy() for name, each in values.items() if name != "labels"}
    np.savez(folder / "batch.npz", allow_pickle=False, **feed)
    forms = {
        f"{runtime} {form}": (runtime, path)
        for runtime in RUNTIMES
        for form, path in files.items()
        if runtime == "onnxruntime" or form != "MatMulNBits"
    }
    engines = {
        name: load(runtime, EngineSpec(path, "int8", options.threads))
        for name, (runtime, path) in forms.items()
    }
    outputs = {name: _answer(engine, feed) for name, engine in engines.items()}
    readings = alternate(
        {name: _call(engine, feed) for name, engine in engines.items()}, options.rounds, BASELINE
    )
    lines = []
    for name, (runtime, path) in forms.items():
        whole = outputs[f"{runtime} whole bytes"]
        tries = [in_a_process(runtime, path, folder / "batch.npz", options.threads) for _ in range(3)]
        lines.append({
            "form": name,
            "bytes": path.stat().st_size,
            "loaded_kib": sorted(each["loaded"] for each in tries)[1],
            "resident_kib": sorted(each["kib"] for each in tries)[1],
            "first_answer_seconds": sorted(each["first"] for each in tries)[1],
            "seconds": readings[name].seconds,
            "difference": float(np.abs(outputs[name] - whole).max() / np.abs(whole).max()),
        })  # fmt: skip
    return lines


def _answer(engine: Engine, feed: dict[str, Any]) -> Any:
    return engine.run({name: feed[name] for name in engine.inputs})


def _call(engine: Engine, feed: dict[str, Any]) -> Callable[[], object]:
    return partial(engine.run, {name: feed[name] for name in engine.inputs})


def kinds(path: Path) -> str:
    """Name the types of the stored matrices of a file."""
    model: ModelProto = onnx.load(path)
    names = {
        TensorProto.DataType.Name(each.data_type) for each in model.graph.initializer if len(each.dims) == 2
    }
    return ", ".join(sorted(names))


def show(lines: list[dict[str, Any]], title: str) -> None:
    """Print one table; shares are of FP32 in the same runtime."""
    base = {each["form"].split(" ")[0]: each for each in lines if each["form"].endswith(" fp32")}
    cells = []
    for each in lines:
        of = base[each["form"].split(" ")[0]]
        cells.append([
            each["form"],
            f"{each['bytes'] / MEBIBYTE:.1f}", f"{each['bytes'] / of['bytes']:.3f}",
            f"{each['loaded_kib'] / 1024:.0f}", f"{each['loaded_kib'] / of['loaded_kib']:.2f}",
            f"{each['resident_kib'] / 1024:.0f}",
            f"{each['first_answer_seconds']:.2f}",
            f"{each['seconds'] * 1e3:.1f}", f"{of['seconds'] / each['seconds']:.2f}",
            f"{each['difference']:.1e}",
        ])  # fmt: skip
    heads = [
        "",
        "file, MiB",
        "of FP32",
        "loaded, MiB",
        "of FP32",
        "after a batch",
        "first answer, s",
        "ms",
        "times FP32",
    ]
    table(title, [*heads, "difference"], cells)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", bits=4, rows=8, length=128, rounds=9)
    found.set_defaults(threads=1)
    found.add_argument("--sites", choices=SITES, default="tables")
    options = start(found, arguments)
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as name:
        folder = Path(name)
        files = export(Family(SHAPES[options.model]), options, folder)
        lines = measured(files, options, folder)
        stored = {form: kinds(path) for form, path in files.items()}
    title = f"{options.model}, W{options.bits}A8, {options.sites}, {options.rows} x {options.length}"
    show(lines, f"{title}, {options.threads} threads")
    write(options.json, {"settings": settings(options), "forms": lines, "stored": stored})


if __name__ == "__main__":
    main()
