"""Price of a calibration pass over plain inference on the same batches, and of the range searches after it.

    python -m benchmarks.calibration [--model minilm_l6] [--sites qdqbert] [--batches 4] [--batch 32]
        [--length 64] [--padded] [--rounds 5] [--threads 2] [--no-peers] [--json FILE]

``inference`` is plain transformers with its default attention, without gradients. qexp's pass collects
what all of its calibrators need, for every bit-width: extremes of each batch and a histogram. The peers
collect for one method each: modelopt's ``max`` and ``histogram`` calibrators, brevitas' percentile,
torch's own HistogramObserver in hooks, and ``torch.histc`` in hooks. A search of qexp is over all
quantizers, those of weights included; modelopt's is timed on one activation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, get_args

import torch

from benchmarks.harness import Reading, alternate, seconds, show, show_rows, write
from benchmarks.observers import PASSES, modelopt_searches
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.peers import attempt
from benchmarks.peers.own import PLACEMENTS
from benchmarks.shapes import SHAPES, Batch, Family, batch_of
from qexp.config import AnyCalibrator, ImportedCalibrator, QuantizationConfig
from qexp.quant.insertion.insert import QuantizedModel, insert


def own_pass(model: Any, sites: str, batches: list[Batch]) -> tuple[Callable[[], None], QuantizedModel]:
    """qexp's pass, with empty statistics at its start."""
    quantization = insert(model, QuantizationConfig(placement=PLACEMENTS[sites]))

    def run() -> None:
        quantization.statistics().clear()
        for batch in batches:
            with torch.no_grad(), quantization.observing(batch["attention_mask"]):
                model(**batch)

    return run, quantization


def inference(model: Any, batches: list[Batch]) -> Callable[[], None]:
    """The batches through the model."""

    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                model(**batch)

    return run


def searches(quantization: QuantizedModel) -> dict[str, float]:
    """Seconds of each calibrator over all quantizers; weights by largest values, and by least squares."""
    found = {}
    statistics = quantization.statistics()
    own = (each for each in get_args(get_args(AnyCalibrator)[0]) if each is not ImportedCalibrator)
    for calibrator in own:
        kind = get_args(calibrator.model_fields["kind"].annotation)[0]
        for weights in get_args(calibrator.model_fields["weights"].annotation):
            chosen = calibrator(kind=kind, weights=weights)
            found[f"{kind}, weights {weights}"] = seconds(_calibrating(quantization, statistics, chosen))
    return found


def _calibrating(quantization: QuantizedModel, statistics: Any, chosen: Any) -> Callable[[], None]:
    return lambda: quantization.calibrate(statistics, chosen)


def peer_passes(
    family: Family, sites: str, batches: list[Batch]
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """The peers' passes, and which are left out and why."""
    calls, skipped = {}, {}
    for name, prepare in PASSES.items():
        call, problem = attempt(prepare, family.build(), sites, batches)
        if problem is None:
            calls[name] = call
        else:
            skipped[name] = problem
    return calls, skipped


def measure(options: argparse.Namespace, family: Family, batches: list[Batch]) -> dict[str, Any]:
    """Passes in turns, then the searches."""
    own, quantization = own_pass(family.build(), options.sites, batches)
    peers, skipped = peer_passes(family, options.sites, batches) if options.peers else ({}, {})
    calls = {
        "inference": inference(family.build(), batches),
        "inference eager": inference(family.build("eager"), batches),
        "qexp, all calibrators": own,
        **peers,
    }
    passes: dict[str, Reading] = alternate(calls, options.rounds, "inference")
    own()
    found, count = searches(quantization), len(quantization.quantizers)
    each = {f"qexp {name}": value / count for name, value in found.items()}
    if options.peers:
        theirs, problem = attempt(modelopt_searches, family.build(), options.sites, batches)
        each |= theirs or {}
        skipped |= {"modelopt searches": problem} if problem else {}
    return {"passes": passes, "searches": found, "search_per_quantizer": each, "left_out": skipped,
            "quantizers": count}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=64, batch=32, batches=4, rounds=5)
    found.add_argument("--sites", choices=PLACEMENTS, default="qdqbert")
    found.add_argument("--padded", action="store_true", help="rows of half to full length")
    add_peers(found)
    options = start(found, arguments)
    shape = SHAPES[options.model]
    batches = [
        batch_of(shape, options.batch, options.length, seed, options.padded)
        for seed in range(options.batches)
    ]
    results = measure(options, Family(shape), batches)
    show(f"calibration pass, {options.model}, {options.sites}, {options.batches} batches", results["passes"])
    for name, reason in results["left_out"].items():
        print(f"  left out: {name}: {reason}")
    rows = [(name, f"{value * 1e3:.1f}") for name, value in results["searches"].items()]
    show_rows(f"qexp: range search over {results['quantizers']} quantizers", ("", "ms"), rows)
    rows = [(name, f"{value * 1e3:.3f}") for name, value in results["search_per_quantizer"].items()]
    show_rows("range search for each quantizer", ("", "ms"), rows)
    write(options.json, {"settings": settings(options), **results})


if __name__ == "__main__":
    main(sys.argv[1:])
