"""What the commands that take a run are asked alike, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from qexp.environment import check_environment
from qexp.errors import INTERRUPTED, INVALID, QexpError
from qexp.records.record import OUTPUTS_VARIABLE


def ended(name: str, work: Callable[[], int], interrupted: str) -> int:
    """Exit code of a command's work: its own, or that of an error or of Ctrl-C, which stderr then tells.

    Args:
        name: Of the command.
        work: What it does.
        interrupted: What to say of Ctrl-C where the work does not say it better.
    """
    try:
        check_environment()
        return work()
    except QexpError as error:
        print(f"qexp {name}: {error}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED


def add_options(parser: argparse.ArgumentParser) -> None:
    """The run, ``--rows``, ``--accelerator`` and ``--outputs``: of commands that measure."""
    add_run(parser)
    parser.add_argument(
        "--rows", type=positive, metavar="N",
        help="measure on the first N rows of the evaluation split (default: all that the run evaluated)",
    )  # fmt: skip
    add_accelerator(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, and ``--outputs`` where it lies."""
    parser.add_argument("run", metavar="RUN", help="beginning of a run's key, or path of its Record")
    add_outputs(parser)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """``--outputs``."""
    parser.add_argument(
        "--outputs", type=Path, metavar="DIR",
        help=f"folder that runs wrote to (default: {OUTPUTS_VARIABLE}, else ./outputs)",
    )  # fmt: skip


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """``--accelerator``."""
    parser.add_argument(
        "--accelerator", choices=("cpu", "gpu"), help="what to compute on (default: what the run did)"
    )


def add_stage(parser: argparse.ArgumentParser, stages: Iterable[str]) -> None:
    """``--stage``: some of ``fp32 control ptq qat``."""
    parser.add_argument(
        "--stage", choices=tuple(stages),
        help="which model of the run: as calibrated (ptq), as trained with quantization (qat), ...; "
        "default: the last one of the run",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number


def words_of(text: str) -> list[str]:
    """``"a,b"`` -> ``["a", "b"]``."""
    return text.split(",")
