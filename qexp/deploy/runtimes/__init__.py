"""Runtimes that execute an exported graph, one folder each, behind :class:`qexp.deploy.engine.Engine`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module

from qexp.config import RUNTIMES, RuntimeSpec
from qexp.deploy.engine import Engine, EngineSpec
from qexp.errors import DeployError


def spec_of(runtime: str) -> RuntimeSpec:
    """Return the entry of a runtime in :data:`qexp.config.RUNTIMES`.

    Raises:
        DeployError: The runtime is unknown.
    """
    if runtime not in RUNTIMES:
        raise DeployError(f"runtime {runtime!r} is unknown; allowed are {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime]


def load(runtime: str, spec: EngineSpec) -> Engine:
    """Load the graph of a spec into one runtime, and give back what the loading took beside the engine.

    Raises:
        DeployError: The runtime is unknown, not installed, has no device, or refuses the graph.
    """
    loader: Callable[[EngineSpec], Engine] = import_module(module_of(runtime)).load
    engine = loader(spec)
    return_freed_memory()
    return engine


def module_of(runtime: str) -> str:
    """Return the module whose ``load`` makes engines of a runtime.

    Raises:
        DeployError: The runtime is unknown.
    """
    return f"{__name__}.{spec_of(runtime).engine}"


def return_freed_memory() -> None:
    """Have glibc return freed memory to the system; other C libraries have no such call, or need none.

    Loading reads the graph, rewrites it and lets the runtime transform it: several times the size of the
    file, which the allocator would keep.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
