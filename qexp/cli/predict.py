"""Predictions of a run's model for new rows: ``python -m qexp predict RUN INPUT``.

Exit codes: 0, all rows have their predictions, or the reader of a pipe has gone; 2, they could not be made,
and stderr says why and what to do; 130, interrupted, and stderr says where those are that were made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_accelerator, add_run, add_stage, ended, positive
from qexp.errors import INTERRUPTED, OK, ConfigError, QexpError
from qexp.records.record import outputs_root

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped, unused-ignore]

    from qexp.analysis.run_models import Model
    from qexp.context import Runtime
    from qexp.prediction.predictor import Predictor
    from qexp.prediction.readers import Rows
    from qexp.tasks.base import Run

STAGES = ("fp32", "control", "ptq", "qat")
RUNTIMES = ("torch", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch_int8")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
PART = 1024
"""Rows that are read, tokenized and predicted together: memory holds no more of an input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict and write; returns the exit code."""
    options = _parser().parse_args(arguments)
    return ended("predict", lambda: _predict(options), "nothing was predicted yet")


def _predict(options: argparse.Namespace) -> int:
    from qexp.prediction.readers import Rows
    from qexp.prediction.writers import Output

    outputs: Path = options.outputs or outputs_root()
    _refuse_same(Path(options.input), options.output)
    model, rt = _model(options, outputs)
    predictor = _predictor(options, model, rt)
    rows = Rows(options.input, predictor.columns, whole=options.keep)
    output = Output(options.output)
    try:
        read = _all(rows, predictor, output.write, max(PART, options.batch_size), rt)
        output.finish()
    except KeyboardInterrupt:
        print(f"interrupted: {output.stop()}", file=sys.stderr)
        return INTERRUPTED
    except QexpError as error:
        raise type(error)(f"{error}\n{output.stop()}") from error
    for note in predictor.notes() if read else ():
        rt.screen.say(note)
    return OK


def _model(options: argparse.Namespace, outputs: Path) -> tuple[Model, Runtime]:
    from qexp.analysis.evaluator import runtime_of
    from qexp.analysis.run_models import model_of

    record = find_record(options.run, outputs)
    quantized = None if options.precision is None else options.precision == "int8"
    model = model_of(record, outputs, options.stage, quantized=quantized)
    rt = runtime_of(record, outputs, options.accelerator, options.threads)
    # A bar between the lines of a terminal would be in the way of both.
    rt.screen.progress = options.output is not None or not sys.stdout.isatty()
    return model, rt


def _predictor(options: argparse.Namespace, model: Model, rt: Runtime) -> Predictor:
    from qexp.prediction.predictor import Predictor

    run = _run(options, model, rt)
    rt.screen.say(f"{model.title}: {options.runtime}, {options.precision or model.precision}")
    return Predictor(model, run, batch_size=options.batch_size, keep=options.keep)


def _run(options: argparse.Namespace, model: Model, rt: Runtime) -> Run:
    from qexp.prediction.predictor import engine_run, torch_run

    precision = options.precision or model.precision
    if options.runtime != "torch":
        return engine_run(model, options.runtime, precision, options.batch_size, rt)
    if precision in ("fp16", "bf16"):
        raise ConfigError(
            f"--precision {precision}: torch computes as the run's evaluation did, in fp32 or with int8 "
            "simulated; choose one of these, or another --runtime"
        )
    return torch_run(model, rt)


def _all(rows: Rows, predictor: Predictor, write: Callable[[Table], bool], size: int, rt: Runtime) -> bool:
    """Predict part by part; whether somebody read them to the end."""
    with rt.screen.bar("predict", total=rows.total) as move:
        return all(write(predictor.predict(part, move)) for part in rows.parts(size))


def _refuse_same(rows: Path, output: Path | None) -> None:
    if output is not None and output.exists() and rows.exists() and output.samefile(rows):
        raise ConfigError(f"--output {output}: these are the rows themselves; name another file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp predict",
        description="Predicts new rows with a model of a run, in torch as the run evaluated it, or in "
        "another runtime: labels with probabilities, numbers, answers or translations, one for each row, in "
        "their order. What is read and what is told: docs/using.md.",
        epilog="Exit code 0: predicted; 2: it could not be, and stderr says why; 130: interrupted, and "
        "stderr says where those predictions are that were made.",
    )
    add_run(parser)
    parser.add_argument(
        "input", metavar="INPUT",
        help="rows with the task's text columns: a file .jsonl, .csv, .tsv, .parquet or .txt, or - for "
        "standard input, an object or a text in each line",
    )  # fmt: skip
    parser.add_argument("--runtime", choices=RUNTIMES, default="torch", help="what computes (default: torch)")
    parser.add_argument(
        "--precision", choices=PRECISIONS,
        help="int8 is the quantized model of the run, the others are its float model (default: int8 if "
        "there is one)",
    )  # fmt: skip
    add_stage(parser, STAGES)
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="rows that are run at once (default: 64)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help=".jsonl, .csv or .parquet (default: jsonl to standard output)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="store_true", help="put the rows' own columns before the predictions"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: as the run)")
    add_accelerator(parser)
    return parser
