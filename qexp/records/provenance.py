"""Versions and commit of the code that computed a result."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import qexp

PACKAGES = (
    "torch",
    "transformers",
    "pytorch-lightning",
    "datasets",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, qexp and the libraries that results depend on, or ``absent``."""
    result = {"python": platform.python_version(), "qexp": qexp.__version__}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            result[package] = "absent"
    return result


def git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout that qexp runs from and whether it is dirty; None for a wheel."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder.parent / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None
