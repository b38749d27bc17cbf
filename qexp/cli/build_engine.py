"""Build engines ahead of time, on a machine without a GPU: ``qexp build RUN FOLDER``.

Each precision gives two files: ``PRECISION.engine``, which TensorRT for RTX loads on the GPU, and
``PRECISION.json`` with the engine's graph, its targets, and the layers that the parser created from the
graph.

Exit codes: 0, all were built; 1, some were not, with the reasons on stderr; 2, nothing to build; 130,
interrupted, and all written files are complete.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_run, add_stage, comma_separated, ended
from qexp.config import Precision
from qexp.errors import FAILED, OK, DeployError
from qexp.naming import MODEL_STAGES
from qexp.records.record import outputs_root, write_text

if TYPE_CHECKING:
    from qexp.artifacts.types import Graph
    from qexp.context import RunContext
    from qexp.deploy.runtimes.tensorrt.engine_rtx import BuiltEngine
    from qexp.records.record import Record

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SHAPES = ((1, 128), (32, 128))
"""Default shapes: rows and tokens."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build engines, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("build", lambda: _build(options), "engines that were written are whole")


def _build(options: argparse.Namespace) -> int:
    from qexp.analysis.run_models import refuse_failed, runtime_of

    outputs: Path = options.outputs or outputs_root()
    if unknown := set(options.precisions or ()) - set(PRECISIONS):
        raise DeployError(f"--precisions: {', '.join(sorted(unknown))}; allowed are {', '.join(PRECISIONS)}")
    record = find_record(options.run, outputs)
    refuse_failed(record)
    ctx = runtime_of(record, outputs, "cpu")
    graphs, failed = _graphs(record, outputs, options, ctx), 0
    for precision in options.precisions or [each for each in PRECISIONS if each in graphs]:
        try:
            if precision not in graphs:
                raise DeployError("a float model has no int8; name a run that was quantized")
            ctx.console.info(_build_one(precision, graphs[precision], options))
        except DeployError as error:
            failed += 1
            print(f"{precision}: {error}", file=sys.stderr)
    return FAILED if failed else OK


def _graphs(
    record: Record, outputs: Path, options: argparse.Namespace, ctx: RunContext
) -> Mapping[Precision, Graph]:
    """Return the exported graph of the run for each precision that it can be built in."""
    from qexp.analysis.run_models import graph_of, model_of

    model = model_of(record, outputs, options.stage)
    float_model = model if model.quant_config is None else model_of(record, outputs, "fp32")
    float_graph = graph_of(float_model, ctx)
    graphs: dict[Precision, Graph] = {"fp32": float_graph, "fp16": float_graph, "bf16": float_graph}
    return graphs if model.quant_config is None else graphs | {"int8": graph_of(model, ctx)}


def _build_one(precision: Precision, graph: Graph, options: argparse.Namespace) -> str:
    """Build and write one engine, and return a line that describes it."""
    from qexp.artifacts.disk import write_whole
    from qexp.deploy.engine import EngineSpec
    from qexp.deploy.runtimes.tensorrt.engine_rtx import build

    engine = build(EngineSpec(graph.file, precision, 1, tuple(options.shapes)), options.capabilities)
    path: Path = options.folder / f"{precision}.engine"
    write_whole(path, engine.plan)
    write_text(
        path.with_suffix(".json"), json.dumps(_description(precision, graph, engine, options), indent=1)
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in engine.kinds.items())
    return (
        f"{path}: {len(engine.plan) / 2**20:.1f} MiB in {engine.seconds:.1f} s, "
        f"for {', '.join(engine.capabilities)}; {len(engine.layers)} layers: {kinds}"
    )


def _description(
    precision: Precision, graph: Graph, engine: BuiltEngine, options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "runtime": "tensorrt_rtx",
        "version": engine.version,
        "precision": precision,
        "graph": {"file": str(graph.file), "sha256": hashlib.sha256(graph.file.read_bytes()).hexdigest()},
        "capabilities": list(engine.capabilities),
        "shapes": [list(each) for each in options.shapes],
        "bytes": len(engine.plan),
        "seconds": engine.seconds,
        "command": engine.command,
        "kinds": engine.kinds,
        "layers": list(engine.layers),
    }


def _shape(text: str) -> tuple[int, int]:
    rows, _, length = text.partition("x")
    if not (rows.isdigit() and length.isdigit() and int(rows) and int(length)):
        raise argparse.ArgumentTypeError(f"{text}: give rows and tokens, such as 32x128")
    return int(rows), int(length)


def _shapes(text: str) -> list[tuple[int, int]]:
    return [_shape(shape) for shape in comma_separated(text)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp build",
        description="Builds engines of TensorRT for RTX from a run's graphs; no GPU is needed. Each comes "
        "with a list of its layers.",
        epilog="Exit code 0: all were built; 1: some were not; 2: nothing to build; 130: interrupted.",
    )
    add_run(parser)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where engines are written")
    add_stage(parser, MODEL_STAGES)
    parser.add_argument(
        "--precisions",
        type=comma_separated,
        metavar="A,B",
        help="of fp32, fp16, bf16, int8 (default: all there are)",
    )
    parser.add_argument(
        "--capabilities",
        type=lambda text: tuple(comma_separated(text)),
        metavar="X.Y,X.Y",
        help="compute capabilities to build for, such as 8.9 (default: all that this version knows)",
    )
    parser.add_argument(
        "--shapes",
        type=_shapes,
        default=list(SHAPES),
        metavar="RxT,RxT",
        help="rows and tokens of the batches to come (default: 1x128,32x128)",
    )
    return parser
