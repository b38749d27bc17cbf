"""Compilation of the C kernels: caching, and the behavior if compilation fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qexp.errors import KernelError
from qexp.quant.kernels import native

COMPILER = native.problem() is None
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C compiler here")


def printed(script: str, **environment: str) -> str:
    """What a script prints, in a process of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_compiler
def test_built_once(tmp_path: Path) -> None:
    first = native.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert native.build(tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert list(tmp_path.iterdir()) == [first]


@needs_compiler
@pytest.mark.parametrize(
    "wrong",
    [
        lambda content: content[:1000],
        pytest.param(lambda content: b"", marks=pytest.mark.slow),
        pytest.param(lambda content: b"\0" * len(content), marks=pytest.mark.slow),
    ],
    ids=["cut", "empty", "zeros"],
)
def test_a_library_that_is_cut_short_is_built_again(wrong: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = native.build(tmp_path / "qexp" / "kernels")
    content = whole.read_bytes()
    whole.write_bytes(wrong(content))
    script = "import torch; from qexp.quant.kernels import native; print(native.problem())"
    assert printed(script, XDG_CACHE_HOME=str(tmp_path)).split() == ["None"]
    (library,) = (tmp_path / "qexp" / "kernels").iterdir()
    assert len(library.read_bytes()) == len(content)


def test_a_library_that_cannot_be_loaded_is_a_problem_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels.so").write_text("built for another machine")
    monkeypatch.setattr(native, "_built", lambda: tmp_path / "kernels.so")
    assert native.function("fake_quantize") is None
    problem = native.problem()
    assert problem is not None and "XDG_CACHE_HOME" in problem


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(KernelError, match=r"no C compiler \(no-such-compiler\): install gcc"):
        native.build(tmp_path)


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc-broken"
    compiler.write_text("#!/bin/sh\necho 'error: out of order' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(KernelError, match="cannot compile the kernels: error: out of order"):
        native.build(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(native, "_compiler", lambda: "cc")
    with pytest.raises(KernelError, match="cannot be written"):
        native.build(tmp_path / "file" / "cache")


def test_training_goes_on_without_a_compiler(tmp_path: Path) -> None:
    """In a process of its own, because the library is looked for once."""
    script = (
        "import torch\n"
        "from qexp.quant.kernels import native\n"
        "from qexp.quant import fake_quantize\n"
        "from qexp.quant.kernels import reference\n"
        "assert fake_quantize.kernels_of(torch.zeros(3), torch.tensor(1.0)) is reference\n"
        "print(native.problem())\n"
    )
    said = printed(script, CC="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert said.startswith("no C compiler (no-such-compiler)")


@needs_compiler
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here to list libraries")
def test_one_openmp_for_torch_and_the_kernels() -> None:
    """In a process of its own: other packages bring runtimes too."""
    script = (
        "from pathlib import Path\n"
        "from qexp.quant.kernels import native\n"
        "assert native.function('qexp_fake_quantize')\n"
        "lines = Path('/proc/self/maps').read_text().splitlines()\n"
        "print(len({line.split()[-1] for line in lines if 'gomp' in line or 'omp5' in line}))\n"
    )
    assert printed(script).strip() == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept() -> None:
    """Page faults of a large tensor that is made and dropped, once the heap has found its size."""
    script = (
        "import resource, torch\n"
        "from qexp.quant.kernels import native\n"
        "native.keep_freed_memory()\n"
        "for _ in range(30): torch.ones(16 << 20)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): torch.ones(16 << 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    assert int(printed(script)) < 1000  # pages of 4 KB in one such tensor: 16384
