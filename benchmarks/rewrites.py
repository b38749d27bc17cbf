"""What it costs to keep ONNX Runtime from rewriting a graph: the exporter's rules on and off, in one run.

    python -m benchmarks.rewrites [--model minilm_l6] [--rows 8] [--length 128] [--rounds 15] [--threads 1]

A model with random weights, W8A8 in ``placement=aimet`` and W8A16 in ``placement=gemm``, exported with the
rules of :mod:`qexp.deploy.onnx.workarounds` and without. Sessions have no option but their threads; beside
W8A16 there is one more, with the option that keeps MatMulNBits in float. Behind the times stands how far each
moves the logits from the graph as it is written, of the largest.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import torch
import yaml  # type: ignore[import-untyped, unused-ignore]

from benchmarks.harness import Reading, alternate, show_rows, write
from benchmarks.options import parser, settings, start
from benchmarks.shapes import SHAPES, Family, batch_of
from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig
from qexp.deploy.onnx import export as exporter
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.environment import conf_folder
from qexp.quant.insertion.insert import insert

OLD, NEW, LEVEL = "rewritten", "kept", "rewritten, level 1"
LEVELS = {"session.qdq_matmulnbits_accuracy_level": "1"}
CASES = {"aimet w8a8": ("aimet", 8), "gemm w8a16": ("gemm", 16)}
"""Placement and bits of activations."""


def export(family: Family, case: str, folder: Path, length: int) -> dict[str, Path]:
    """Write a case with the rules and without."""
    placement, bits = CASES[case]
    tree = yaml.safe_load((conf_folder() / "placement" / f"{placement}.yaml").read_text(encoding="utf-8"))
    batch = batch_of(family.shape, 8, length, seed=2, padded=True)
    example = {name: values for name, values in batch.items() if name != "labels"}
    model = family.build()
    quant_config = QuantizationConfig(
        placement=Placement.model_validate(tree), quant=Quant(activation_bits=bits)
    )
    quantization = insert(model, quant_config)
    with torch.no_grad(), quantization.observing(example["attention_mask"]):
        model(**example)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.export_mode()
    paths = {name: folder / f"{name}.onnx" for name in (OLD, NEW)}
    exporter.export_onnx(model, paths[NEW], example=example)
    with patch.object(exporter, "keep_exact", lambda _: None):
        exporter.export_onnx(model, paths[OLD], example=example)
    return paths


def session(path: Path, threads: int, entries: Mapping[str, str], *, optimized: bool = True) -> Any:
    """A session with nothing but its threads and ``entries``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    return new_session(Path(path), options)


def measure(family: Family, case: str, options: Any) -> dict[str, tuple[Reading, float]]:
    """Times of each variant, and how far it is from the graph as written."""
    batch = batch_of(family.shape, options.rows, options.length, seed=4)
    feed = {name: values.numpy() for name, values in batch.items() if name != "labels"}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as folder:
        paths = export(family, case, Path(folder), options.length)
        expected = session(paths[OLD], options.threads, {}, optimized=False).run(None, feed)[0]
        made = {name: session(path, options.threads, {}) for name, path in paths.items()}
        if CASES[case][1] > 8:
            made[LEVEL] = session(paths[OLD], options.threads, LEVELS)
        off = {
            name: float(np.abs(each.run(None, feed)[0] - expected).max() / np.abs(expected).max())
            for name, each in made.items()
        }
        readings = alternate(
            {name: partial(each.run, None, feed) for name, each in made.items()}, options.rounds, OLD
        )
    return {name: (readings[name], off[name]) for name in made}


def show(case: str, found: Mapping[str, tuple[Reading, float]]) -> None:
    """Print a table."""
    rows = [
        (
            name, f"{each.seconds * 1e3:.1f}", f"{each.ratio:.3f}", f"{each.least:.3f} .. {each.largest:.3f}",
            f"{off:.1e}",
        )
        for name, (each, off) in found.items()
    ]  # fmt: skip
    show_rows(case, ("", "ms", "ratio", "within rounds", "moves logits"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = start(parser(__doc__ or "", rows=8, length=128, rounds=15), arguments)
    family, found = Family(SHAPES[options.model]), {}
    for case in CASES:
        found[case] = measure(family, case, options)
        show(case, found[case])
    write(options.json, {"settings": settings(options), "cases": found})


if __name__ == "__main__":
    main(sys.argv[1:])
