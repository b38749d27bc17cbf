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

from benchmarks.forms import dynamic_onnxruntime, static_onnxruntime
from benchmarks.peers.ctranslate2_encoder import CTranslate2Encoder
from benchmarks.shapes import Batch, Family, Shape, batch_of
from qexp.config.cpu import this_cpu
from qexp.deploy.runtimes.onnxruntime.session import products_saturate

SOURCE = Path(__file__).with_name("avx2_only.c")
HIDDEN = "BENCHMARKS_WITHOUT_VNNI"
"""Set in the program that :func:`rerun` starts."""
UNAVAILABLE = 3
"""Exit code of a program from which the instructions cannot be hidden."""
REDUCED = {
    "onnxruntime.quantization dynamic, reduce_range": (
        partial(dynamic_onnxruntime, reduce_range=True), "quantize_dynamic_reduced.onnx",
    ),
    "onnxruntime.quantization static, reduce_range": (
        partial(static_onnxruntime, reduce_range=True), "static_reduced.onnx",
    ),
}  # fmt: skip
"""ONNX Runtime's own quantizers with weights of 7 bits, and the files that they write."""


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


def nncf_options() -> dict[str, Any]:
    """Return what makes NNCF keep weights within 7 bits."""
    from nncf import AdvancedQuantizationParameters, OverflowFix

    return {"advanced_parameters": AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE)}


def ctranslate2(precision: str) -> Callable[[Family, Batch, Path, int], CTranslate2Encoder]:
    """Return a maker of CTranslate2's encoder."""

    def make(family: Family, calibration: Batch, folder: Path, threads: int) -> CTranslate2Encoder:
        return CTranslate2Encoder(family.build("eager"), folder / f"ct2-{precision}", precision, threads)

    return make


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
