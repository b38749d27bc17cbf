"""Engines ahead of time, on a machine without a GPU: ``python -m qexp build RUN FOLDER``.

For each precision two files are written: ``PRECISION.engine``, which TensorRT for RTX loads on the GPU, and
``PRECISION.json``, which tells what it was built from and for, and the layers that the parser made of the
graph.

Exit codes: 0, all were built; 1, some were not, and stderr says why; 2, there is nothing to build; 130,
interrupted, and what was written is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_run, add_stage, ended, words_of
from qexp.config import Precision
from qexp.errors import FAILED, OK, DeployError
from qexp.records.record import outputs_root, write_text

if TYPE_CHECKING:
    from qexp.artifacts.types import Graph
    from qexp.context import Runtime
    from qexp.deploy.runtimes.tensorrt.engine_rtx import Built
    from qexp.records.record import Record

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
SHAPES = ((1, 128), (32, 128))
"""Rows and tokens, if nothing else is asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build engines; returns the exit code."""
    options = _parser().parse_args(arguments)
    return ended("build", lambda: _build(options), "engines that were written are whole")


def _build(options: argparse.Namespace) -> int:
    from qexp.analysis.evaluator import runtime_of
    from qexp.analysis.run_models import refuse_failed

    outputs: Path = options.outputs or outputs_root()
    if unknown := set(options.precisions or ()) - set(PRECISIONS):
        raise DeployError(f"--precisions: {', '.join(sorted(unknown))}; allowed are {', '.join(PRECISIONS)}")
    record = find_record(options.run, outputs)
    refuse_failed(record)
    rt = runtime_of(record, outputs, "cpu")
    graphs, failed = _graphs(record, outputs, options, rt), 0
    for precision in options.precisions or [each for each in PRECISIONS if each in graphs]:
        try:
            if precision not in graphs:
                raise DeployError("a float model has no int8; name a run that was quantized")
            rt.screen.say(_one(precision, graphs[precision], options))
        except DeployError as error:
            failed += 1
            print(f"{precision}: {error}", file=sys.stderr)
    return FAILED if failed else OK


def _graphs(
    record: Record, outputs: Path, options: argparse.Namespace, rt: Runtime
) -> Mapping[Precision, Graph]:
    """The run's exported graph for each precision that it can be built in."""
    from qexp.analysis.run_models import graph_of, model_of

    model = model_of(record, outputs, options.stage)
    plain = model if model.form is None else model_of(record, outputs, "fp32")
    float_ = graph_of(plain, rt)
    graphs: dict[Precision, Graph] = {"fp32": float_, "fp16": float_, "bf16": float_}
    return graphs if model.form is None else graphs | {"int8": graph_of(model, rt)}


def _one(precision: Precision, graph: Graph, options: argparse.Namespace) -> str:
    """Build and write one engine; says what it is."""
    from qexp.artifacts.disk import write_whole
    from qexp.deploy.engine import Order
    from qexp.deploy.runtimes.tensorrt.engine_rtx import build

    made = build(Order(graph.file, precision, 1, tuple(options.shapes)), options.capabilities)
    path: Path = options.folder / f"{precision}.engine"
    write_whole(path, made.plan)
    write_text(path.with_suffix(".json"), json.dumps(_told(precision, graph, made, options), indent=1))
    kinds = ", ".join(f"{count} {kind}" for kind, count in made.kinds.items())
    return (
        f"{path}: {len(made.plan) / 2**20:.1f} MiB in {made.seconds:.1f} s, "
        f"for {', '.join(made.capabilities)}; {len(made.layers)} layers: {kinds}"
    )


def _told(precision: Precision, graph: Graph, made: Built, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "runtime": "tensorrt_rtx",
        "version": made.version,
        "precision": precision,
        "graph": {"file": str(graph.file), "sha256": hashlib.sha256(graph.file.read_bytes()).hexdigest()},
        "capabilities": list(made.capabilities),
        "shapes": [list(each) for each in options.shapes],
        "bytes": len(made.plan),
        "seconds": made.seconds,
        "command": made.command,
        "kinds": made.kinds,
        "layers": list(made.layers),
    }


def _shape(word: str) -> tuple[int, int]:
    rows, _, length = word.partition("x")
    if not (rows.isdigit() and length.isdigit() and int(rows) and int(length)):
        raise argparse.ArgumentTypeError(f"{word}: give rows and tokens, such as 32x128")
    return int(rows), int(length)


def _shapes(text: str) -> list[tuple[int, int]]:
    return [_shape(word) for word in words_of(text)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp build",
        description="Builds engines of TensorRT for RTX from a run's graphs; no GPU is needed. Each comes "
        "with a list of its layers.",
        epilog="Exit code 0: all were built; 1: some were not; 2: nothing to build; 130: interrupted.",
    )
    add_run(parser)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where engines are written")
    add_stage(parser, ("fp32", "control", "ptq", "qat"))
    parser.add_argument(
        "--precisions",
        type=words_of,
        metavar="A,B",
        help="of fp32, fp16, bf16, int8 (default: all there are)",
    )
    parser.add_argument(
        "--capabilities", type=lambda text: tuple(words_of(text)), metavar="X.Y,X.Y",
        help="compute capabilities to build for, such as 8.9 (default: all that this version knows)",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", type=_shapes, default=list(SHAPES), metavar="RxT,RxT",
        help="rows and tokens of the batches to come (default: 1x128,32x128)",
    )  # fmt: skip
    return parser
