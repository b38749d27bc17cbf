"""Tables from the Records of many runs: ``python -m qexp.report``.

Exit codes: 0, it could report; 1, it could, but a Record was unreadable or a table could not be
written (each is named on stderr); 2, there is nothing to report on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from qexp.errors import StoreError
from qexp.records import OUTPUTS_VARIABLE, outputs_root, read_all, records_folder, write_text
from qexp.reporting.comparison import Comparison, compare
from qexp.reporting.layout import table_of
from qexp.reporting.lines import csv_text
from qexp.reporting.table import markdown

HOW_TO_MAKE_ONE = "make a Record with a run, such as: python -m qexp task=mrpc quant=w8a8"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    outputs: Path = options.outputs or outputs_root()
    try:
        comparisons, complete = _read(outputs, options.task)
    except StoreError as error:
        print(f"qexp.report: {error}", file=sys.stderr)
        return 2
    _print(csv_text(comparisons) if options.format == "csv" else markdown_text(comparisons))
    try:
        if options.write:
            write_tables(comparisons, outputs / "tables")
    except StoreError as error:
        print(f"qexp.report: {error}", file=sys.stderr)
        return 1
    return 0 if complete else 1


def markdown_text(comparisons: Sequence[Comparison]) -> str:
    """All tables as one Markdown text."""
    return "\n".join(markdown(table_of(comparison)) for comparison in comparisons)


def write_tables(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Write ``<task>.md`` and ``<task>.csv`` for each task.

    Raises:
        StoreError: the folder cannot be written.
    """
    paths = []
    for task in dict.fromkeys(comparison.task for comparison in comparisons):
        of_task = [comparison for comparison in comparisons if comparison.task == task]
        for ending, text in (("md", markdown_text(of_task)), ("csv", csv_text(of_task))):
            paths.append(folder / f"{quote(task, safe='')}.{ending}")
            write_text(paths[-1], text)
    return paths


def _read(outputs: Path, tasks: Sequence[str] | None) -> tuple[list[Comparison], bool]:
    """Comparisons of the wanted tasks, and whether every Record could be read."""
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
    return [each for each in comparisons if not tasks or each.task in tasks], not unreadable


def _print(text: str) -> None:
    """Print, and stop quietly where the reader of a pipe (``| head``) has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qexp.report",
        description="Tables from the Records of all runs: one for each task, apart for sample rows and for "
        "smoke budgets. Failed runs and missing combinations are marked, never left out.",
        epilog="Exit code 0: reported; 1: reported, but a Record was unreadable or a table could not be "
        "written; 2: nothing to report on.",
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help=f"folder that runs wrote to (default: {OUTPUTS_VARIABLE}, else ./outputs)",
    )
    parser.add_argument(
        "--format",
        choices=("markdown", "csv"),
        default="markdown",
        help="what is printed: Markdown to read (default), or CSV with one line for each row and number",
    )
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="only this task; repeat it for several (default: all)"
    )
    parser.add_argument(
        "--write", action="store_true", help="also write tables/<task>.md and .csv into the outputs"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
