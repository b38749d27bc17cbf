"""Interface shared by all runtimes: the spec of an engine, the engine, its description and its audit."""

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
"""Arrays by input name: integers [batch, length], or the output of another graph."""


@dataclass(frozen=True)
class EngineSpec:
    """Graph to load, and the conditions that its engine has to run under."""

    graph: Path
    """The ONNX file."""
    precision: Precision
    """Arithmetic; ``int8`` for a graph with Q/DQ pairs."""
    threads: int
    """Number of CPU cores that one product may use, at least 1."""
    shapes: tuple[tuple[int, int], ...] = ()
    """Rows and tokens of the expected batches, for runtimes that optimize for them."""
    cache: Path | None = None
    """Folder that keeps engines which take long to build; None disables caching."""


@dataclass(frozen=True)
class Info:
    """Description of a loaded engine."""

    runtime: str
    """Name in :data:`qexp.config.RUNTIMES`."""
    version: str
    """Version of the runtime."""
    device: str
    """Processor or GPU that the engine runs on."""
    precision: Precision
    """Arithmetic of the large products."""
    bytes: int
    """Size of the loaded file: the graph, or the engine built from it."""
    build_seconds: float
    """Time from the graph to a ready engine; for a cached engine, the time to load it."""
    command: str | None = None
    """Command of the runtime's own tool that does the same; None where it has no such tool."""
    memory_bytes: int | None = None
    """Device memory that the engine takes; None where the runtime does not report it."""


@dataclass(frozen=True)
class EngineProduct:
    """Matrix product as the engine executes it."""

    name: str
    """Name in the exported graph, or the engine's own name where that is lost."""
    kernel: str
    """Operator or kernel that the engine chose."""
    macs: int
    """Multiply-accumulates for one batch of the audited shape."""
    integer: bool
    """Whether the kernel multiplies integers."""


@dataclass(frozen=True)
class Audit:
    """Work that an engine actually does for a graph."""

    shape: tuple[int, int]
    """Rows and tokens of the batch that the work was counted for."""
    products: tuple[EngineProduct, ...]
    """All matrix products, in the engine's order."""
    conversions: int
    """Number of remaining nodes that only quantize, dequantize or change a layout."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Number of executed nodes by operator."""

    @property
    def integer_share(self) -> float:
        """Percentage of multiply-accumulates done in integers; 0 without any product."""
        macs = sum(each.macs for each in self.products)
        return 100.0 * sum(each.macs for each in self.products if each.integer) / macs if macs else 0.0

    @property
    def in_float(self) -> tuple[EngineProduct, ...]:
        """Products computed in floating point, the largest first."""
        return tuple(
            sorted((each for each in self.products if not each.integer), key=lambda each: -each.macs)
        )


def check_names(inputs: tuple[str, ...], batch: Batch) -> None:
    """Check that a batch has exactly the inputs of an engine.

    Raises:
        DeployError: An input is missing or unknown.
    """
    missing, extra = set(inputs) - set(batch), set(batch) - set(inputs)
    if missing or extra:
        raise DeployError(
            f"batch: has {sorted(batch)}, the graph takes {sorted(inputs)}; "
            f"add {sorted(missing)}, leave out {sorted(extra)}"
        )


def not_installed(package: str, extra: str) -> DeployError:
    """Return the error for a runtime whose package cannot be imported."""
    return DeployError(f"{package} is not installed; pip install 'qexp[{extra}]'")


class Engine(Protocol):
    """Graph that is ready to run."""

    @property
    def info(self) -> Info:
        """Description of the engine."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's single output for a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, or the runtime refuses a value or a shape.
        """

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work done for a batch of this shape; None where the runtime does not report it.

        Raises:
            DeployError: As in ``run``.
        """


class StateEngine(Engine, Protocol):
    """Engine whose further outputs, such as keys and values of attention, are inputs of a next call."""

    @property
    def types(self) -> Mapping[str, Any]:
        """NumPy type of each input."""

    def run_all(self, batch: Batch) -> Mapping[str, NDArray[Any]]:
        """Compute all outputs, by name.

        Raises:
            DeployError: As in ``run``.
        """


def with_states(engine: Engine) -> StateEngine:
    """Return an engine as one with several outputs.

    Raises:
        DeployError: Its runtime returns the first output only.
    """
    if not hasattr(engine, "run_all"):
        raise DeployError(
            f"runtime {engine.info.runtime} returns one output of a graph, and the decoder of a translation "
            "returns its cache beside logits; use onnxruntime or openvino"
        )
    return engine  # type: ignore[return-value]
