"""Tables, charts and one page from the Records of many runs, and two runs held against each other.

``python -m qexp.report``

Exit codes: 0, it could report; 1, it could, but a Record was unreadable or a table could not be
written (each is named on stderr); 2, there is nothing to report on, or two runs that cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qexp.errors import QexpError, StoreError
from qexp.records import OUTPUTS_VARIABLE, Record, outputs_root, read_all, records_folder, write_text
from qexp.reporting.comparison import Comparison, compare
from qexp.reporting.facts import Run
from qexp.reporting.glue import Average, averages
from qexp.reporting.glue_table import averages_table
from qexp.reporting.layout import table_of
from qexp.reporting.lines import csv_text
from qexp.reporting.pictures import add_options, write_pictures
from qexp.reporting.table import markdown
from qexp.standard_output import print_out

HOW_TO_MAKE_ONE = "make a Record with a run, such as: python -m qexp task=mrpc quant=w8a8"
AVERAGES_FILE = "glue-averages"


@dataclass(frozen=True)
class Report:
    """All that Records have to say."""

    comparisons: Sequence[Comparison]
    averages: Sequence[Average]
    """Over GLUE; none where only some tasks are wanted."""
    unreadable: int
    """Records that could not be read."""
    records: Sequence[Record]
    """All that were read, of the wanted tasks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    outputs: Path = options.outputs or outputs_root()
    if options.command == "compare":
        if options.task or options.write or options.html or options.plots:
            parser.error("--task, --write, --html and --plots are for the tables, not for compare")
        return _compare(options, outputs)
    try:
        report = _read(outputs, options.task)
    except StoreError as error:
        print(f"qexp.report: {error}", file=sys.stderr)
        return 2
    if not (options.html or options.plots):
        text = csv_text if options.format == "csv" else markdown_text
        print_out(text(report.comparisons, report.averages))
    try:
        if options.write:
            write_tables(report, outputs / "tables")
        overviews = [averages_table(report.averages)] if report.averages else []
        pictures = report.comparisons, report.records, overviews, report.unreadable
        for path in write_pictures(options, outputs, *pictures):
            print_out(f"{path}\n")
    except StoreError as error:
        print(f"qexp.report: {error}", file=sys.stderr)
        return 1
    return 1 if report.unreadable else 0


def markdown_text(comparisons: Sequence[Comparison], averages: Sequence[Average] = ()) -> str:
    """All tables as one Markdown text."""
    tables = [table_of(comparison) for comparison in comparisons]
    return "\n".join(map(markdown, [*tables, *([averages_table(averages)] if averages else [])]))


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write ``<task>.md`` and ``<task>.csv`` for each task, and the averages over GLUE likewise.

    Raises:
        StoreError: the folder cannot be written.
    """
    parts: dict[str, tuple[Sequence[Comparison], Sequence[Average]]] = {}
    for task in dict.fromkeys(comparison.task for comparison in report.comparisons):
        of_task = [comparison for comparison in report.comparisons if comparison.task == task]
        parts[quote(task, safe="")] = (of_task, ())
    if report.averages:
        parts[AVERAGES_FILE] = ((), report.averages)
    paths = []
    for name, part in parts.items():
        for ending, text in (("md", markdown_text(*part)), ("csv", csv_text(*part))):
            paths.append(folder / f"{name}.{ending}")
            write_text(paths[-1], text)
    return paths


def _read(outputs: Path, tasks: Sequence[str] | None) -> Report:
    """What the Records say of the wanted tasks."""
    folder = records_folder(outputs)
    if not folder.is_dir():
        raise StoreError(f"no folder {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    records, unreadable = read_all(folder)
    for each in unreadable:
        print(f"qexp.report: left out {each.path}: {each.reason}", file=sys.stderr)
    if not records:
        raise StoreError(f"no Records in {folder}; {HOW_TO_MAKE_ONE}, or name other outputs with --outputs")
    comparisons = compare(records)
    known = list(dict.fromkeys(comparison.task for comparison in comparisons))
    unknown = [task for task in tasks or () if task not in known]
    if unknown:
        raise StoreError(f"no Records of task {', '.join(unknown)}; there are Records of: {', '.join(known)}")
    wanted = [each for each in comparisons if not tasks or each.task in tasks]
    kept = [record for record in records if not tasks or Run(record).task in tasks]
    return Report(wanted, [] if tasks else averages(records), len(unreadable), kept)


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
        "smoke budgets. Failed runs and missing combinations are marked, never left out. Averages over GLUE "
        "come last.",
        epilog="Exit code 0: reported; 1: reported, but a Record was unreadable or a table could not be "
        "written; 2: nothing to report on, or two runs that cannot be compared.",
    )
    _add_shared(parser, None, "markdown")
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="only this task; repeat it for several (default: all)"
    )
    parser.add_argument(
        "--write", action="store_true", help="also write tables/<task>.md and .csv into the outputs"
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
        choices=("markdown", "csv"),
        help="what is printed: Markdown to read (default), or CSV with one line for each row and number",
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
        choices=("fp32", "ptq", "qat", "onnx"),
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
