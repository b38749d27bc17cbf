"""Options ``--html`` and ``--plots`` of ``qexp report``, and the files that they write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from qexp.records.record import Record, write_text
from qexp.reporting.charts.sensitivity import measured
from qexp.reporting.formats import tables_of
from qexp.reporting.report import Report

HERE = "in the outputs"
"""Value of an option that was given without a path."""
PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}
"""Package of each module that draws charts and the page."""


def not_installed() -> str | None:
    """Return what to install for charts and the page; None if it is there."""
    absent = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    names = " ".join(absent)
    return f"charts need {names}, which is not installed; pip install {names}" if absent else None


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
    options: argparse.Namespace, outputs: Path, report: Report, *, records: Sequence[Record], unreadable: int
) -> Iterator[Path]:
    """Write the requested HTML page and plots, and yield their paths.

    Raises:
        StoreError: A file cannot be written, or a sensitivity measurement cannot be read.
    """
    if options.html:
        from qexp.reporting.formats.html import page

        path = outputs / "report.html" if options.html == HERE else Path(options.html)
        text = page(
            report.comparisons,
            records,
            tables_of(replace(report, comparisons=())),
            verdicts=report.verdicts,
            measured=measured(outputs),
            outputs=outputs,
            unreadable=unreadable,
        )
        write_text(path, text)
        yield path
    if options.plots:
        from qexp.reporting.charts.files import write_plots
        from qexp.reporting.charts.galleries import galleries

        folder = outputs / "plots" if options.plots == HERE else Path(options.plots)
        yield from write_plots(galleries(report.comparisons, measured(outputs)), folder)
