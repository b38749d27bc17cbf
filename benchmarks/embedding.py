"""What 8 and 4 bits leave of an embedding: Spearman on STS-B or nDCG of a retrieval, beside other INT8.

    python -m benchmarks.embedding [--task NAME] [--model NAME] [--methods ptq qat] [--deploy none]
        [--threads 2] [--nncf-python FILE] [--json FILE] [-- OVERRIDE ...]

Runs of ``task=stsb_embedding`` (PTQ and QAT, W8A8 and W4A8; a repeated one is read from the store), or of
another task of vectors, give FP32, PTQ and QAT in torch and, through their graphs, in ONNX Runtime (not with
``--deploy none``). Overrides behind ``--`` go to each run. Their FP32 graph is then quantized by ONNX
Runtime's ``quantize_dynamic``, per tensor and per channel, and, by an interpreter that has it, by NNCF
(``nncf.quantize`` with ``ModelType.TRANSFORMER`` on 300 texts of the train split). Those graphs run over the
same tokens. ``kept`` is the share of FP32's first metric.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks import experiment
from benchmarks.harness import table
from qexp.analysis.evaluator import EvaluationRows, rows_of
from qexp.analysis.run_models import graph_of, model_of, runtime_of
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.records.record import Record, outputs_root
from qexp.tasks import adapter_for
from qexp.tasks.exported import exported_run

SAMPLES = 300
"""Texts that NNCF calibrates on: the default of ``nncf.quantize``."""
MEBIBYTE = 2**20
NNCF = """
import sys
import nncf, numpy as np, onnx
source, texts, target = sys.argv[1:]
batches = np.load(texts)
count = len([name for name in batches.files if name.startswith("input_ids")])
names = ("input_ids", "attention_mask", "token_type_ids")
rows = [{name: batches[f"{name}.{index}"] for name in names} for index in range(count)]
kind = nncf.ModelType.TRANSFORMER
model = nncf.quantize(onnx.load(source), nncf.Dataset(rows), model_type=kind, subset_size=count)
onnx.save(model, target)
print(nncf.__version__)
"""


@dataclass(frozen=True)
class Line:
    """One model of the table."""

    name: str
    scores: Mapping[str, float | None]
    bytes: int | None = None


def run(options: argparse.Namespace, quant: str, method: str) -> Record:
    """Run the experiment, or find it in the store, and return its Record."""
    words = [
        f"task={options.task}", f"quant={quant}", f"method={method}", f"deploy={options.deploy}",
        f"model.name={options.model}", f"machine.threads={options.threads}", "machine.progress=false",
        *options.overrides,
    ]  # fmt: skip
    return experiment.run(words)


def own_lines(records: dict[tuple[str, str], Record]) -> Iterator[Line]:
    """Yield the models of the runs."""
    fp32 = next(iter(records.values()))
    assert fp32.bytes is not None
    yield Line("FP32", fp32.scores["fp32"], fp32.bytes["fp32"])
    for (quant, method), record in records.items():
        for stage, where in ((method, "torch"), ("onnx", "ONNX Runtime")):
            if stage not in record.scores:  # --deploy none
                continue
            assert record.bytes is not None
            name = f"{quant.upper()} {method.upper()}, {where}"
            yield Line(name, record.scores[stage], record.bytes["int8"])


def scored(name: str, graph: Path, runtime: str, rows: EvaluationRows, threads: int) -> Line:
    """Evaluate a graph that another program quantized."""
    forward: Callable[[Any], Any]
    if runtime == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = new_session(graph, options)
        inputs = [each.name for each in session.get_inputs()]

        def run_session(batch: Any) -> Any:
            import torch

            found = session.run(["sentence_embedding"], {each: batch[each].numpy() for each in inputs})
            return torch.from_numpy(found[0])

        forward = run_session
    else:
        folder = graph.parent / graph.stem
        folder.mkdir()
        (folder / "model.onnx").hardlink_to(graph)
        forward = exported_run(
            rows.task, folder, lambda file: load("openvino", EngineSpec(file, "int8", threads=threads))
        )
    adapter = adapter_for(rows.task)
    found = adapter.predict(forward, rows.tokens, rows.split, rows=rows.limit, advance=lambda *_, **__: None)
    return Line(name, adapter.score(found), graph.stat().st_size)


def calibration_texts(rows: EvaluationRows, file: Path) -> None:
    """Write single texts of the train split, drawn at random, as arrays."""
    adapter = adapter_for(rows.task)
    split = adapter.split(rows.tokens.split(rows.task.train))
    drawn = np.random.default_rng(0).permutation(len(split))[:SAMPLES]
    arrays: dict[str, Any] = {}
    for index, row in enumerate(drawn):
        batch = adapter.collate(split, np.array([row]), rows.tokens.pad_id)
        arrays |= {f"{name}.{index}": values.numpy() for name, values in batch.items() if name != "labels"}
    np.savez(file, allow_pickle=False, **arrays)


def other_lines(graph: Path, rows: EvaluationRows, options: argparse.Namespace) -> Iterator[Line]:
    """Yield the same model quantized by others."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for per_channel in (False, True):
            way = "per channel" if per_channel else "per tensor"
            target = folder / f"dynamic-{per_channel}.onnx"
            quantize_dynamic(graph, target, weight_type=QuantType.QInt8, per_channel=per_channel)
            name = f"ONNX Runtime {onnxruntime.__version__} dynamic INT8, {way}"
            yield scored(name, target, "onnxruntime", rows, options.threads)
        if options.nncf_python:
            calibration_texts(rows, folder / "texts.npz")
            script, target = folder / "quantize.py", folder / "nncf.onnx"
            script.write_text(NNCF)
            words = [options.nncf_python, str(script), str(graph), str(folder / "texts.npz"), str(target)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"NNCF: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                return
            version = done.stdout.strip().splitlines()[-1]
            for runtime in ("openvino", "onnxruntime"):
                yield scored(f"NNCF {version}, in {runtime}", target, runtime, rows, options.threads)


def _cells(line: Line, fp32: Line, metrics: Sequence[str]) -> list[str]:
    """Return the cells of a row of the table."""
    first, *others = (line.scores[metric] for metric in metrics)
    whole = fp32.scores[metrics[0]]
    kept = f"{100 * first / whole:.2f}" if first is not None and whole else "-"
    size = f"{line.bytes / MEBIBYTE:.1f}" if line.bytes else "-"
    return [line.name, _number(first), kept, *map(_number, others), size]


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--task", default="stsb_embedding")
    parser.add_argument("--methods", nargs="+", choices=("ptq", "qat"), default=["ptq", "qat"])
    parser.add_argument(
        "--deploy", choices=("onnx", "none"), default="onnx", help="none: torch alone, no gate"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nncf-python", metavar="FILE", help="Python of an environment with nncf and onnx")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    options = parser.parse_args()
    records = {
        (quant, method): run(options, quant, method)
        for method in options.methods
        for quant in ("w8a8", "w4a8")
    }
    first, outputs = next(iter(records.values())), outputs_root()
    lines = list(own_lines(records))
    ctx = runtime_of(first, outputs, None, options.threads)
    graph = graph_of(model_of(first, outputs, "fp32"), ctx).file
    lines += other_lines(graph, rows_of(first, outputs, options.methods[0]), options)
    metrics = [*lines[0].scores]
    table(
        f"{options.model} on {options.task}",
        ["model", metrics[0], "kept of FP32, %", *metrics[1:], "MiB"],
        [_cells(each, lines[0], metrics) for each in lines],
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in lines], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
