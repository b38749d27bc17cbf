"""Energy that the machine says it has used: Intel's and AMD's RAPL counters, and NVIDIA's driver."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters of processor packages."""
NVML = "libnvidia-ml.so.1"
"""NVIDIA's library of management, which comes with the driver."""
SECONDS = 1.0
"""What is measured runs at least so long: counters move every few to some hundred milliseconds."""

Meter = Callable[[], float]
"""Joules since some moment; differences count."""


def meters() -> tuple[Meter, ...]:
    """Every counter of this machine that may be read; none where it does not tell."""
    return tuple(meter for meter in (*_packages(), _gpu()) if meter is not None)


def joules(
    call: Callable[[], object], known: Sequence[Meter], clock: Callable[[], float] = time.monotonic
) -> float:
    """Joules of one call, over all counters: the mean of as many as fit into :data:`SECONDS`."""
    before, started, calls = [meter() for meter in known], clock(), 0
    while clock() - started < SECONDS:
        call()
        calls += 1
    return sum(meter() - earlier for meter, earlier in zip(known, before, strict=True)) / calls


def _packages() -> list[Meter]:
    found = []
    for file in sorted(POWERCAP.glob("*-rapl:[0-9]/energy_uj")):
        try:
            file.read_text()
        except OSError:  # readable by root only on most machines
            continue
        found.append(_package(file))
    return found


def _package(file: Path) -> Meter:
    return lambda: int(file.read_text()) / 1e6


@cache
def _gpu() -> Meter | None:
    """The first GPU's counter, in millijoules since the driver was loaded (Volta and later)."""
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return None
    device, counted = ctypes.c_void_p(), ctypes.c_ulonglong()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        return None

    def read() -> float:
        library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(counted))
        return counted.value / 1e3

    told = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(counted))
    return None if told else read
