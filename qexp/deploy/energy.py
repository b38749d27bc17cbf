"""Energy counters of the machine: RAPL of Intel and AMD processors, and NVIDIA's driver."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
"""Folder where Linux exposes the counters of processor packages."""
NVML = "libnvidia-ml.so.1"
"""NVIDIA Management Library, which comes with the driver."""
SECONDS = 1.0
"""Minimum duration of a measurement: counters update every few to some hundred milliseconds."""

Meter = Callable[[], float]
"""Reads joules since an arbitrary moment; only differences are meaningful."""


def meters() -> tuple[Meter, ...]:
    """Return every energy counter that this process may read; empty if there is none."""
    return tuple(meter for meter in (*_packages(), _gpu()) if meter is not None)


def joules(
    call: Callable[[], object], known: Sequence[Meter], clock: Callable[[], float] = time.monotonic
) -> float:
    """Return the joules of one call over all counters: the mean of repeated calls for :data:`SECONDS`."""
    before, started, calls = [meter() for meter in known], clock(), 0
    while clock() - started < SECONDS:
        call()
        calls += 1
    return sum(meter() - earlier for meter, earlier in zip(known, before, strict=True)) / calls


def _packages() -> list[Meter]:
    packages = []
    for file in sorted(POWERCAP.glob("*-rapl:[0-9]/energy_uj")):
        try:
            file.read_text()
        except OSError:  # readable by root only on most machines
            continue
        packages.append(_package(file))
    return packages


def _package(file: Path) -> Meter:
    return lambda: int(file.read_text()) / 1e6


@cache
def _gpu() -> Meter | None:
    """Return a meter of the first GPU, or None without one.

    NVML counts millijoules since the driver was loaded (Volta and later).
    """
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return None
    device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        return None

    def read() -> float:
        library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy))
        return energy.value / 1e3

    status = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy))
    return None if status else read
