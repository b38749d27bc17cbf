"""Experiments of a benchmark, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qexp.records.record import Record, read


def run(words: Sequence[str]) -> Record:
    """Run an experiment, or find it in the store, and return its Record; a failed one ends the program."""
    print(f"python -m qexp {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "qexp", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    both = (done.stdout + done.stderr).splitlines()
    (place,) = (line.removeprefix("record: ") for line in both if line.startswith("record: "))
    return read(Path(place))
