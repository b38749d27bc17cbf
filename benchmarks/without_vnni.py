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
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.forms import FP32_FILE, INT8_FILE, dynamic_onnxruntime, static_onnxruntime
from benchmarks.peers.ctranslate2_encoder import CTranslate2Encoder
from benchmarks.served import (
    AVX2_FILE,
    BASELINE,
    DYNAMIC,
    ON_AVX2,
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
)
from benchmarks.shapes import Batch, Family, batch_of
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


def _plain(file: Path, threads: int, *_: Any) -> Served:
    return in_onnxruntime(file, threads)


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
    export(family, calibration, folder, ON_AVX2)
    threads, order = options.threads, EngineSpec(folder / AVX2_FILE, "int8", options.threads)
    exact = exact_path(folder / INT8_FILE, threads)
    makers: dict[str, Maker] = {
        BASELINE: lambda *_: in_onnxruntime(folder / FP32_FILE, threads),
        "openvino fp32": lambda *_: in_openvino(folder / FP32_FILE, threads),
        "onnxruntime int8, avx2, qexp": lambda *_: in_onnxruntime(folder / AVX2_FILE, threads),
        "openvino int8, avx2, qexp": lambda *_: in_engine(OpenVinoEngine(order)),
        **{
            f"onnxruntime int8, avx2, {name}, qexp": partial(_plain, folder / f"{name}.onnx", threads)
            for name in ("linear", *DYNAMIC)
        },
        "openvino int8 of attention, too, avx2": lambda *_: in_openvino(folder / AVX2_FILE, threads),
        **{name: make for name, make in exact.items() if name.startswith("onnxruntime")},
    }
    if options.peers:
        makers |= {"ctranslate2 fp32": by_ctranslate2("fp32")} | PEERS
    return make_all(makers, family, calibration, folder, threads=threads)
