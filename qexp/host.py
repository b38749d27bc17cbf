"""What of this machine a time depends on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from qexp.store import digest


@dataclass(frozen=True)
class Host:
    """A machine as far as its speed goes: times of one host are not those of another."""

    processor: str
    cores: int
    threads: int
    onnxruntime: str

    @property
    def fingerprint(self) -> str:
        """Hash of all fields."""
        return digest(asdict(self))


@cache
def this_host(threads: int) -> Host:
    """The machine that this process runs on, with that many threads to compute with."""
    return Host(processor(), os.cpu_count() or 1, threads, version("onnxruntime"))


@cache
def processor() -> str:
    """Model and vector extensions: virtual machines often share a model name and little else."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    vector = [flag for flag in named.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return f"{named.get('model name', platform.machine())} [{' '.join(sorted(vector))}]"
