"""Predict new rows with a finished run: ``qexp predict RUN INPUT``.

Exit codes: 0, all rows were predicted, or the reader of the pipe closed it; 2, not predicted, with the reason
and the next step on stderr; 130, interrupted, and stderr says where the existing predictions are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_accelerator, add_run, add_stage, ended, positive
from qexp.errors import INTERRUPTED, OK, ConfigError, QexpError
from qexp.naming import MODEL_STAGES, Precision, RuntimeName
from qexp.records.record import outputs_root

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped, unused-ignore]

    from qexp.analysis.run_models import StoredModel
    from qexp.context import RunContext
    from qexp.data.batches import ArrayForwardFn
    from qexp.prediction.predictor import PredictedModel, Predictor
    from qexp.prediction.readers import InputRows
    from qexp.records.record import Record
    from qexp.tasks.base import ForwardFn

PART = 1024
"""Rows that are read, tokenized and predicted at once, which bounds memory use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict rows, write the predictions, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("predict", lambda: _predict(options), "nothing was predicted yet")


def _predict(options: argparse.Namespace) -> int:
    from qexp.prediction.readers import InputRows
    from qexp.prediction.writers import Output

    _refuse_same(Path(options.input), options.output)
    predictor, ctx = _published(options) if Path(options.run).is_dir() else _of_run(options)
    rows = InputRows(options.input, predictor.columns, whole=options.keep, lists=predictor.of_words)
    output = Output(options.output)
    try:
        complete = _predict_all(
            rows, predictor, write=output.write, size=max(PART, options.batch_size), ctx=ctx
        )
        output.finish()
    except KeyboardInterrupt:
        print(f"interrupted: {output.stop()}", file=sys.stderr)
        return INTERRUPTED
    except QexpError as error:
        raise type(error)(f"{error}\n{output.stop()}") from error
    for note in predictor.notes() if complete else ():
        ctx.console.info(note)
    return OK


def _of_run(options: argparse.Namespace) -> tuple[Predictor, RunContext]:
    outputs: Path = options.outputs or outputs_root()
    record = find_record(options.run, outputs)
    _check_at_once(options, record)

    from qexp.analysis.run_models import model_of, runtime_of
    from qexp.prediction.engine_logits import predicts_without_torch
    from qexp.prediction.forward import light_engine

    quantized = None if options.precision is None else options.precision == "int8"
    model = model_of(record, outputs, options.stage, quantized=quantized)
    ctx = runtime_of(record, outputs, options.accelerator, options.threads)
    precision = options.precision or model.precision
    title = f"{model.title}: {options.runtime}, {precision}"
    if predicts_without_torch(model.task, options.runtime):
        engine = light_engine(
            model, options.runtime, precision=precision, batch_size=options.batch_size, ctx=ctx
        )
        return _predictor(options, model, None, engine=engine, title=title, ctx=ctx), ctx
    forward = _forward(options, model, ctx)
    return _predictor(options, model, forward, title=title, ctx=ctx), ctx


def _check_at_once(options: argparse.Namespace, record: Record) -> None:
    """Check what is known before a model is loaded: runtime, device, and the input's first row.

    Raises:
        ConfigError: The runtime or the device is not here.
        DataError: The input cannot be read, or lacks a column of the run's texts.
    """
    from qexp.deploy.hardware import may_have_gpu
    from qexp.execution.requirements import runtime_problem
    from qexp.prediction.readers import InputRows

    if options.runtime != "torch" and (problem := runtime_problem(options.runtime)):
        raise ConfigError(f"--runtime {options.runtime}: it {problem}; leave it out, or choose another")
    if options.accelerator == "gpu" and not may_have_gpu():
        raise ConfigError("--accelerator gpu: this machine has no CUDA device; use --accelerator cpu")
    task, data = (record.experiment.get(name) or {} for name in ("task", "data"))
    if task.get("kind") in ("classification", "regression", "multi_label") and not options.vectors:
        names = data.get("columns") or {}
        texts = [names.get(name) or name for name in task.get("text", ())]
        InputRows(options.input, texts, whole=options.keep).check_first()


def _published(options: argparse.Namespace) -> tuple[Predictor, RunContext]:
    """Return the predictor of a published folder, which holds one model and needs no store."""
    from qexp.config import Machine
    from qexp.context import RunContext
    from qexp.models.published import published
    from qexp.prediction.forward import published_run
    from qexp.prediction.predictor import TORCH

    given = {"--stage": options.stage, "--precision": options.precision}
    given["--runtime"] = None if options.runtime == TORCH else options.runtime
    for option, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{option} {value}: {options.run} is a published folder, which holds one model for torch; "
                "leave it out, or name the run"
            )
    model = published(Path(options.run))
    machine = Machine(accelerator=options.accelerator or "cpu", threads=options.threads)
    ctx = RunContext.at(options.outputs or outputs_root(), machine)
    forward = published_run(model, ctx)
    return _predictor(options, model, forward, title=f"{model.title}: {options.run}", ctx=ctx), ctx


def _predictor(
    options: argparse.Namespace,
    model: PredictedModel,
    run: ForwardFn | None,
    *,
    title: str,
    ctx: RunContext,
    engine: ArrayForwardFn | None = None,
) -> Predictor:
    from qexp.prediction.predictor import Predictor

    # A progress bar would mix with predictions that are printed to the same terminal.
    ctx.console.progress = options.output is not None or not sys.stdout.isatty()
    ctx.console.info(title)
    return Predictor(
        model,
        run,
        batch_size=options.batch_size,
        keep=options.keep,
        engine=engine,
        vectors=options.vectors,
        documents=options.documents,
    )


def _forward(options: argparse.Namespace, model: StoredModel, ctx: RunContext) -> ForwardFn:
    from qexp.prediction.forward import engine_run, torch_run

    precision = options.precision or model.precision
    if options.runtime != "torch":
        return engine_run(model, options.runtime, precision=precision, batch_size=options.batch_size, ctx=ctx)
    if precision in ("fp16", "bf16"):
        raise ConfigError(
            f"--precision {precision}: torch computes as the run's evaluation did, in fp32 or with int8 "
            "simulated; choose one of these, or another --runtime"
        )
    return torch_run(model, ctx)


def _predict_all(
    rows: InputRows, predictor: Predictor, write: Callable[[Table], bool], size: int, ctx: RunContext
) -> bool:
    """Predict part by part, and return whether every part was written before the reader closed the pipe."""
    with ctx.console.bar("predict", total=rows.total) as advance:
        return all(write(predictor.predict(part, advance)) for part in rows.parts(size))


def _refuse_same(rows: Path, output: Path | None) -> None:
    if output is not None and output.exists() and rows.exists() and output.samefile(rows):
        raise ConfigError(f"--output {output}: these are the rows themselves; name another file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp predict",
        description="Predicts new rows with a model of a run, in torch as the run evaluated it, or in "
        "another runtime: labels with probabilities, numbers, answers, translations, tags, cosines or ranked "
        "documents, one for each row, in their order. RUN may also be a folder that publish wrote, or the "
        "folder integer in it. Input and output formats: docs/using.md.",
        epilog="Exit code 0: predicted; 2: it could not be, and stderr says why; 130: interrupted, and "
        "stderr says where those predictions are that were made.",
    )
    add_run(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="rows with the task's text columns: a file .jsonl, .csv, .tsv, .parquet or .txt, or - for "
        "standard input, an object or a text in each line",
    )
    parser.add_argument(
        "--runtime",
        choices=("torch", *get_args(RuntimeName)),
        default="torch",
        help="what computes (default: torch)",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="int8 is the quantized model of the run, the others are its float model (default: int8 if "
        "there is one)",
    )
    add_stage(parser, MODEL_STAGES)
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="rows that are run at once (default: 64)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=".jsonl, .csv or .parquet (default: jsonl to standard output)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="put the rows' own columns before the predictions"
    )
    parser.add_argument(
        "--vectors",
        action="store_true",
        help="of an embedding or a retrieval: the vector of each row's first text, not cosines or documents",
    )
    parser.add_argument(
        "--documents",
        action="store_true",
        help="with --vectors of a retrieval: the rows are documents, not queries (task.document_prefix)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: as the run)")
    add_accelerator(parser)
    return parser
