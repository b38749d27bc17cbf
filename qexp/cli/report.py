"""Print tables from the Records of many runs: ``qexp report``.

Exit codes: 0, reported; 1, reported, but a Record was unreadable or a table could not be written (each is
named on stderr); 2, nothing to report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qexp.cli import compare
from qexp.cli.options import RUN_HELP, add_outputs
from qexp.cli.pictures import HERE, add_options, not_installed, write_pictures
from qexp.console import print_out, shown_path
from qexp.environment import unread_variable
from qexp.errors import FAILED, INVALID, OK, DataError, StoreError
from qexp.records.record import RUNNING, Record, outputs_root, read_all, records_folder
from qexp.reporting.formats import FORMATS, write_tables
from qexp.reporting.glue import BY_NAME
from qexp.reporting.report import Report, report_of
from qexp.reporting.run_view import RunView
from qexp.reporting.tables.intervals import Intervals

HOW_TO_MAKE_ONE = "make a Record with a run, such as: python -m qexp task=mrpc quant=w8a8"
RESAMPLES = 2000
"""Bootstrap resamples of rows and seeds for each interval of a report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, and return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv[:1] == ["compare"]:  # command line of qexp 0.1
        return compare.main(argv[1:])
    parser = _parser()
    options = parser.parse_args(argv)
    if options.runs and HERE in (options.html, options.plots):
        parser.error(
            "RUN with --html or --plots: name a FILE or DIR, since those in the outputs are of all runs"
        )
    if problem := unread_variable():
        parser.error(problem)
    if (options.html or options.plots) and (problem := not_installed()):
        print(f"qexp report: {problem}", file=sys.stderr)
        return INVALID
    outputs: Path = options.outputs or outputs_root()
    try:
        report, records, unreadable = _read(options, outputs)
    except (StoreError, DataError) as error:
        print(f"qexp report: {error}", file=sys.stderr)
        return INVALID
    if not (options.html or options.plots):
        _print(report, options.format)
    try:
        if options.write:
            write_tables(report, outputs / "tables")
        for path in write_pictures(options, outputs, report, records=records, unreadable=unreadable):
            print_out(f"{shown_path(path)}\n")
    except StoreError as error:
        print(f"qexp report: {error}", file=sys.stderr)
        return FAILED
    return FAILED if unreadable else OK


def _print(report: Report, chosen: str | None) -> None:
    """Print in the chosen format; without a choice fitted to the terminal, or as Markdown into a pipe."""
    if chosen is None and sys.stdout.isatty():
        from qexp.reporting.formats.terminal import print_report

        print_report(report)
        return
    _, text = FORMATS[chosen or "markdown"]
    print_out(text(report))


def _record_killed_runs(outputs: Path) -> None:
    """Write the Records of killed runs, unless the outputs are read-only."""
    if any((outputs / RUNNING).glob("*.json")):
        from qexp.execution.crash_records import record_dead_runs

        with suppress(StoreError):
            record_dead_runs(outputs)


def _read(options: argparse.Namespace, outputs: Path) -> tuple[Report, list[Record], int]:
    """Return the report of the requested tasks, their Records, and the number of unreadable Records."""
    _record_killed_runs(outputs)
    records, unreadable = _records(options, outputs)
    runs = [RunView(record) for record in records]
    available = sorted({run.task for run in runs})
    tasks = options.task or (available if options.runs else None)
    if unknown := [task for task in tasks or () if task not in available]:
        raise StoreError(
            f"no Records of task {', '.join(unknown)}; there are Records of: {', '.join(available)}"
        )
    report = report_of(
        runs,
        BY_NAME[options.convention or "aimet"],
        options.published or "family",
        tasks,
        accepted=options.accept_loss,
    )
    report = replace(report, outputs=outputs)
    if options.intervals:
        report = replace(report, intervals=_intervals(report, outputs))
    selected = [run.record for run in runs if not tasks or run.task in tasks]
    return report, selected, unreadable


def _records(options: argparse.Namespace, outputs: Path) -> tuple[list[Record], int]:
    """Return the Records of the runs that are named, or all, and the number of unreadable ones."""
    folder = records_folder(outputs)
    if options.runs:
        from qexp.analysis.find_run import find_record

        found = {record.key: record for record in (find_record(name, outputs) for name in options.runs)}
        return [*found.values()], 0
    if not folder.is_dir():
        raise StoreError(f"no folder {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    records, unreadable = read_all(folder)
    for each in unreadable:
        print(f"qexp report: left out {shown_path(each.path)}: {each.reason}", file=sys.stderr)
    if not records:
        raise StoreError(f"no Records in {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    return records, len(unreadable)


def _intervals(report: Report, outputs: Path) -> Intervals:
    from qexp.reporting.intervals import intervals

    estimates, missing = intervals(report.comparisons, outputs, resamples=RESAMPLES)
    return Intervals(estimates, missing, RESAMPLES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp report",
        description="Tables from the Records of all runs: one for each task, apart for sample rows and for "
        "smoke budgets; then all tasks side by side with what others published, relative losses against "
        "FP32, and averages over GLUE. Failed runs and missing combinations are marked, never left out.",
        epilog="Exit code 0: reported; 1: reported, but a Record was unreadable or a table could not be "
        "written; 2: nothing to report on.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"only these runs: {RUN_HELP} (default: all)")
    add_outputs(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what is printed: Markdown, on a terminal tables that fit it (default), CSV with one "
        "line for each row and number, LaTeX (booktabs), or JSON with all numbers",
    )
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
    parser.add_argument(
        "--accept-loss",
        type=_points,
        metavar="POINTS",
        help="points of the main score that a verdict accepts to lose (default: accept.loss of each run)",
    )
    add_options(parser)
    return parser


def _points(text: str) -> float:
    if not 0 <= (number := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text}: from 0 to 100")
    return number
