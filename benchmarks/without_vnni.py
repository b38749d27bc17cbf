"""What ``benchmarks.deploy --no-vnni`` measures: INT8 on a CPU whose pairs of 8-bit products saturate.

On a CPU with VNNI, Linux can hide AVX-512, VNNI and AMX from a program (``avx2_only.c``): every library then
takes the kernels of a CPU with AVX2 alone, on this CPU's clock and caches. Elsewhere the run says that it
has VNNI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forms import FP32_FILE, INT8_FILE, dynamic_onnxruntime, static_onnxruntime
from benchmarks.harness import alternate, table
from benchmarks.peers.ctranslate2_encoder import CTranslate2Encoder
from benchmarks.served import (
    AVX2_FILE,
    BASELINE,
    Maker,
    Served,
    by_nncf,
    by_onnxruntime,
    exact_path,
    export,
    in_engine,
    in_onnxruntime,
    in_openvino,
    make_all,
    show_best,
)
from benchmarks.shapes import Batch, Family, Shape, batch_of
from qexp.config.cpu import this_cpu
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.onnxruntime.session import products_saturate
from qexp.deploy.runtimes.openvino.engine import OpenVinoEngine

SOURCE = Path(__file__).with_name("avx2_only.c")
HIDDEN = "BENCHMARKS_WITHOUT_VNNI"
"""Set in the program that :func:`rerun` starts."""
UNAVAILABLE = 3
"""Exit code of a program from which the instructions cannot be hidden."""


def rerun(arguments: list[str]) -> int:
    """Run ``benchmarks.deploy`` again without VNNI in sight where this CPU has it; return its exit code."""
    command = [sys.executable, "-m", "benchmarks.deploy", *arguments]
    environment, compiler = os.environ | {HIDDEN: "1"}, shutil.which("cc")
    if this_cpu() == "avx2" or compiler is None:
        return subprocess.run(command, env=environment, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="qexp-avx2-") as folder:
        library = Path(folder) / "avx2_only.so"
        flags = ["-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run([compiler, *flags], check=True)
        hidden = environment | {"LD_PRELOAD": str(library)}
        code = subprocess.run(command, env=hidden, check=False).returncode
        if code != UNAVAILABLE:
            return code
    return subprocess.run(command, env=environment, check=False).returncode


def kind_of_cpu() -> str:
    """Return in words whose kernels are timed."""
    if not products_saturate():
        return "this CPU multiplies 8-bit integers exactly: NOT what one without VNNI does"
    return "a CPU without VNNI" if this_cpu() == "avx2" else "AVX2 kernels of a CPU whose VNNI is hidden"


def by_ctranslate2(precision: str) -> Maker:
    """CTranslate2's encoder, which tells nothing of its kernels."""

    def served(family: Family, calibration: Batch, folder: Path, threads: int) -> Served:
        model = family.build("eager")
        encoder = CTranslate2Encoder(model, folder / f"ct2-{precision}", precision, threads)
        return Served(encoder.run, lambda batch: None)

    return served


PEERS: dict[str, Maker] = {
    "onnxruntime.quantization dynamic, reduce_range": by_onnxruntime(
        partial(dynamic_onnxruntime, reduce_range=True), "quantize_dynamic_reduced.onnx"
    ),
    "onnxruntime.quantization static, reduce_range": by_onnxruntime(
        partial(static_onnxruntime, reduce_range=True), "static_reduced.onnx"
    ),
    "openvino + nncf, 7 bits": partial(by_nncf, safe=True),
    "ctranslate2 int8": by_ctranslate2("int8"),
}
"""What others have for such a CPU: weights of 7 bits, and CTranslate2's encoder."""


def served(family: Family, folder: Path, options: Any) -> tuple[dict[str, Served], dict[str, str]]:
    """What is measured with ``--no-vnni``, and what is left out and why."""
    calibration = batch_of(family.shape, 32, options.length, seed=2, padded=True)
    export(family, calibration, folder)
    threads, order = options.threads, EngineSpec(folder / AVX2_FILE, "int8", options.threads)
    exact = exact_path(folder / INT8_FILE, threads)
    makers: dict[str, Maker] = {
        BASELINE: lambda *_: in_onnxruntime(folder / FP32_FILE, threads),
        "openvino fp32": lambda *_: in_openvino(folder / FP32_FILE, threads),
        "onnxruntime int8, avx2, qexp": lambda *_: in_onnxruntime(folder / AVX2_FILE, threads),
        "openvino int8, avx2, qexp": lambda *_: in_engine(OpenVinoEngine(order)),
        "openvino int8 of attention, too, avx2": lambda *_: in_openvino(folder / AVX2_FILE, threads),
        **{name: make for name, make in exact.items() if name.startswith("onnxruntime")},
    }
    if options.peers:
        makers |= {"ctranslate2 fp32": by_ctranslate2("fp32")} | PEERS
    return make_all(makers, family, calibration, folder, threads=threads)


ORDERS = ("padded to 128", "as they come", "sorted")
"""How rows of different lengths make batches: all of one length, or padded to the longest of each batch."""


def ragged(shape: Shape, rows: int, size: int = 32) -> dict[str, tuple[list[dict[str, Any]], float]]:
    """Return batches of rows with 20 to 60 tokens for each order, and the percent of tokens that are real."""
    lengths = np.random.default_rng(5).integers(20, 61, rows)
    found = {}
    for order in ORDERS:
        chosen = np.sort(lengths) if order == "sorted" else lengths
        batches = []
        for start in range(0, rows, size):
            of_batch = chosen[start : start + size]
            longest = 128 if order == ORDERS[0] else int(of_batch.max())
            made = batch_of(shape, len(of_batch), min(longest, shape.positions), seed=start)
            mask = (np.arange(made["input_ids"].shape[1])[None] < of_batch[:, None]).astype(np.int64)
            arrays = {name: values.numpy() for name, values in made.items() if name != "labels"}
            batches.append(arrays | {"attention_mask": mask, "input_ids": arrays["input_ids"] * mask})
        tokens = sum(each["attention_mask"].size for each in batches)
        real = sum(int(each["attention_mask"].sum()) for each in batches)
        found[order] = batches, 100 * real / tokens
    return found


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
        show_best(readings, PEERS)
        tables[order] = {"readings": readings, "real": real}
    return tables


def _all(run: Callable[[dict[str, Any]], Any], batches: list[dict[str, Any]]) -> None:
    for batch in batches:
        run(batch)
