"""The project's C kernels: compiled once for each machine that needs them, then loaded.

The sources in ``qexp/kernels`` are plain C without Python or torch headers, so the system's compiler
builds them in under a second. The library goes to ``$XDG_CACHE_HOME/qexp/kernels`` (``~/.cache`` by
default) under a hash of sources, flags, compiler and processor kind. Without a compiler
``function`` returns None and ``problem`` says why: callers have a way in torch that gives the same.

The library takes its OpenMP runtime from torch, which must be imported first: a second runtime would
bring threads of its own that compete with torch's.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from qexp.errors import KernelError

SOURCES = Path(__file__).parent
FLAGS = (
    "-O3", "-std=gnu11", "-fopenmp", "-shared", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
)  # fmt: skip
COMPILERS = ("cc", "gcc", "clang")
"""Tried in this order after ``$CC``."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``, as ``malloc.h`` numbers them."""
SECONDS = 120
"""A compiler that takes longer is given up on."""

assert torch  # imported for its OpenMP runtime


def function(name: str, *arguments: Any, returns: Any = None) -> Callable[..., Any] | None:
    """The kernel ``name`` with these ctypes argument types; None where the library cannot be built."""
    try:
        found = getattr(_library(), name)
    except KernelError:
        return None
    found.argtypes, found.restype = arguments, returns
    return found  # type: ignore[no-any-return]


def problem() -> str | None:
    """Why there are no native kernels here; None if there are."""
    try:
        _library()
    except KernelError as error:
        return str(error)
    return None


@cache
def _built() -> Path | KernelError:
    """Where the library lies, or what went wrong; remembered, so that a compiler is asked once."""
    try:
        return build(cache_folder())
    except KernelError as error:
        return error


@cache
def _loaded(file: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(file))


def _library() -> ctypes.CDLL:
    built = _built()
    if isinstance(built, KernelError):
        raise built
    return _loaded(built)


def cache_folder() -> Path:
    """Where libraries are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "qexp" / "kernels"


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder``, unless the library for this machine is there.

    Raises:
        KernelError: no compiler, one that fails, or a folder that cannot be written.
    """
    compiler = _compiler()
    sources = sorted(SOURCES.glob("*.c"))
    identity = "\0".join((compiler, *FLAGS, platform.machine(), *(file.read_text() for file in sources)))
    library = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = Path(aside) / library.name
            _compile([compiler, *FLAGS, "-o", str(made), *map(str, sources), "-lm"])
            os.replace(made, library)
    except OSError as error:
        raise KernelError(
            f"{folder} cannot be written ({error}): free space there, or set XDG_CACHE_HOME"
        ) from None
    return library


def _compiler() -> str:
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else COMPILERS:
        if path := shutil.which(name):
            return path
    tried = wanted or ", ".join(COMPILERS)
    raise KernelError(f"no C compiler ({tried}): install gcc or clang, or name one in CC")


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise KernelError(f"{command[0]} was not done after {SECONDS} s: name another in CC") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise KernelError(f"{command[0]} cannot compile the kernels: {last}; name another in CC")


def keep_freed_memory() -> None:
    """Tell the C library to keep what is freed for the next allocation.

    A training step allocates and frees the same large tensors again and again. By default glibc maps
    those above 32 MB anew each time and gives them back: the page faults of one such tensor cost several
    times what a copy of it costs (``python -m benchmarks.fake_quant``: ``clone`` beside ``copy``). The
    process stays as large as it once was. Other C libraries have no such setting; there nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(parameter, value)
