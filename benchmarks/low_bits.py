"""Few bits on real weights: loss, file, memory and latency, beside 4-bit weights of other libraries.

    python -m benchmarks.low_bits [--task stsb_embedding] [--checkpoint NAME] [--batch 8] [--length 128]
        [--rounds 9] [--threads 1] [--only GLOB ...] [--no-peers] [--json FILE] [-- OVERRIDE ...]

Runs of qexp (PTQ; a repeated one is read from the store) give files of one fine-tuned model, which are scored
on the evaluation rows in ONNX Runtime and timed there and in OpenVINO; what no runtime has a file for
(NVFP4, MXFP8) is scored in torch alone. Tables of embeddings have at most 4 bits where weights have.

Peers quantize the FP32 file or model of the same run, each as its documents say, weights of linear layers
alone: ONNX Runtime's MatMulNBits (accuracy level 4, which quantizes activations in blocks), NNCF's
``compress_weights`` (in OpenVINO, which quantizes activations in groups of 32), in torch ModelOpt's
``INT4_BLOCKWISE_WEIGHT_ONLY_CFG`` (simulated) and torchao's ``Int8DynamicActivationIntxWeightConfig``.

Loss is FP32's first metric less that of the form, on all rows. Memory is what the resident set of a fresh
process grows by until a file is loaded. Times are medians in turns within this process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import experiment
from benchmarks.harness import Reading, alternate, table, write
from benchmarks.options import add_peers, settings
from benchmarks.packed import MEBIBYTE, in_a_process, matmul_nbits
from benchmarks.peers import attempt, compressed
from qexp.analysis.evaluator import EvaluationRows, rows_of
from qexp.analysis.run_models import StoredModel, graph_of, model_of, runtime_of
from qexp.context import set_threads
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
from qexp.models.inference import load_quantized
from qexp.records.record import Record, outputs_root
from qexp.tasks import adapter_for

BASELINE = "FP32, ONNX Runtime"
SITES = (
    "placement.name=with_tables placement.sites=[linear.weight,linear.input,matmul.query,matmul.key,"
    "matmul.probs,matmul.value,embedding.weight]"
)
INTEGERS = f"recipe=fast_cpu {SITES}"
FEW = f"{INTEGERS} quant.embedding_bits=4"
OWN: dict[str, str] = {
    "W8A8": f"quant=w8a8 {INTEGERS}",
    "W4A8": f"quant=w4a8 {FEW}",
    "W4A8, GPTQ": f"quant=w4a8 refinement=gptq {FEW}",
    "W4A8, blocks of 128": f"quant=w4a8 scheme=per_group {FEW}",
    "W4A8, dynamic": f"quant=w4a8 scheme=dynamic {FEW}",
    "W3A8, GPTQ": f"quant=w3a8 refinement=gptq {FEW}",
    "W2A8, GPTQ": f"quant=w2a8 refinement=gptq {FEW}",
    "FP8": f"quant=fp8 {SITES}",
    "MXFP8": f"quant=mxfp8 calibrator=max {SITES}",
    "NVFP4": f"quant=nvfp4 calibrator=max {SITES}",
}
"""Overrides of each run, besides those of all."""
SIMULATED = ("MXFP8", "NVFP4")
"""What has no file: a score in torch is all."""
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass
class Form:
    """One model: how it answers, its score, and what it weighs."""

    forward: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None
    """None where there is nothing to time."""
    score: float | None = None
    bytes: int | None = None
    file: Path | None = None
    """What a fresh process loads to measure its memory."""
    runtime: str = "onnxruntime"
    loaded_kib: int | None = None
    reading: Reading | None = None


@dataclass
class Forms:
    """All forms of a model."""

    rows: EvaluationRows
    """What they are scored on."""
    vocabulary: int
    found: dict[str, Form] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """What is left out, and why."""


def run(options: argparse.Namespace, name: str) -> Record:
    """Run the experiment, or find it in the store, and return its Record."""
    deploy = "none" if name in SIMULATED else "onnx"
    gate = [] if "scheme=dynamic" in OWN[name] else ["gate.rows=64"]  # dynamic ranges: all rows or none
    words = [
        f"task={options.task}", f"model.name={options.checkpoint}", "method=ptq", f"deploy={deploy}", *gate,
        f"machine.threads={options.threads}", "machine.progress=false", *OWN[name].split(),
        *options.overrides,
    ]  # fmt: skip
    return experiment.run(words)


def engine(file: Path, runtime: str, threads: int) -> Form:
    """Serve a file of ONNX by an engine of this project."""
    built = load(runtime, EngineSpec(file, "int8", threads))

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(built.run({name: batch[name].cpu().numpy() for name in built.inputs}))

    return Form(forward, bytes=file.stat().st_size, file=file, runtime=runtime)


def own_forms(name: str, record: Record, options: argparse.Namespace) -> dict[str, Callable[[], Form]]:
    """Return what serves a run's model in each runtime, or its score in torch, by name."""
    if name in SIMULATED:
        score = next(iter(record.scores["ptq"].values()))
        return {f"{name}, simulated": lambda: Form(None, score=score)}
    outputs = outputs_root()
    file = graph_of(model_of(record, outputs, "ptq"), runtime_of(record, outputs, None, options.threads)).file
    return {
        f"{name}, {title}": partial(engine, file, runtime, options.threads)
        for runtime, title in RUNTIMES.items()
    }


def peers(model: StoredModel, fp32: Path, folder: Path, threads: int) -> dict[str, Callable[[], Form]]:
    """Return what makes each form of others, by name."""

    def in_torch(change: Callable[[Any], Any]) -> Form:
        ctx = runtime_of(model.record, outputs_root(), None, threads)
        loaded, _ = load_quantized(model.encoder, None, None, ctx)
        return Form(adapter_for(model.task).runner(change(loaded), ctx))

    def by_onnxruntime() -> Form:
        file = matmul_nbits(fp32, folder / "matmul_nbits.onnx")
        if file is None:
            raise ImportError("this ONNX Runtime has no MatMulNBitsQuantizer")
        return engine(file, "onnxruntime", threads)

    def by_nncf() -> Form:
        file = compressed.nncf(fp32, folder / "nncf.xml")
        size = sum(each.stat().st_size for each in (file, file.with_suffix(".bin")))
        return Form(compressed.openvino_model(file, threads), bytes=size)

    return {
        "FP32, torch": partial(in_torch, lambda loaded: loaded),
        "MatMulNBits, ONNX Runtime": by_onnxruntime,
        "NNCF compress_weights, OpenVINO": by_nncf,
        "ModelOpt INT4, torch, simulated": partial(in_torch, compressed.modelopt),
        "torchao Int8DynActInt4, torch": partial(in_torch, compressed.torchao),
    }


def forms_of(options: argparse.Namespace, folder: Path) -> Forms:
    """Make all forms."""
    names = [name for name in OWN if any(fnmatch(name, glob) for glob in options.only)]
    records = {name: run(options, name) for name in names}
    first, outputs = next(iter(records.values())), outputs_root()
    model = model_of(first, outputs, "fp32")
    graph = graph_of(model, runtime_of(first, outputs, None, options.threads))
    forms = Forms(rows_of(first, outputs, "ptq"), graph.vocabulary)
    makers: dict[str, Callable[[], Form]] = {
        f"FP32, {title}": partial(engine, graph.file, runtime, options.threads)
        for runtime, title in RUNTIMES.items()
    }
    for name, record in records.items():
        makers |= own_forms(name, record, options)
    if options.peers:
        makers |= peers(model, graph.file, folder, options.threads)
    for name, make in makers.items():
        form, problem = attempt(make)
        if problem is None:
            forms.found[name] = form
        else:
            forms.skipped[name] = problem
    return forms


def measure(forms: Forms, options: argparse.Namespace, folder: Path) -> None:
    """Fill in score, time and memory of every form that answers."""
    batch = example(forms.vocabulary, options.batch, options.length)
    arrays = {name: values.numpy() for name, values in batch.items()}
    np.savez(folder / "batch.npz", allow_pickle=False, **arrays)
    calls = {name: form.forward for name, form in forms.found.items() if form.forward is not None}
    readings = alternate(
        {name: partial(call, batch) for name, call in calls.items()}, options.rounds, BASELINE
    )
    for name, call in calls.items():
        form = forms.found[name]
        form.score = forms.rows.measure(call, lambda *_, **__: None).score
        form.reading = readings[name]
        form.loaded_kib = loaded_kib(form, folder / "batch.npz", options.threads)


def example(vocabulary: int, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Return a batch of full length with words drawn at random."""
    ids = torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def loaded_kib(form: Form, batch: Path, threads: int) -> int | None:
    """Return the median of three processes that load the file; None without one."""
    if form.file is None:
        return None
    tries = [in_a_process(form.runtime, form.file, batch, threads)["loaded"] for _ in range(3)]
    return int(sorted(tries)[1])


def cells(name: str, form: Form, fp32: Form) -> list[str]:
    """Return a row of the table."""
    loss = None if form.score is None or fp32.score is None else fp32.score - form.score
    size = None if form.bytes is None else form.bytes / MEBIBYTE
    share = None if form.bytes is None or fp32.bytes is None else form.bytes / fp32.bytes
    memory = None if form.loaded_kib is None else form.loaded_kib / 1024
    times = None if form.reading is None else 1 / form.reading.ratio
    milliseconds = None if form.reading is None else form.reading.seconds * 1e3
    numbers = ((form.score, 2), (loss, 2), (size, 1), (share, 3), (memory, 0), (milliseconds, 1), (times, 2))
    return [name, *("-" if value is None else f"{value:.{digits}f}" for value, digits in numbers)]


HEADS = ["", "score", "loss", "file, MiB", "of FP32", "loaded, MiB", "ms", "times FP32"]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    found.add_argument("--task", default="stsb_embedding")
    found.add_argument("--checkpoint", default="sentence-transformers/all-MiniLM-L6-v2")
    for name, value in {"batch": 8, "length": 128, "rounds": 9, "threads": 1}.items():
        found.add_argument(f"--{name}", type=int, default=value)
    found.add_argument("--only", nargs="+", default=["*"], metavar="GLOB", help=", ".join(OWN))
    found.add_argument("--json", type=Path, metavar="FILE")
    found.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of every run")
    add_peers(found)
    return found.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    set_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as place:
        folder = Path(place)
        forms = forms_of(options, folder)
        measure(forms, options, folder)
    title = (
        f"{options.checkpoint}, {options.task}, {options.batch} x {options.length}, {options.threads} threads"
    )
    table(title, HEADS, [cells(name, form, forms.found[BASELINE]) for name, form in forms.found.items()])
    for name, reason in forms.skipped.items():
        print(f"left out: {name}: {reason}", flush=True)
    lines = [
        {"form": name, "score": form.score, "bytes": form.bytes, "loaded_kib": form.loaded_kib,
         "reading": form.reading and asdict(form.reading)}
        for name, form in forms.found.items()
    ]  # fmt: skip
    write(options.json, {"settings": settings(options), "forms": lines, "skipped": forms.skipped})


if __name__ == "__main__":
    main()
