"""Peak memory and time of training steps over lengths, each variant in a process of its own.

    python -m benchmarks.training_memory [--model minilm_l6] [--batch 32] [--lengths 128,384,512] [--steps 3]
        [--threads 2] [--no-peers] [--json FILE]

``fp32`` and ``qat`` are what a run of qexp does; ``scores kept`` is that without computing attention again
and with torch's dropout, as it was once; ``transformers`` is a plain loop over fused attention with the C
library as it is, and ``modelopt`` its QAT of linear layers in such a loop. Dropout is 0.1; the lengths of a
batch's rows go from half of the given one to all of it. Peak memory is the most that was resident, less what
was before the model was built (torch and this file). Seconds are those of the fastest step but the first.
Quantizers are those of QDQBERT's sites, their ranges fixed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch

from benchmarks.harness import show_rows, write
from benchmarks.options import add_peers, parser, settings
from benchmarks.peers import modelopt, own, quiet
from benchmarks.shapes import SHAPES, Family, batch_of, set_dropout
from qexp.context import set_threads
from qexp.quant.insertion.attention import KEEPS_PROBABILITIES
from qexp.training.attention import recomputed_attention
from qexp.training.dropout import FastDropout

ROOT = Path(__file__).resolve().parent.parent
DROPOUT = 0.1
VARIANTS = (
    "fp32: transformers", "fp32: scores kept", "fp32", "qat: modelopt", "qat: scores kept", "qat",
)  # fmt: skip
"""What is measured; the first of a kind is what the others are compared with."""


def step_of(
    variant: str, family: Family, batch: dict[str, torch.Tensor], entered: ExitStack
) -> Callable[[], None]:
    """Build the model of a variant, enter what its training runs in, and return one training step."""
    sdpa = variant.startswith("fp32") or variant == "qat: modelopt"
    model = family.build("sdpa" if sdpa else "eager")
    if variant == "qat: modelopt":
        with quiet():
            model = modelopt.prepare(model, "linear", batch)
    elif variant.startswith("qat"):
        own.prepare(model, own.PLACEMENTS["qdqbert"], batch)
    set_dropout(model, DROPOUT)
    for module in model.modules():
        setattr(module, KEEPS_PROBABILITIES, variant == "qat: scores kept")
    optimizer = family.optimizer(model.train().parameters())
    attention = recomputed_attention(model) if variant == "fp32" else nullcontext()
    dropout = FastDropout() if ":" not in variant else nullcontext()
    entered.enter_context(attention)
    entered.enter_context(dropout)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(variant: str, options: argparse.Namespace, length: int) -> dict[str, float]:
    """Peak memory in MiB above that of the bare process, and seconds of a step."""
    torch.manual_seed(0)
    if ":" not in variant or variant.endswith("kept"):
        set_threads(options.threads)
    else:
        torch.set_num_threads(options.threads)
    before = _peak()
    shape = SHAPES[options.model]
    batch = batch_of(shape, options.batch, length, padded=True)
    times: list[float] = []
    with ExitStack() as entered:
        step = step_of(variant, Family(shape), batch, entered)
        for _ in range(options.steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return {"mib": _peak() - before, "seconds": min(times[1:] or times)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(variant: str, options: argparse.Namespace, length: int) -> dict[str, float]:
    """Measure in a process of its own, as memory that was used once stays."""
    words = [sys.executable, "-m", "benchmarks.training_memory", "--only", variant, "--lengths", str(length)]
    for name in ("model", "batch", "steps", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _show(length: int, found: dict[str, dict[str, float]]) -> None:
    rows = []
    for name, figures in found.items():
        first = found[next(other for other in found if other[:3] == name[:3])]
        ratios = (f"{figures[each] / first[each]:.2f}" for each in ("mib", "seconds"))
        memory, seconds = f"{figures['mib']:.0f}", f"{figures['seconds']:.2f}"
        rows.append((name, memory, next(ratios), seconds, next(ratios)))
    show_rows(f"{length} tokens", ("", "MiB", "over the first", "s a step", "over the first"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", batch=32, steps=3)
    found.add_argument("--lengths", default="128,384,512")
    found.add_argument("--only", choices=VARIANTS, default=None, help="measure in this process, print JSON")
    add_peers(found)
    options = found.parse_args(arguments)
    lengths = [int(each) for each in options.lengths.split(",")]
    if options.only is not None:
        print(json.dumps(measure(options.only, options, lengths[0])))
        return
    variants = [each for each in VARIANTS if options.peers or each != "qat: modelopt"]
    tables = {}
    for length in lengths:
        tables[length] = {each: in_process(each, options, length) for each in variants}
        _show(length, tables[length])
    write(options.json, {"settings": settings(options), "tables": tables})


if __name__ == "__main__":
    main(sys.argv[1:])
