"""What a device is asked: fake quantization, training steps, calibration and memory of training on it.

    python -m benchmarks.gpu_steps kernels|step|calibration|memory [--device cuda] [--model bert_base]
        [--precision fp32|bf16] [--batch 32] [--length 128] [--lengths 128,384,512] [--rounds 20]
        [--json FILE]

``python -m benchmarks.gpu --all`` runs them, each in a process of its own. Times are taken between two
synchronizations. ``kernels``: fake quantization over a copy of the same tensor. ``step``: AdamW steps of QAT
with QDQBERT's sites over one without quantizers in the same precision, beside ModelOpt's on linear layers.
``calibration``: a pass that observes, over plain inference. ``memory``: the most that was allocated in three
steps, with attention probabilities kept for the backward pass and with attention computed again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.fake_quant import MODES, working
from benchmarks.harness import Reading, alternate, write
from benchmarks.kernels import KERNELS
from benchmarks.options import settings
from benchmarks.peers import attempt, modelopt, own
from benchmarks.shapes import SHAPES, Batch, Family, batch_of
from qexp.config import Placement, QuantizationConfig
from qexp.quant.insertion.attention import KEEPS_PROBABILITIES
from qexp.quant.insertion.insert import insert

SITES: Placement = own.PLACEMENTS["qdqbert"]
MIB = 1 << 20
Table = dict[str, Any]


def synchronized(call: Callable[[], object], device: str) -> Callable[[], None]:
    """A call that ends when the device has done its work."""

    def run() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def alternate_on(
    device: str, calls: Mapping[str, Callable[[], object]], rounds: int, baseline: str
) -> dict[str, Reading]:
    """Time calls in turns, each until the device is done."""
    return alternate({name: synchronized(call, device) for name, call in calls.items()}, rounds, baseline)


def kernels(options: argparse.Namespace) -> Table:
    """Fake quantization over a copy of the same tensor, by form and size."""
    found: Table = {}
    for size in (int(each) * MIB for each in options.mib.split(",")):
        x = torch.randn(size // 4 // 512, 512, device=options.device)
        target = torch.empty_like(x)
        for channels in (False, True):
            calls: dict[str, Callable[[], object]] = {"copy": partial(target.copy_, x)}
            for title, (backward, learned) in MODES.items():
                made = KERNELS["qexp"].make(x, channels, learned)
                calls[title] = working(made, x, 1, backward)
            form = f"{'per channel' if channels else 'per tensor'}, {size // MIB} MiB"
            found[form] = alternate_on(options.device, calls, options.rounds, "copy")
    return found


def models_of(options: argparse.Namespace, batch: Batch) -> tuple[dict[str, Any], Table]:
    """Trained variants on the device by name, and those that were left out, with why."""
    family = Family(SHAPES[options.model])
    found: dict[str, Any] = {"without quantizers": family.build().to(options.device)}
    for mode in ("frozen", "learned"):
        model = family.build("eager").to(options.device)
        own.prepare(model, SITES, batch, mode)
        found[f"qexp {mode}"] = model
    peer, problem = attempt(lambda: modelopt.prepare(family.build().to(options.device), "linear", batch))
    if problem is None:
        found["modelopt, linear layers"] = peer
    return found, {} if problem is None else {"modelopt": problem}


def step(options: argparse.Namespace) -> Table:
    """Training steps in one precision."""
    batch = on(options, options.length)
    models, left_out = models_of(options, batch)
    calls = {name: training_step(model.train(), batch, options) for name, model in models.items()}
    readings = alternate_on(options.device, calls, options.rounds, "without quantizers")
    return {"readings": readings, "left_out": left_out}


def training_step(model: Any, batch: Batch, options: argparse.Namespace) -> Callable[[], None]:
    """Forward, backward and AdamW of a model of its own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def run() -> None:
        with autocast(options):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def autocast(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Mixed precision, if asked for."""
    return torch.autocast(options.device, torch.bfloat16) if options.precision == "bf16" else nullcontext()


def on(options: argparse.Namespace, length: int) -> Batch:
    """A padded batch on the device."""
    batch = batch_of(SHAPES[options.model], options.batch, length, padded=True)
    return {name: values.to(options.device) for name, values in batch.items()}


def calibration(options: argparse.Namespace) -> Table:
    """A pass that observes every site, over plain inference with either attention."""
    family, batch = Family(SHAPES[options.model]), on(options, options.length)
    plain, eager = (family.build(each).to(options.device) for each in ("sdpa", "eager"))
    observed = family.build("eager").to(options.device)
    quantization = insert(observed, QuantizationConfig(placement=SITES))

    def observe() -> None:
        with torch.no_grad(), quantization.observing(batch["attention_mask"]):
            observed(**batch)

    def infer(model: Any) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                model(**batch)

        return run

    calls = {"inference": infer(plain), "inference eager": infer(eager), "calibration": observe}
    return {"readings": alternate_on(options.device, calls, options.rounds, "inference")}


def memory(options: argparse.Namespace) -> Table:
    """MiB at the peak of three QAT steps by length; on a CPU there is no such counter."""
    if options.device != "cuda":
        return {"left_out": "memory of a CPU: python -m benchmarks.training_memory"}
    found: Table = {}
    for length in (int(each) for each in options.lengths.split(",")):
        batch = on(options, length)
        found[str(length)] = {
            name: _peak(batch, keeps, options) for name, keeps in (("kept", True), ("computed again", False))
        }
    return found


def _peak(batch: Batch, keeps: bool, options: argparse.Namespace) -> float:
    model = Family(SHAPES[options.model]).build("eager").to(options.device)
    own.prepare(model, SITES, batch)
    for module in model.modules():
        setattr(module, KEEPS_PROBABILITIES, keeps)
    run = training_step(model.train(), batch, options)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        run()
    return torch.cuda.max_memory_allocated() / MIB


STEPS = {"kernels": kernels, "step": step, "calibration": calibration, "memory": memory}


def rows_of(found: Any, path: str = "") -> list[tuple[str, str]]:
    """Leaves of a table as lines: a path, and a time with its ratio or a number."""
    if isinstance(found, Reading):
        ratios = f"{found.ratio:.2f} ({found.least:.2f} to {found.largest:.2f})"
        return [(path, f"{found.seconds * 1e3:.3f} ms, {ratios}")]
    if not isinstance(found, dict):
        return [(path, f"{found:.0f}" if isinstance(found, float) else str(found))]
    return [row for name, each in found.items() for row in rows_of(each, f"{path}, {name}".strip(", "))]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("step", choices=STEPS)
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--model", choices=SHAPES, default="bert_base")
    found.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    found.add_argument("--batch", type=int, default=32)
    found.add_argument("--rounds", type=int, default=20)
    found.add_argument("--length", type=int, default=128)
    found.add_argument("--lengths", default="128,384,512", help="tokens of memory, with commas between them")
    found.add_argument("--mib", default="4,64,256", help="sizes of kernels, with commas between them")
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    options = found.parse_args(arguments)
    torch.manual_seed(0)
    table = STEPS[options.step](options)
    for name, value in rows_of(table):
        print(f"| {name} | {value} |", flush=True)
    write(options.json, {"settings": settings(options), "table": table})


if __name__ == "__main__":
    main(sys.argv[1:])
