"""Tables from the Records of many runs, and two runs held against each other: ``python -m qexp.report``.

Exit codes: 0, it could report; 1, it could, but a Record was unreadable or a table could not be
written (each is named on stderr); 2, there is nothing to report on, or two runs that cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qexp.environment import unread_variable
from qexp.errors import DataError, QexpError, StoreError
from qexp.records import OUTPUTS_VARIABLE, RUNNING, Record, outputs_root, read_all, records_folder
from qexp.reporting.contents import Report, report_of
from qexp.reporting.document import FORMATS, tables_of, write_tables
from qexp.reporting.facts import TORCH_STAGES, Run
from qexp.reporting.glue import BY_NAME
from qexp.reporting.interval_table import Intervals
from qexp.reporting.pictures import add_options, write_pictures
from qexp.reporting.table import markdown
from qexp.standard_output import print_out

HOW_TO_MAKE_ONE = "make a Record with a run, such as: python -m qexp task=mrpc quant=w8a8"
OF_TABLES = ("task", "write", "convention", "published", "intervals", "html", "plots")
"""Options that compare refuses."""
RESAMPLES = 2000
"""Of rows and seeds, for each interval of a report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := unread_variable():
        parser.error(problem)
    outputs: Path = options.outputs or outputs_root()
    if options.command == "compare":
        if given := [f"--{name}" for name in OF_TABLES if getattr(options, name)]:
            parser.error(f"{' and '.join(given)}: for the tables, not for compare")
        if options.format not in ("markdown", "csv"):
            parser.error(f"--format {options.format}: compare prints markdown or csv")
        return _compare(options, outputs)
    try:
        report, records, unreadable = _read(options, outputs)
    except (StoreError, DataError) as error:
        print(f"qexp.report: {error}", file=sys.stderr)
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
        print(f"qexp.report: {error}", file=sys.stderr)
        return 1
    return 1 if unreadable else 0


def _bury(outputs: Path) -> None:
    """File the Records of runs that were killed since; a report does without where it may not write."""
    if any((outputs / RUNNING).glob("*.json")):
        from qexp.last_words import bury

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
        print(f"qexp.report: left out {each.path}: {each.reason}", file=sys.stderr)
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


def _compare(options: argparse.Namespace, outputs: Path) -> int:
    """Print how two runs differ; returns the exit code."""
    from qexp.reporting.evaluations import find_evaluation
    from qexp.reporting.pair_table import pairs_csv, tables_of
    from qexp.reporting.paired import compare_pairs

    try:
        first, second = (find_evaluation(words, options.stage, outputs) for words in (options.a, options.b))
        pairs = compare_pairs(
            first, second, split=options.split, resamples=options.resamples, seed=options.seed
        )
    except QexpError as error:
        print(f"qexp.report: {error}", file=sys.stderr)
        return 2
    tables = (markdown(table) for pair in pairs for table in tables_of(pair))
    print_out(pairs_csv(pairs) if options.format == "csv" else "\n".join(tables))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qexp.report",
        description="Tables from the Records of all runs: one for each task, apart for sample rows and for "
        "smoke budgets; then all tasks side by side with what others published, relative losses against "
        "FP32, and averages over GLUE. Failed runs and missing combinations are marked, never left out.",
        epilog="Exit code 0: reported; 1: reported, but a Record was unreadable or a table could not be "
        "written; 2: nothing to report on, or two runs that cannot be compared.",
    )
    _add_shared(parser, None, "markdown")
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
    _add_compare(parser.add_subparsers(dest="command", title="instead of the tables"))
    return parser


def _add_shared(parser: argparse.ArgumentParser, outputs: str | None, form: str) -> None:
    """Options of both commands, with their defaults; the second keeps what stood before its name."""
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help=f"folder that runs wrote to (default: {OUTPUTS_VARIABLE}, else ./outputs)",
        default=outputs,
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what is printed: Markdown to read (default), CSV with one line for each row and number, LaTeX "
        "(booktabs), or JSON with all numbers",
        default=form,
    )


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="two runs, or two stages of one, on the same rows",
        description="Scores of two runs on the same evaluation rows, with a paired bootstrap interval of "
        "each difference, and McNemar's exact test for classes.",
    )
    for name in ("a", "b"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help="key of a Record or at least 6 characters of its beginning; KEY:STAGE names a stage",
        )
    parser.add_argument("--split", metavar="NAME", help="one evaluation split (default: each)")
    parser.add_argument(
        "--stage",
        choices=(*TORCH_STAGES, "onnx"),
        help="stage where KEY names none (default: the last one in torch)",
    )
    parser.add_argument(
        "--resamples",
        type=_enough,
        default=10_000,
        metavar="N",
        help="of the rows, for the intervals; at least 100 (default: 10000)",
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of the resamples (default: 0)")
    _add_shared(parser, argparse.SUPPRESS, argparse.SUPPRESS)


def _enough(text: str) -> int:
    """Number of resamples, so many that 2.5 percent of them are some."""
    if (number := int(text)) < 100:
        raise argparse.ArgumentTypeError(f"{number}: at least 100")
    return number


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number}: at least 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
