"""Compare two runs, or two stages of one, row by row: ``qexp compare A B``.

Exit codes: 0, compared; 2, the runs cannot be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qexp.cli.options import RUN_HELP, add_outputs, ended
from qexp.console import print_out
from qexp.errors import OK
from qexp.naming import MODEL_STAGES
from qexp.records.record import outputs_root
from qexp.reporting.table import markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the differences of two runs, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("compare", partial(_compare, options), "nothing was printed")


def _compare(options: argparse.Namespace) -> int:
    from qexp.reporting.paired import compare_pairs
    from qexp.reporting.predictions import find_evaluation
    from qexp.reporting.tables.paired import pairs_csv, tables_of

    outputs: Path = options.outputs or outputs_root()
    first, second = (find_evaluation(run, options.stage, outputs) for run in (options.a, options.b))
    pairs = compare_pairs(first, second, split=options.split, resamples=options.resamples, seed=options.seed)
    tables = (markdown(table) for pair in pairs for table in tables_of(pair))
    print_out(pairs_csv(pairs) if options.format == "csv" else "\n".join(tables))
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp compare",
        description="Scores of two runs on the same evaluation rows, with a paired bootstrap interval of "
        "each difference, and McNemar's exact test for classes.",
        epilog="Exit code 0: compared; 2: the two cannot be compared.",
    )
    for name in ("a", "b"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{RUN_HELP}; RUN:STAGE names a stage",
        )
    parser.add_argument("--split", metavar="NAME", help="one evaluation split (default: each)")
    parser.add_argument(
        "--stage",
        choices=(*MODEL_STAGES, "onnx"),
        help="stage where RUN names none (default: the last one in torch)",
    )
    parser.add_argument(
        "--resamples",
        type=_resamples,
        default=10_000,
        metavar="N",
        help="of the rows, for the intervals; at least 100 (default: 10000)",
    )
    parser.add_argument("--seed", type=_non_negative, default=0, help="of the resamples (default: 0)")
    parser.add_argument(
        "--format",
        choices=("markdown", "csv"),
        default="markdown",
        help="what is printed (default: markdown)",
    )
    add_outputs(parser)
    return parser


def _resamples(text: str) -> int:
    """Parse a number of resamples, large enough that a 2.5 percent tail contains several."""
    if (number := int(text)) < 100:
        raise argparse.ArgumentTypeError(f"{number}: at least 100")
    return number


def _non_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number}: at least 0")
    return number
