"""Latency of one model in every form that serves it, on the same batches.

    python -m benchmarks.inference [--model minilm_l6] [--length 128] [--rows 1,32] [--sites qdqbert]
        [--rounds 15] [--threads 2] [--no-peers] [--json FILE]

torch in FP32 and with qexp's fake quantization, ONNX Runtime on qexp's FP32 and INT8 graphs, and as peers
the quantizers of ONNX Runtime itself (static with Q/DQ pairs, dynamic) on the very FP32 graph, torch's
dynamic quantization, and OpenVINO on both of qexp's graphs. Ratios are to torch in FP32; beside each form
stands how far it moves the logits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.floors import floor, rates
from benchmarks.forms import PEERS, Form, own_forms
from benchmarks.harness import Reading, alternate, show, show_rows, write
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.peers import attempt
from benchmarks.peers.own import PLACEMENTS
from benchmarks.shapes import SHAPES, Family, batch_of


def forms_of(
    options: argparse.Namespace, family: Family, folder: Path
) -> tuple[dict[str, Form], dict[str, str]]:
    """All forms, calibrated on a batch of 32 rows, and what is left out and why."""
    calibration = batch_of(family.shape, 32, options.length, seed=2)
    forms = own_forms(family, options.sites, calibration, folder, options.threads)
    skipped = {}
    for name, make in PEERS.items() if options.peers else ():
        quant_config, problem = attempt(make, family, calibration, folder, options.threads)
        if problem is None:
            forms[name] = quant_config
        else:
            skipped[name] = problem
    return forms, skipped


def measure(
    forms: dict[str, Form], family: Family, rows: int, length: int, rounds: int
) -> dict[str, Reading]:
    """All forms in turns on one batch."""
    batch = batch_of(family.shape, rows, length, seed=3)
    del batch["labels"]
    return alternate(
        {name: quant_config.call(batch) for name, quant_config in forms.items()}, rounds, "torch fp32"
    )


def drift(forms: dict[str, Form], family: Family, length: int) -> dict[str, float]:
    """Largest change of a logit against torch in FP32, over the largest logit, on 32 rows."""
    batch = batch_of(family.shape, 32, length, seed=3)
    del batch["labels"]
    answers = {name: np.asarray(quant_config.call(batch)()) for name, quant_config in forms.items()}
    reference = answers["torch fp32"]
    return {
        name: float(np.abs(answer - reference).max() / np.abs(reference).max())
        for name, answer in answers.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=128, rounds=15)
    found.add_argument("--rows", default="1,32", help="batch sizes, with commas between them")
    found.add_argument("--sites", choices=PLACEMENTS, default="qdqbert")
    add_peers(found)
    options = start(found, arguments)
    family = Family(SHAPES[options.model])
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as folder, torch.no_grad():
        forms, skipped = forms_of(options, family, Path(folder))
        moved = drift(forms, family, options.length)
        for rows in (int(word) for word in options.rows.split(",")):
            readings = measure(forms, family, rows, options.length, options.rounds)
            machine = rates(family.shape, rows, options.length)
            least = floor(family.shape, rows, options.length, options.sites, machine).forward
            show(f"{options.model}, {rows} x {options.length}", readings)
            print(f"  floor of fp32: {least * 1e3:.3f} ms, {least / readings['torch fp32'].seconds:.3f}")
            tables[str(rows)] = {"readings": readings, "fp32_floor": least, "rates": machine}
    show_rows("change of the logits", ("", "share"), [(name, f"{each:.2%}") for name, each in moved.items()])
    for name, reason in skipped.items():
        print(f"  left out: {name}: {reason}")
    write(options.json, {"settings": settings(options), "rows": tables, "drift": moved, "left_out": skipped})


if __name__ == "__main__":
    main(sys.argv[1:])
