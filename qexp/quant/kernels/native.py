"""Compilation and loading of the C kernels, once per machine.

The sources in ``qexp/quant/kernels`` are plain C without Python or torch headers, so the system's compiler
builds them in under a second. The library is stored in ``$XDG_CACHE_HOME/qexp/kernels`` (``~/.cache`` by
default) under a hash of sources, flags, compiler, C library and processor architecture, and under one of its
own content: loading a file that was cut short ends the process with a bus error. Without a compiler
``function`` returns None and ``problem`` explains why; callers then fall back to torch, with the same
results.

The library uses the OpenMP runtime of torch, which must therefore be imported first: a second runtime would
start threads of its own that compete with torch's.
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
"""Compilers to try, in this order, if ``$CC`` is not set."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``, as ``malloc.h`` numbers them."""
SECONDS = 120
"""Timeout of the compiler."""

assert torch  # imported for its OpenMP runtime


def function(name: str, *arguments: Any, returns: Any = None) -> Callable[..., Any] | None:
    """Return the kernel ``name`` with these ctypes argument types, or None if the library cannot be built."""
    try:
        kernel = getattr(_library(), name)
    except KernelError:
        return None
    kernel.argtypes, kernel.restype = arguments, returns
    return kernel  # type: ignore[no-any-return]


def problem() -> str | None:
    """Return why the native kernels are unavailable, or None if they are available."""
    try:
        _library()
    except KernelError as error:
        return str(error)
    return None


@cache
def _built() -> Path | KernelError:
    """Return the path of the library or the error; cached, so that the compiler runs only once."""
    try:
        return build(cache_folder())
    except KernelError as error:
        return error


@cache
def _loaded(file: Path) -> ctypes.CDLL | KernelError:
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:  # such as a file system that is mounted noexec
        return KernelError(f"{error}; set XDG_CACHE_HOME to a folder whose files may be executed")


def _library() -> ctypes.CDLL:
    built = _built()
    library = built if isinstance(built, KernelError) else _loaded(built)
    if isinstance(library, KernelError):
        raise library
    return library


def cache_folder() -> Path:
    """Return the folder in which compiled libraries are cached."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "qexp" / "kernels"


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder``, unless the library for this machine is there and whole.

    Returns:
        Path of the library.

    Raises:
        KernelError: If there is no compiler, it fails, or the folder cannot be written.
    """
    compiler = _compiler()
    sources = sorted(SOURCES.glob("*.c"))
    machine = (platform.machine(), *platform.libc_ver())
    parts = (compiler, *FLAGS, *machine, *(file.read_text() for file in sources))
    identity = _hash("\0".join(parts).encode())
    try:
        for library in folder.glob(f"{identity}-*.so"):
            if library.name == _name(identity, library):
                return library
            library.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as staging:
            temporary = Path(staging) / "kernels.so"
            _compile([compiler, *FLAGS, "-o", str(temporary), *map(str, sources), "-lm"])
            library = folder / _name(identity, temporary)
            os.replace(temporary, library)
    except OSError as error:
        raise KernelError(
            f"{folder} cannot be written ({error}): free space there, or set XDG_CACHE_HOME"
        ) from None
    return library


def _name(identity: str, library: Path) -> str:
    """Return the name of a compiled library in the cache, which ends with a hash of its content."""
    return f"{identity}-{_hash(library.read_bytes())}.so"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compiler() -> str:
    configured = os.environ.get("CC")
    for name in (configured,) if configured else COMPILERS:
        if path := shutil.which(name):
            return path
    tried = configured or ", ".join(COMPILERS)
    raise KernelError(f"no C compiler ({tried}): install gcc or clang, or name one in CC")


def _compile(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise KernelError(f"{command[0]} was not done after {SECONDS} s: name another in CC") from None
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise KernelError(f"{command[0]} cannot compile the kernels: {last}; name another in CC")


def keep_freed_memory() -> None:
    """Configure glibc to keep freed memory for the next allocation.

    A training step allocates and frees the same large tensors repeatedly. By default glibc maps tensors above
    32 MB anew each time and unmaps them again; the page faults of one such tensor cost several times as much
    as copying it (``python -m benchmarks.fake_quant``: ``clone`` compared with ``copy``). The process never
    shrinks below its peak size. Other C libraries have no such setting, and nothing is changed there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(parameter, value)
