"""Properties of this machine that timings depend on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qexp.artifacts import digest
from qexp.config import RUNTIMES, RuntimeName
from qexp.config.cpu import cpu_fields
from qexp.environment import EXACT_VARIABLE
from qexp.errors import DeployError


@dataclass(frozen=True)
class Host:
    """Properties of a machine that decide its speed; timings are comparable only between equal hosts."""

    processor: str
    cores: int
    threads: int
    runtimes: tuple[str, ...]
    """Name and version of each requested runtime."""
    gpu: str | None = None
    """Model of the GPU; null without one, or where no requested runtime uses it."""

    @property
    def fingerprint(self) -> str:
        """Hash over all fields."""
        return digest(asdict(self))


def exact_products_forced() -> bool:
    """Return whether the environment forces the exact products that a CPU without VNNI needs.

    Raises:
        DeployError: The environment variable is neither 0 nor 1.
    """
    setting = os.environ.get(EXACT_VARIABLE) or "0"
    if setting not in ("0", "1"):
        raise DeployError(
            f"{EXACT_VARIABLE} is {setting!r}; allowed are 0 and 1: set one of them, or unset it"
        )
    return setting == "1"


def this_host(threads: int, runtimes: tuple[RuntimeName, ...]) -> Host:
    """Return the machine that this process runs on, with ``threads`` to compute with."""
    return _host(processor(), threads, runtimes)


@cache
def _host(name: str, threads: int, runtimes: tuple[RuntimeName, ...]) -> Host:
    versions = tuple(f"{runtime} {_version(runtime)}" for runtime in runtimes)
    gpu = _gpu() if any(RUNTIMES[runtime].on_gpu for runtime in runtimes) else None
    return Host(name, os.cpu_count() or 1, threads=threads, runtimes=versions, gpu=gpu)


def _version(runtime: RuntimeName) -> str:
    for package in RUNTIMES[runtime].packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return "absent"


def _gpu() -> str | None:
    """Return the model of the first NVIDIA GPU from its driver's files, which needs no library."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.removeprefix("Model:").strip()
    return None


def may_have_gpu() -> bool:
    """Return False where no driver of NVIDIA or AMD has left a device, which needs no library to see."""
    devices = (
        "/proc/driver/nvidia",
        "/dev/nvidia0",
        "/dev/nvidiactl",
        "/dev/nvhost-gpu",
        "/dev/dxg",
        "/dev/kfd",
    )
    return any(Path(name).exists() for name in devices)


def processor() -> str:
    """Return the model, its vector extensions, and whether exact integer products leave these unused.

    Raises:
        DeployError: As in :func:`exact_products_forced`.
    """
    return _processor() + (", exact int8 products forced" if exact_products_forced() else "")


@cache
def _processor() -> str:
    """Return model and vector extensions: virtual machines often share a model name and little else."""
    if not (fields := cpu_fields()):
        return platform.processor() or platform.machine()
    vector = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return f"{fields.get('model name', platform.machine())} [{' '.join(sorted(vector))}]"
