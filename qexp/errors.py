"""Everything that can go wrong for a user's reason, in one tree.

    QexpError
    ├── ConfigError          a field of the experiment: unknown, impossible or contradictory
    ├── DataError            rows: a source out of reach, wrong columns, bad labels, an empty split
    ├── ModelError           weights: not found, not safetensors, the wrong checksum, no fitting head
    ├── QuantizationError    ranges or sites that do not fit the model
    ├── KernelError          C kernels that cannot be compiled here; never ends a run, a slower way takes over
    ├── TrainingError        a loss that is not a number, a checkpoint that does not fit
    ├── DeployError          an export or a runtime that refuses the graph
    ├── LaunchError          a launcher of a sweep that could not start its jobs, or lost them
    └── StoreError           an artifact that cannot be written, read or trusted

A message says which field, which value, what is allowed, and what to do next. Programming
mistakes stay what Python makes of them (``TypeError``, ``AssertionError``).
"""

from __future__ import annotations

OK, FAILED, INVALID, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all is well; an error, or a graph that is not what was trained; a command that cannot be
carried out, such as an unknown one or one that finds no run; Ctrl-C, as shells count it."""


class QexpError(Exception):
    """Base of every error that qexp raises on purpose; the command line prints it without traceback."""


class ConfigError(QexpError):
    """The experiment as written cannot mean anything."""


class DataError(QexpError):
    """The rows cannot be reached or do not have the promised form."""


class ModelError(QexpError):
    """The checkpoint cannot be found, trusted or used for the task."""


class QuantizationError(QexpError):
    """Ranges, grids or sites do not fit the model at hand."""


class KernelError(QexpError):
    """The C kernels cannot be compiled or loaded on this machine."""


class TrainingError(QexpError):
    """Training left the realm of numbers or cannot be continued."""


class DeployError(QexpError):
    """A graph cannot be exported, loaded or run."""


class LaunchError(QexpError):
    """The jobs of a sweep could not be started, or not all of them were waited for."""


class StoreError(QexpError):
    """An artifact cannot be written, read or trusted."""
