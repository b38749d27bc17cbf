"""Export the best runs, check their engines, and time them side by side: ``qexp bench``.

Exit codes: 0, measured, and every engine passed its gate; 1, an engine deviates from torch, or is not
available; 2, nothing to measure, with the reason and the next step on stderr; 130, interrupted, and the same
command resumes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexp.cli.options import RUN_HELP, add_outputs, comma_separated
from qexp.config import RUNTIMES, TranslationTask
from qexp.config.deploy import BEAMS
from qexp.console import print_out
from qexp.environment import check_environment
from qexp.errors import FAILED, INTERRUPTED, INVALID, OK, QexpError, StoreError
from qexp.naming import RuntimeName, StageName
from qexp.records.record import OUTPUTS_VARIABLE, Record, outputs_root, read_all, records_folder
from qexp.reporting.best_runs import WAYS, best, candidates, caveat_of, pareto
from qexp.reporting.command import command_of
from qexp.reporting.engines import engine_rows, engine_tables
from qexp.reporting.run_view import RunView
from qexp.reporting.table import markdown

if TYPE_CHECKING:
    from qexp.execution.job import Job

BATCH_SIZES, LENGTHS = (1, 8, 32, 64, 128), (64, 128, 384)
SENTENCES = (1, 8, 32)
"""Default batch sizes of a translation."""
MADE_HERE = (
    StageName.SCORES,
    StageName.ONNX,
    StageName.FP16,
    StageName.FLOOR,
    StageName.PARITY,
    StageName.LATENCY,
)
"""Stages that a benchmark may build; the others would train or calibrate again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose runs, export, gate and time their engines, print the results, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.outputs:
        os.environ[OUTPUTS_VARIABLE] = str(options.outputs)
    try:
        check_environment()
        return _bench(options)
    except QexpError as error:
        print(f"qexp bench: {error}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _bench(options: argparse.Namespace) -> int:
    from qexp.execution.job import Job

    runs = _chosen_runs(options)
    for run, caveat in ((run, caveat_of(run)) for run in runs):
        if caveat:
            print(f"warning: run {run.record.key[:12]} ({run.task} {run.quant}): {caveat}", file=sys.stderr)
    if options.bisect:
        return _bisect(runs, options)
    trees = [_tree(run.record, options) for run in runs]
    codes, records = [], []
    for run, tree in zip(runs, trees, strict=True):
        job = Job(tree, recipe=run.record.recipe, checked=False)
        codes.append(job.run())
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
        with suppress(StoreError):  # a Record that could not be written was reported by the job
            records.append(_read_record(job))
    rows = engine_rows([RunView(record) for record in records])
    print_out("\n".join(map(markdown, engine_tables(rows))))
    for row in rows:
        if command := row.found.get("info", {}).get("command"):
            print_out(f"{row.name}: {command}\n")
    failed = any("engine" in row.found.get("problems", {}) for row in rows) and not options.lenient
    return FAILED if failed or any(codes) else OK


def _read_record(job: Job) -> Record:
    from qexp.records.record import read

    assert job.experiment is not None
    return read(records_folder(outputs_root()) / f"{job.results.key(job.experiment)}.json")


def _chosen_runs(options: argparse.Namespace) -> list[RunView]:
    """Return the runs named on the command line, or the best of each task."""
    from qexp.analysis.find_run import find_record

    if options.runs:
        return [RunView(find_record(run, outputs_root())) for run in options.runs]
    folder = records_folder(outputs_root())
    records = read_all(folder)[0] if folder.is_dir() else []
    by_task = candidates(map(RunView, records), options.task or ())
    if not by_task:
        raise StoreError(
            f"no quantized run with a score among {len(records)} Records in {folder}; make one, such as: "
            "python -m qexp task=mrpc quant=w8a8, or name other outputs with --outputs"
        )
    choose = pareto if options.choose == "pareto" else best
    return [run for of_task in by_task.values() for run in choose(of_task)]


def _tree(record: Record, options: argparse.Namespace) -> dict[str, Any]:
    """Return the experiment of a run with the requested deployment.

    Raises:
        StoreError: Its artifacts are missing, or the Record is of another version.
    """
    from qexp.analysis.find_run import experiment_of
    from qexp.execution.plan import Plan

    experiment = experiment_of(record)
    tree = experiment.model_dump(mode="json")
    tree["deploy"] = {"kind": "engines", **_section(options, isinstance(experiment.task, TranslationTask))}
    if options.threads:
        tree["machine"]["threads"] = options.threads
    plan = Plan()
    plan.add(tree)
    if plan.problems:
        raise StoreError(f"run {record.key[:12]}: {next(iter(plan.problems))}")
    missing = sorted({need.stage for need in plan.jobs[0] if not need.there} - set(MADE_HERE))
    if missing:
        raise StoreError(
            f"run {record.key[:12]}: {', '.join(missing)} of it are gone; this makes them again, if data and "
            f"checkpoint are the same:\n  {command_of(RunView(record))}"
        )
    return tree


def _available_runtimes() -> list[RuntimeName]:
    """Return the runtimes that are installed and have a device."""
    gpu = Path("/proc/driver/nvidia").is_dir()
    needs: dict[RuntimeName, str] = {
        "openvino": "openvino",
        **({"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"} if gpu else {}),
    }
    installed = [runtime for runtime, package in needs.items() if find_spec(package)]
    found: list[RuntimeName] = ["onnxruntime", *installed]
    return [*found, "torch_int8"] if gpu else found


def _section(options: argparse.Namespace, translates: bool) -> dict[str, Any]:
    runtimes = [name for name in _available_runtimes() if RUNTIMES[name].states or not translates]
    return {
        "runtimes": options.runtimes or runtimes,
        "precisions": options.precisions,
        "batch_sizes": options.batch_sizes or (SENTENCES if translates else BATCH_SIZES),
        "beams": options.beams,
        "lengths": options.lengths,
        "real": options.real,
        "runs": options.runs_per_shape,
        "warmup": options.warmup,
    }


def _bisect(runs: Sequence[RunView], options: argparse.Namespace) -> int:
    from qexp.analysis.bisect import divergences

    divergent = [
        each
        for run in runs
        for each in divergences(run.record, outputs_root(), options.runtimes or _available_runtimes())
    ]
    for each in divergent:
        print_out(f"{each}\n")
    return FAILED if any(each.diverges for each in divergent) else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp bench",
        description="Takes the best quantized run of each task (or those that are named), exports it, makes "
        "engines of it, runs the whole evaluation set through each, and times them side by side. Nothing is "
        "trained. Results go into Records, and from there into python -m qexp report and the run's tracker.",
        epilog="Exit code 0: measured, and every engine passed its gate; 1: one departs from torch or could "
        "not be had; 2: nothing to measure; 130: interrupted.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--task", action="append", metavar="NAME", help="choose among runs of this task only")
    parser.add_argument(
        "--choose",
        choices=WAYS,
        default="best",
        help="without RUN: the run with the best score of each task, or all on the front of score and bytes",
    )
    parser.add_argument(
        "--runtimes",
        type=comma_separated,
        metavar="A,B",
        help=f"of {', '.join(RUNTIMES)} (default: what can run here)",
    )
    parser.add_argument(
        "--precisions",
        type=comma_separated,
        default=["fp32", "fp16", "bf16", "int8"],
        metavar="A,B",
        help="those that a runtime does not have are left out (default: fp32,fp16,bf16,int8)",
    )
    _add_sizes(parser)
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="instead of timing: name the layers of an engine whose outputs depart from torch's",
    )
    parser.add_argument(
        "--lenient", action="store_true", help="report a runtime that is not available instead of failing"
    )
    add_outputs(parser)
    return parser


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-sizes",
        type=_numbers,
        metavar="N,N",
        help=f"rows (default: {','.join(map(str, BATCH_SIZES))}; {','.join(map(str, SENTENCES))} of a "
        "translation)",
    )
    parser.add_argument(
        "--beams",
        type=_numbers,
        metavar="N,N",
        help=f"beams of the searches of a translation (default: {','.join(map(str, BEAMS))})",
    )
    parser.add_argument(
        "--lengths",
        type=_numbers,
        default=list(LENGTHS),
        metavar="N,N",
        help=f"tokens (default: {','.join(map(str, LENGTHS))})",
    )
    parser.add_argument("--real", action="store_true", help="time batches of the evaluation rows too")
    parser.add_argument(
        "--runs", dest="runs_per_shape", type=int, default=30, metavar="N", help="timed calls (default: 30)"
    )
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="calls before them (default: 3)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as the run did)")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: whole numbers with commas between them") from None
