"""Options ``--html`` and ``--plots`` of ``qexp report``, and the files that they write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from qexp.records.record import Record, write_text
from qexp.reporting.charts.sensitivity import measured
from qexp.reporting.comparison import Comparison
from qexp.reporting.table import Table

HERE = "in the outputs"
"""Value of an option that was given without a path."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--html [FILE]`` and ``--plots [DIR]``."""
    parser.add_argument(
        "--html",
        nargs="?",
        const=HERE,
        metavar="FILE",
        help="write one page of all tables and charts, and print its path instead of the tables (default: "
        "report.html in the outputs)",
    )
    parser.add_argument(
        "--plots",
        nargs="?",
        const=HERE,
        metavar="DIR",
        help="write each chart of that page as PNG and SVG, and print their paths instead of the tables "
        "(default: plots in the outputs)",
    )


def write_pictures(
    options: argparse.Namespace,
    outputs: Path,
    comparisons: Sequence[Comparison],
    *,
    records: Sequence[Record],
    overviews: Sequence[Table],
    unreadable: int,
) -> Iterator[Path]:
    """Write the requested HTML page and plots, and yield their paths.

    Raises:
        StoreError: A file cannot be written, or a sensitivity measurement cannot be read.
    """
    if options.html:
        from qexp.reporting.formats.html import page

        path = outputs / "report.html" if options.html == HERE else Path(options.html)
        write_text(
            path, page(comparisons, records, overviews, unreadable=unreadable, measured=measured(outputs))
        )
        yield path
    if options.plots:
        from qexp.reporting.charts.galleries import galleries
        from qexp.reporting.charts.matplotlib import write_plots

        folder = outputs / "plots" if options.plots == HERE else Path(options.plots)
        yield from write_plots(galleries(comparisons, measured(outputs)), folder)
