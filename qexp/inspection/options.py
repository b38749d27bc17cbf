"""What the commands that measure a run are asked alike."""

from __future__ import annotations

import argparse
from pathlib import Path

from qexp.records import OUTPUTS_VARIABLE

COULD_NOT = 2
"""Exit code where there is nothing to show."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The run, ``--rows``, ``--accelerator`` and ``--outputs``."""
    parser.add_argument("run", metavar="RUN", help="beginning of a run's key, or path of its Record")
    parser.add_argument(
        "--rows", type=positive, metavar="N",
        help="measure on the first N rows of the evaluation split (default: all that the run evaluated)",
    )  # fmt: skip
    parser.add_argument(
        "--accelerator", choices=("cpu", "gpu"), help="what to compute on (default: what the run did)"
    )
    parser.add_argument(
        "--outputs", type=Path, metavar="DIR",
        help=f"folder that runs wrote to (default: {OUTPUTS_VARIABLE}, else ./outputs)",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number
