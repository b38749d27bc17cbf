"""Command lines of the benchmarks: what they share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.shapes import SHAPES
from qexp.context import set_threads


def parser(document: str, **numbers: int) -> argparse.ArgumentParser:
    """A parser with ``--model``, ``--threads``, ``--json`` and one integer option for each number."""
    found = argparse.ArgumentParser(description=document.splitlines()[0])
    found.add_argument("--model", choices=SHAPES, default="minilm_l6", help="shape of the encoder")
    found.add_argument("--threads", type=int, default=2, help="threads of torch and of runtimes")
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    for name, value in numbers.items():
        found.add_argument(f"--{name}", type=int, default=value)
    return found


def add_peers(found: argparse.ArgumentParser) -> None:
    """Add ``--peers`` and ``--no-peers``."""
    found.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)


def start(found: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parse, and give torch its threads."""
    options = found.parse_args(arguments)
    torch.manual_seed(0)
    set_threads(options.threads)  # as in a run of qexp; what it sets serves the peers in this process, too
    return options


def settings(options: argparse.Namespace) -> dict[str, object]:
    """The options as they go into the JSON file."""
    return {name: value for name, value in vars(options).items() if name != "json"}
