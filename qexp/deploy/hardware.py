"""What of this machine a time depends on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qexp.artifacts import digest
from qexp.config import RuntimeName
from qexp.environment import EXACT_VARIABLE
from qexp.errors import DeployError


@dataclass(frozen=True)
class Host:
    """A machine as far as its speed goes: times of one host are not those of another."""

    processor: str
    cores: int
    threads: int
    runtimes: tuple[str, ...]
    """Name and version of each runtime that is asked for."""
    gpu: str | None = None
    """Model of the GPU; null without one, or where none is asked for."""

    @property
    def fingerprint(self) -> str:
        """Hash of all fields."""
        return digest(asdict(self))


PACKAGES: dict[RuntimeName, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt-bindings"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
    "torch_int8": ("torch",),
}
"""Distributions that a runtime can come from."""
ON_A_GPU: frozenset[RuntimeName] = frozenset({"tensorrt", "tensorrt_rtx", "torch_int8"})
"""Runtimes that compute on a GPU where there is one."""


def exact_products_forced() -> bool:
    """Whether the environment wants of engines what a CPU without VNNI needs.

    Raises:
        DeployError: the variable is neither 0 nor 1.
    """
    wanted = os.environ.get(EXACT_VARIABLE) or "0"
    if wanted not in ("0", "1"):
        raise DeployError(
            f"{EXACT_VARIABLE} is {wanted!r}; allowed are 0 and 1: set one of them, or unset it"
        )
    return wanted == "1"


def this_host(threads: int, runtimes: tuple[RuntimeName, ...]) -> Host:
    """The machine that this process runs on, with that many threads to compute with."""
    return _host(processor(), threads, runtimes)


@cache
def _host(name: str, threads: int, runtimes: tuple[RuntimeName, ...]) -> Host:
    versions = tuple(f"{runtime} {_version(runtime)}" for runtime in runtimes)
    gpu = _gpu() if ON_A_GPU & set(runtimes) else None
    return Host(name, os.cpu_count() or 1, threads, versions, gpu)


def _version(runtime: RuntimeName) -> str:
    for package in PACKAGES[runtime]:
        with suppress(PackageNotFoundError):
            return version(package)
    return "absent"


def _gpu() -> str | None:
    """Model of the first NVIDIA GPU, as its driver tells without any library."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.removeprefix("Model:").strip()
    return None


def processor() -> str:
    """Model, vector extensions, and whether they are left unused for products of integers.

    Raises:
        DeployError: as :func:`exact_products_forced`.
    """
    return _processor() + (", exact int8 products forced" if exact_products_forced() else "")


@cache
def _processor() -> str:
    """Model and vector extensions: virtual machines often share a model name and little else."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    vector = [flag for flag in named.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return f"{named.get('model name', platform.machine())} [{' '.join(sorted(vector))}]"
