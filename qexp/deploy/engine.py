"""What every runtime has in common: an order for an engine, the engine, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qexp.config import Precision
from qexp.errors import DeployError

Batch = Mapping[str, NDArray[Any]]
"""Arrays by the name of an input: integers [batch, length], or what another graph has put out."""


@dataclass(frozen=True)
class Order:
    """What to make an engine of, and for what."""

    graph: Path
    """The ONNX file."""
    precision: Precision
    """Arithmetic; a graph with Q/DQ pairs is ``int8``."""
    threads: int
    """CPU cores that one product may use, at least 1."""
    shapes: tuple[tuple[int, int], ...] = ()
    """Rows and tokens of the batches to come, for runtimes that optimize for them."""
    cache: Path | None = None
    """Folder for engines that take long to build; None keeps none."""


@dataclass(frozen=True)
class Info:
    """What an engine is."""

    runtime: str
    """Name in :data:`qexp.deploy.runtimes.RUNTIMES`."""
    version: str
    """Version of the runtime."""
    device: str
    """Processor or GPU that it runs on."""
    precision: Precision
    """Arithmetic of its large products."""
    bytes: int
    """Size of the file that it was loaded from: the graph, or the engine built from it."""
    build_seconds: float
    """Time from the graph to an engine that is ready; of one that was kept, the time to load it."""
    command: str | None = None
    """A command of the runtime's own tool that does the same by hand; None where it has no such tool."""
    memory_bytes: int | None = None
    """Memory on the device that the engine takes; None where it does not tell."""


@dataclass(frozen=True)
class Product:
    """One matrix product as the engine executes it."""

    name: str
    """Its name in the exported graph, or the engine's own where that is lost."""
    kernel: str
    """Operator or kernel that the engine chose."""
    macs: int
    """Multiply-accumulates for one batch of the shape that was looked at."""
    integer: bool
    """Whether it multiplies integers."""


@dataclass(frozen=True)
class Audit:
    """What an engine really does with a graph."""

    shape: tuple[int, int]
    """Rows and tokens that the work was counted for."""
    products: tuple[Product, ...]
    """All matrix products, in the engine's order."""
    conversions: int
    """Nodes that are left and only quantize, dequantize or change a layout."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Executed nodes by operator."""

    @property
    def integer_share(self) -> float:
        """Percent of all multiply-accumulates that are done in integers; 0 without any product."""
        macs = sum(each.macs for each in self.products)
        return 100.0 * sum(each.macs for each in self.products if each.integer) / macs if macs else 0.0

    @property
    def in_float(self) -> tuple[Product, ...]:
        """Products that are left in floating point, the largest first."""
        return tuple(
            sorted((each for each in self.products if not each.integer), key=lambda each: -each.macs)
        )


def check_names(inputs: tuple[str, ...], batch: Batch) -> None:
    """See that a batch has exactly the inputs of an engine.

    Raises:
        DeployError: an input is missing or unknown.
    """
    missing, extra = set(inputs) - set(batch), set(batch) - set(inputs)
    if missing or extra:
        raise DeployError(
            f"batch: has {sorted(batch)}, the graph takes {sorted(inputs)}; "
            f"add {sorted(missing)}, leave out {sorted(extra)}"
        )


def not_installed(package: str, extra: str) -> DeployError:
    """What a runtime says whose package cannot be imported."""
    return DeployError(f"{package} is not installed; pip install 'qexp[{extra}]'")


class Engine(Protocol):
    """A graph that is ready to run."""

    @property
    def info(self) -> Info:
        """What it is."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's one output of a batch that has exactly ``inputs``.

        Raises:
            DeployError: an input is missing or unknown, or the runtime refuses a value or a shape.
        """

    def audit(self, batch: Batch) -> Audit | None:
        """What it does with a batch of that shape; None where the runtime does not tell.

        Raises:
            DeployError: as ``run``.
        """
