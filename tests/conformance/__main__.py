"""Compare qexp with the real programs: ``python -m tests.conformance [FOLDER] [PROGRAM ...]``.

FOLDER gets an environment for each program, some gigabytes in all. Prints one table, and writes the numbers
that ``tests/conformance/test_*.py`` hold qexp against.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from tests.conformance.environments import PROGRAMS, run
from tests.conformance.table import Row, markdown


def compared(program: str, folder: Path) -> list[Row]:
    """Return all comparisons with a program, which is run for them."""
    golden, arrays = run(program, folder)
    ours = import_module(f"tests.conformance.ours.{program}")
    return list(ours.rows(json.loads(golden.read_text(encoding="utf-8")), dict(np.load(arrays))))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".conformance"))
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}")
    words = parser.parse_args()
    unknown = sorted(set(words.programs) - set(PROGRAMS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(PROGRAMS)}")
    folder = words.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(markdown(row for program in words.programs or PROGRAMS for row in compared(program, folder)))


if __name__ == "__main__":
    main()
