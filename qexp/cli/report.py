"""Print tables from the Records of many runs: ``qexp report``.

Exit codes: 0, it could report; 1, it could, but a Record was unreadable or a table could not be
written (each is named on stderr); 2, there is nothing to report on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qexp.cli import compare
from qexp.cli.options import add_outputs
from qexp.cli.pictures import add_options, write_pictures
from qexp.console import print_out
from qexp.environment import unread_variable
from qexp.errors import DataError, StoreError
from qexp.records.record import RUNNING, Record, outputs_root, read_all, records_folder
from qexp.reporting.formats import FORMATS, tables_of, write_tables
from qexp.reporting.glue import BY_NAME
from qexp.reporting.report import Report, report_of
from qexp.reporting.run_view import Run
from qexp.reporting.tables.intervals import Intervals

HOW_TO_MAKE_ONE = "make a Record with a run, such as: python -m qexp task=mrpc quant=w8a8"
RESAMPLES = 2000
"""Of rows and seeds, for each interval of a report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:  # as it was called in qexp 0.1
        return compare.main(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if problem := unread_variable():
        parser.error(problem)
    outputs: Path = options.outputs or outputs_root()
    try:
        report, records, unreadable = _read(options, outputs)
    except (StoreError, DataError) as error:
        print(f"qexp report: {error}", file=sys.stderr)
        return 2
    if not (options.html or options.plots):
        _, text = FORMATS[options.format]
        print_out(text(report))
    try:
        if options.write:
            write_tables(report, outputs / "tables")
        overviews = tables_of(replace(report, comparisons=()))
        for path in write_pictures(options, outputs, report.comparisons, records, overviews, unreadable):
            print_out(f"{path}\n")
    except StoreError as error:
        print(f"qexp report: {error}", file=sys.stderr)
        return 1
    return 1 if unreadable else 0


def _bury(outputs: Path) -> None:
    """File the Records of runs that were killed since; a report does without where it may not write."""
    if any((outputs / RUNNING).glob("*.json")):
        from qexp.execution.crash_records import bury

        with suppress(StoreError):
            bury(outputs)


def _read(options: argparse.Namespace, outputs: Path) -> tuple[Report, list[Record], int]:
    """What Records of the wanted tasks say, these Records, and how many could not be read."""
    folder, tasks = records_folder(outputs), options.task
    _bury(outputs)
    if not folder.is_dir():
        raise StoreError(f"no folder {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    records, unreadable = read_all(folder)
    for each in unreadable:
        print(f"qexp report: left out {each.path}: {each.reason}", file=sys.stderr)
    if not records:
        raise StoreError(f"no Records in {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    runs = [Run(record) for record in records]
    known = sorted({run.task for run in runs})
    if unknown := [task for task in tasks or () if task not in known]:
        raise StoreError(f"no Records of task {', '.join(unknown)}; there are Records of: {', '.join(known)}")
    report = report_of(runs, BY_NAME[options.convention or "aimet"], options.published or "family", tasks)
    if options.intervals:
        report = replace(report, intervals=_intervals(report, outputs))
    kept = [run.record for run in runs if not tasks or run.task in tasks]
    return report, kept, len(unreadable)


def _intervals(report: Report, outputs: Path) -> Intervals:
    from qexp.reporting.intervals import intervals

    found, lacking = intervals(report.comparisons, outputs, resamples=RESAMPLES)
    return Intervals(found, lacking, RESAMPLES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp report",
        description="Tables from the Records of all runs: one for each task, apart for sample rows and for "
        "smoke budgets; then all tasks side by side with what others published, relative losses against "
        "FP32, and averages over GLUE. Failed runs and missing combinations are marked, never left out.",
        epilog="Exit code 0: reported; 1: reported, but a Record was unreadable or a table could not be "
        "written; 2: nothing to report on.",
    )
    add_outputs(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="markdown",
        help="what is printed: Markdown to read (default), CSV with one line for each row and number, LaTeX "
        "(booktabs), or JSON with all numbers",
    )  # fmt: skip
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="only this task; repeat it for several (default: all)"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="also write all tables, in every format, into tables/ of the outputs",
    )
    parser.add_argument(
        "--convention",
        choices=BY_NAME,
        help="what stands for a task of GLUE in the overview, and what its average is (default: aimet)",
    )
    parser.add_argument(
        "--published",
        choices=("family", "all", "none"),
        help="others' numbers beside full budgets on real rows: of the same architectures (default) or all",
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help=f"also intervals of differences to FP32, by {RESAMPLES} resamples of rows and seeds; takes time "
        "and the predictions that runs left",
    )
    add_options(parser)
    return parser
