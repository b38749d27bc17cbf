"""Search a mixed-precision assignment: ``qexp search RUN --bits w4a8,w8a8,w8a16 --loss 0.4``.

Exit codes: 0, an assignment of bit-widths was found and written; 2, there is none, with the reason and the
next step on stderr; 130, interrupted.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_options, ended
from qexp.console import print_out, shown_path
from qexp.errors import OK
from qexp.records.record import outputs_root, write_text

if TYPE_CHECKING:
    from qexp.analysis.mixed_precision.path import Assignment
    from qexp.analysis.mixed_precision.search import MixedPrecisionSearch
    from qexp.records.record import Record

BUDGETS: tuple[Literal["loss", "size", "bops"], ...] = ("loss", "size", "bops")


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print and write an assignment, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("search", lambda: _search(options), "nothing was found yet")


def _search(options: argparse.Namespace) -> int:
    from qexp.analysis.mixed_precision.path import pairs_of
    from qexp.analysis.mixed_precision.search import MixedPrecisionSearch, SearchLimit
    from qexp.analysis.mixed_precision.trials import candidates_of
    from qexp.reporting.table import markdown

    outputs: Path = options.outputs or outputs_root()
    pairs, record = pairs_of(options.bits), find_record(options.run, outputs)
    kind, limit = next((name, value) for name in BUDGETS if (value := getattr(options, name)) is not None)
    trials = candidates_of(record, outputs, options.accelerator)
    search = MixedPrecisionSearch(trials, pairs, SearchLimit(kind, limit), trials.rows.first(options.rows))
    assignment = search.run()
    text = "\n".join(markdown(table) for table in (search.table(assignment), search.groups_table(assignment)))
    folder = options.out or outputs / "search" / record.key
    name = options.name or f"{trials.rows.task.name}_mixed_{kind}"
    write_text(folder / f"{name}.yaml", _overlay(search, assignment, record=record, folder=folder, name=name))
    write_text(folder / f"{name}.md", text)
    print_out(text)
    print(f"written: {shown_path(folder / name)}.yaml", file=sys.stderr)
    return OK


def _overlay(
    search: MixedPrecisionSearch, assignment: Assignment, record: Record, folder: Path, name: str
) -> str:
    """Return a configuration file that repeats the run with these bit-widths."""
    from qexp.reporting.command import overlay_of
    from qexp.reporting.run_view import RunView
    from qexp.reporting.table import score

    metric, task = search.known[assignment].score, search.trials.rows.task
    pairs = ",".join(pair.name for pair in search.pairs)
    header = (
        shlex.join(["python", "-m", "qexp", "--config-dir", str(folder), "--config-name", name]),
        f"Found by python -m qexp search {record.key[:12]} --bits {pairs} --{search.budget.kind} "
        f"{search.budget.limit:g}: {search.budget.words}.",
        f"PTQ on {search.trials.rows.split}, on which it was searched: {task.metrics[0]} {score(metric)}.",
    )
    quant = search.trials.quant(assignment).model_dump(mode="json", exclude_none=True)
    return overlay_of(RunView(record), quant, header)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp search",
        description="Searches bit-widths for each group of sites of a quantized run: the cheapest within a "
        "loss of the metric, or the least noise within a size or a number of bit operations. Ranges come "
        "from what the run's calibration saw; nothing is trained. What is found is written as a file to run.",
        epilog="Exit code 0: found and written; 2: not, and stderr says why; 130: interrupted.",
    )
    add_options(parser)
    parser.add_argument(
        "--bits",
        required=True,
        metavar="PAIRS",
        help="candidates for each group, weights and activations, such as w4a8,w8a8,w8a16",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--loss", type=_number, metavar="POINTS", help="most points of the metric below FP32")
    budget.add_argument("--size", type=_number, metavar="MIB", help="most MiB of all parameters")
    budget.add_argument("--bops", type=_number, metavar="G", help="most bit operations of a row, in 10^9")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default: search/<run> in the outputs)"
    )
    parser.add_argument("--name", type=_name, help="of the files (default: <task>_mixed_<budget>)")
    return parser


def _number(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 on")
    return number


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text}: letters, digits, _ and -")
    return text
