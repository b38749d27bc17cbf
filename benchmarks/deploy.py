"""INT8 against FP32 on this CPU: this project's graphs, and what users would pick, in one run.

    python -m benchmarks.deploy [--model minilm_l6] [--checkpoint DIR] [--rows 1,32] [--length 128]
        [--rounds 9] [--threads 2] [--no-peers] [--both | --no-vnni] [--json FILE]

All of one checkpoint: FP32 and INT8 (``recipe=fast_cpu``, largest values of the calibration batch; linear
layers with ``scheme=dynamic`` and ``dynamic_token``) in ONNX Runtime and OpenVINO; ONNX Runtime's own
quantizers, dynamic and static; NNCF on OpenVINO. They take turns, a single row 32 times in each. Beside each
stand the share of the multiply-accumulates that it does in integers, how often it decides as torch in FP32
does, and how far it moves the logits. Without ``--checkpoint`` weights are random. Below: the rates of plain
products at the model's shapes in FP32 and INT8, which is the most that INT8 can gain.

``--both`` adds the INT8 graphs of this project on the exact path (as with ``QEXP_EXACT_INT8_PRODUCTS=1``):
what engines do on a CPU without VNNI, done by this CPU. That is no measurement of such a CPU.

``--no-vnni`` measures such a CPU, or what is left of this one where Linux can hide its AVX-512 and VNNI
(:mod:`benchmarks.without_vnni`): ``recipe=fast_cpu`` with ``deploy.cpu=avx2`` and, of 8 bits, on the exact
path; the others with weights of 7 bits; and CTranslate2's encoder.

Either way the last tables are of rows with 20 to 60 tokens (:mod:`benchmarks.ragged`).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks import without_vnni
from benchmarks.forms import FP32_FILE, INT8_FILE, dynamic_onnxruntime, static_onnxruntime
from benchmarks.harness import Reading, alternate, table, write
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.ragged import run_all, time_ragged
from benchmarks.served import (
    BASELINE,
    DYNAMIC,
    EVERYWHERE,
    EXACT_PATH,
    Checkpoint,
    Maker,
    Served,
    by_nncf,
    by_onnxruntime,
    exact_path,
    export,
    in_onnxruntime,
    in_openvino,
    make_all,
    show_best,
)
from benchmarks.shapes import SHAPES, Batch, Family, Shape, batch_of
from qexp.deploy.runtimes.onnxruntime.session import new_session

PEERS: dict[str, Maker] = {
    "onnxruntime.quantization dynamic": by_onnxruntime(dynamic_onnxruntime, "quantize_dynamic.onnx"),
    "onnxruntime.quantization static": by_onnxruntime(static_onnxruntime, "static.onnx"),
    "openvino + nncf": by_nncf,
}


TURN_ROWS = 32
"""Rows of a turn, in as many calls as that takes."""


def served(family: Family, folder: Path, options: Any) -> tuple[dict[str, Served], dict[str, str]]:
    """Everything that is measured, and what is left out and why."""
    calibration = batch_of(family.shape, 32, options.length, seed=2, padded=True)
    export(family, calibration, folder, EVERYWHERE)
    found = {
        BASELINE: in_onnxruntime(folder / FP32_FILE, options.threads),
        "onnxruntime int8, qexp": in_onnxruntime(folder / INT8_FILE, options.threads),
    }
    makers: dict[str, Maker] = {
        "openvino fp32": lambda *_: in_openvino(folder / FP32_FILE, options.threads),
        "openvino int8, qexp": lambda *_: in_openvino(folder / INT8_FILE, options.threads),
    }
    for name in DYNAMIC:
        file = folder / f"{name}.onnx"
        makers[f"onnxruntime int8, qexp {name}"] = lambda *_, file=file: in_onnxruntime(file, options.threads)
        makers[f"openvino int8, qexp {name}"] = lambda *_, file=file: in_openvino(file, options.threads)
    exact = exact_path(folder / INT8_FILE, options.threads) if options.both else {}
    makers |= exact | (PEERS if options.peers else {})
    others, skipped = make_all(makers, family, calibration, folder, threads=options.threads)
    return found | others, skipped


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


def time_forms(forms: dict[str, Served], batch: dict[str, Any], rounds: int) -> dict[str, Reading]:
    """Time a batch in all forms in turns.

    A turn of a small batch is many calls: threads of the runtime before go on spinning for some milliseconds.
    """
    count = max(1, TURN_ROWS // len(batch["input_ids"]))
    calls = {name: partial(run_all, form.run, [batch] * count) for name, form in forms.items()}
    readings = alternate(calls, rounds, BASELINE)
    return {
        name: replace(each, seconds=each.seconds / count, fastest=each.fastest / count)
        for name, each in readings.items()
    }


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
    show_best(readings, PEERS | without_vnni.PEERS)


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


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=128, rounds=9)
    found.add_argument("--checkpoint", type=Path, help="folder of a fine-tuned encoder of this shape")
    found.add_argument("--rows", default="1,32", help="batch sizes, with commas between them")
    found.add_argument("--both", action="store_true", help="INT8 also as without VNNI: exact products")
    found.add_argument("--no-vnni", action="store_true", help="what is fast on a CPU without VNNI")
    found.add_argument("--ragged", type=int, default=128, help="rows of 20 to 60 tokens; 0 times none")
    add_peers(found)
    options = start(found, arguments)
    shape = SHAPES[options.model]
    family = Checkpoint(shape, options.checkpoint) if options.checkpoint else Family(shape)
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as folder:
        choose = without_vnni.served if options.no_vnni else served
        forms, skipped = choose(family, Path(folder), options)
        same = agreement(forms, family, options.length)
        for rows in (int(word) for word in options.rows.split(",")):
            batch = _arrays(batch_of(shape, rows, options.length, seed=4))
            audits = {name: quant_config.audit(batch) for name, quant_config in forms.items()}
            shares = {name: each.integer_share if each else 0.0 for name, each in audits.items()}
            readings = time_forms(forms, batch, options.rounds)
            show(readings, shares, same, f"{options.model}, {rows} x {options.length}")
            limit = rates(shape, rows, options)
            show_rates(limit, f"Plain products, {rows * options.length} rows: 10^9 MAC/s")
            tables[str(rows)] = {"readings": readings, "audits": audits, "rates": limit}
        tables |= time_ragged(forms, shape, options, PEERS | without_vnni.PEERS) if options.ragged else {}
        if options.no_vnni:
            print(f"\nMeasured: {without_vnni.kind_of_cpu()}.", flush=True)
    for name, reason in skipped.items():
        print(f"\nLeft out: {name}: {reason}")
    write(options.json, {"settings": settings(options), "rows": tables, "same": same, "left_out": skipped})


if __name__ == "__main__":
    if "--no-vnni" in sys.argv and not os.environ.get(without_vnni.HIDDEN):
        sys.exit(without_vnni.rerun(sys.argv[1:]))
    main(sys.argv[1:])
