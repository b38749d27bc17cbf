"""Hierarchy of the errors that a user can cause and fix.

    QexpError
    ├── ConfigError          a field of the experiment is unknown, impossible or contradictory
    ├── DataError            rows: unreachable source, wrong columns, bad labels, empty split
    ├── ModelError           weights: not found, not safetensors, wrong checksum, no matching head
    ├── QuantizationError    ranges or sites that do not fit the model
    ├── KernelError          C kernels that cannot be compiled; never ends a run, slower code takes over
    ├── TrainingError        a loss that is NaN or infinite, a checkpoint that does not fit
    ├── DeployError          an export or a runtime that rejects the graph
    ├── LaunchError          a launcher that could not start the jobs of a sweep, or lost them
    └── StoreError           an artifact that cannot be written, read or trusted

Messages name the field, its value, what is allowed and what to do next. Programming mistakes raise Python's
own exceptions (``TypeError``, ``AssertionError``).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

OK, FAILED, INVALID, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: success; a run that failed, or a result that is not good enough, such as an exported graph that
departs from the trained model; a command or value that was refused before any work, such as a misspelled
field, rows that are not there, or the name of no run; Ctrl-C, as in shells. docs/results.md lists them."""

MOST_NAMES = 10_000
"""Names of a folder that are held against a misspelled one."""


class QexpError(Exception):
    """Base class of errors that qexp raises on purpose; the command line prints them without traceback."""


class ConfigError(QexpError):
    """The configuration of an experiment is invalid."""


class DataError(QexpError):
    """Rows are unreachable or malformed."""


class ModelError(QexpError):
    """A checkpoint cannot be found, trusted or used for the task."""


class QuantizationError(QexpError):
    """Ranges, grids or sites do not fit the model."""


class KernelError(QexpError):
    """The C kernels cannot be compiled or loaded on this machine."""


class TrainingError(QexpError):
    """Training diverged or cannot be resumed."""


class DeployError(QexpError):
    """A graph cannot be exported, loaded or run."""


class LaunchError(QexpError):
    """The jobs of a sweep could not be started, or not all of them could be waited for."""


class StoreError(QexpError):
    """An artifact cannot be written, read or trusted."""


def nearest_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelled word is most like, or None if none is near."""
    import difflib  # only for a message: the help is printed without it

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def nearest_path(path: str | Path, *, folder: bool = False) -> str | None:
    """Return the existing path that differs from a misspelled one in one name, or None if none is near.

    Args:
        path: Path that does not exist, spelled as the user did, in which way the answer is spelled, too.
        folder: Whether only a folder is meant.
    """
    missing = Path(path)
    try:
        if missing.expanduser().exists():
            return None
        while not missing.parent.expanduser().exists():
            missing = missing.parent
        names = (each.name for each in islice(missing.parent.expanduser().iterdir(), MOST_NAMES))
        close = nearest_name(missing.name, names)
        found = missing.parent / (close or "") / Path(path).relative_to(missing)
        there = found.expanduser().is_dir() if folder else found.expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # not readable, or the home folder of nobody
        return None
    return str(found) if close and there else None


def path_hint(path: str | Path, *, folder: bool = False) -> str:
    """Return the question after a path that does not exist, with a blank behind it; empty if none is near."""
    near = nearest_path(path, folder=folder)
    return f"did you mean {near}? " if near else ""
