"""INT8, FP16, BF16 and FP32 of one encoder side by side, through PyTorch alone, on a GPU.

    python -m benchmarks.gpu [--model bert_base] [--rows 1,8,32,64,128] [--lengths 128,384]
        [--precisions int8,fp16,bf16,fp32] [--rounds 30] [--json FILE]

Graphs are exported as in an experiment with ``quant=w8a8 placement=linear scheme=symmetric``, from random
weights, with the largest values of one batch; nothing is downloaded. One batch goes through ONNX Runtime,
every node as it is written, and the largest difference of a logit over the largest logit is printed, beside
that of ONNX Runtime's own optimized session: rounding to another step grows through random layers.
Engines take turns, from arrays of numpy to arrays of numpy; each shape is compiled before it is timed.
Without a GPU everything runs on the CPU, without FP16. A GPU compiles for minutes: with little time, give
``--model``, ``--precisions`` and ``--lengths`` one after another. ``--all`` is benchmarks/gpu_all.py.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_all
from benchmarks.harness import Reading, alternate, write
from benchmarks.options import parser, settings, start
from benchmarks.shapes import SHAPES, Batch, Family, batch_of
from qexp.config import ActivationScheme, MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme
from qexp.deploy.engine import Audit, EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine, as_written
from qexp.deploy.runtimes.torch_int8.engine import TorchInt8Engine
from qexp.errors import DeployError
from qexp.quant.insertion.insert import insert

FLOAT, INTEGER = "float.onnx", "integer.onnx"
PRODUCTS = ("linear.weight", "linear.input")
SYMMETRIC = QuantizationConfig(
    placement=Placement(name="linear", sites=PRODUCTS),
    quant=Quant(),
    scheme=Scheme(activation=ActivationScheme(symmetric=True)),
)
"""What feeds linear layers; attention stays in floating point, where torch has no product of integers."""


def export(family: Family, calibration: Batch, folder: Path) -> None:
    """Write the float graph and the quantized one."""
    example = {name: values for name, values in calibration.items() if name != "labels"}
    export_onnx(family.build(), folder / FLOAT, example=example)
    model = family.build()
    quantization = insert(model, SYMMETRIC)
    with torch.no_grad(), quantization.observing(example["attention_mask"]):
        model(**example)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.export_mode()
    export_onnx(model, folder / INTEGER, example=example)


def loaded(
    folder: Path, options: Any, shapes: tuple[tuple[int, int], ...]
) -> tuple[dict[str, TorchInt8Engine], dict[str, str]]:
    """An engine for each precision, and those that this device refuses, with why."""
    engines, refused = {}, {}
    for precision in options.precisions.split(","):
        path = folder / (INTEGER if precision == "int8" else FLOAT)
        try:
            engines[precision] = TorchInt8Engine(EngineSpec(path, precision, options.threads, shapes))
        except DeployError as error:
            refused[precision] = str(error)
    return engines, refused


def parity(
    engines: dict[str, TorchInt8Engine], folder: Path, batch: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    """Largest difference of a logit from the graph as it is written, over the largest logit.

    Of each engine, and of ONNX Runtime's optimized session on the same graph.
    """
    found = {}
    for precision, engine in engines.items():
        order = EngineSpec(folder / (INTEGER if precision == "int8" else FLOAT), "fp32", 1)
        feed = {name: batch[name] for name in engine.inputs}
        written, optimized = as_written(order).run(feed), OnnxRuntimeEngine(order).run(feed)
        largest = float(np.abs(written).max())
        own, theirs = (float(np.abs(each - written).max()) for each in (engine.run(feed), optimized))
        found[precision] = own / largest, theirs / largest
    return found


def _run(engine: TorchInt8Engine, batch: dict[str, Any]) -> Any:
    return engine.run({name: batch[name] for name in engine.inputs})


def _arrays(batch: Batch) -> dict[str, Any]:
    return {name: values.numpy() for name, values in batch.items() if name != "labels"}


def measured(
    engines: dict[str, TorchInt8Engine], batch: dict[str, Any], rounds: int
) -> tuple[dict[str, Reading], dict[str, float]]:
    """Times of all engines on a batch, in turns, and the seconds of each one's first call, which compiles."""
    first, calls = {}, {}
    for precision, engine in engines.items():
        started = time.perf_counter()
        try:
            for _ in range(3):  # the second records what the third replays
                _run(engine, batch)
        except DeployError as error:
            print(f"\n{precision}: {error}", flush=True)
            continue
        first[precision] = time.perf_counter() - started
        calls[precision] = partial(_run, engine, batch)
    return (alternate(calls, rounds, baseline_of(calls)) if calls else {}), first


def baseline_of(precisions: Collection[str]) -> str:
    """What the others are compared with: FP16, or the last one."""
    return "fp16" if "fp16" in precisions else list(precisions)[-1]


def show(
    shape: str, readings: dict[str, Reading], first: dict[str, float], audits: dict[str, Audit | None]
) -> None:
    """One shape: a line for each precision."""
    rows = int(shape.split("x")[0])
    for precision, each in readings.items():
        audit = audits[precision]
        share = audit.integer_share if audit else 0.0
        cells = [
            shape, precision, f"{each.seconds * 1e3:.3f}", f"{rows / each.seconds:.0f}",
            f"{1 / each.ratio:.2f}", f"{share:.1f}", f"{first[precision]:.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; with ``--all`` all that waits for a GPU."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["--all"]:
        raise SystemExit(gpu_all.main(words[1:]))
    found = parser(__doc__ or "", rounds=30)
    found.set_defaults(model="bert_base")
    found.add_argument("--rows", default="1,8,32,64,128", help="batch sizes, with commas between them")
    found.add_argument("--lengths", default="128,384", help="tokens, with commas between them")
    found.add_argument("--precisions", default="int8,fp16,bf16,fp32", help="with commas between them")
    options = start(found, words)
    lengths, rows = ([int(word) for word in each.split(",")] for each in (options.lengths, options.rows))
    shapes = tuple((count, tokens) for tokens in lengths for count in rows)
    shape, tables = SHAPES[options.model], {}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as name:
        folder = Path(name)
        export(Family(shape), batch_of(shape, 8, min(128, max(lengths)), seed=2, padded=True), folder)
        engines, refused = loaded(folder, options, shapes)
        checked = _arrays(batch_of(shape, 4, min(64, max(lengths)), seed=3, padded=True))
        same = parity(engines, folder, checked)
        infos = {precision: engine.info for precision, engine in engines.items()}
    titles(options.model, infos, same, refused)
    for count, tokens in shapes:
        batch = _arrays(batch_of(shape, count, tokens, seed=4))
        readings, first = measured(engines, batch, options.rounds)
        small = _arrays(batch_of(shape, 1, tokens, seed=4))
        audits = {each: engines[each].audit({n: small[n] for n in engines[each].inputs}) for each in readings}
        show(f"{count}x{tokens}", readings, first, audits)
        tables[f"{count}x{tokens}"] = {"readings": readings, "first_calls": first, "audits": audits}
    payload = {"infos": infos, "parity": same, "refused": refused, "shapes": tables}
    write(options.json, {"settings": settings(options)} | payload)


def titles(
    model: str, infos: dict[str, Any], same: dict[str, tuple[float, float]], refused: dict[str, str]
) -> None:
    """What is measured, how right it is, and the head of the table."""
    for precision, info in infos.items():
        memory = f", {info.memory_bytes / 2**20:.0f} MiB on the device" if info.memory_bytes else ""
        print(
            f"{model} {precision}: {info.device}, torch {info.version}, {info.bytes / 2**20:.0f} MiB{memory}"
        )
        own, theirs = same[precision]
        print(f"  moves the logits of the written graph by {own:.2%}, ONNX Runtime by {theirs:.2%}")
    for reason in refused.values():
        print(f"left out: {reason}")
    heads = [
        "shape",
        "precision",
        "ms",
        "rows/s",
        f"times {baseline_of(infos)}",
        "% in integers",
        "first calls, s",
    ]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
