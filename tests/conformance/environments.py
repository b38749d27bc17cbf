"""Virtual environments of the real programs, one for each, with pinned packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("aimet", "q8bert", "neurst", "qdqbert")
"""Names of the real sides, which are also those of recipes."""


def requirements(program: str) -> tuple[Path, Path]:
    """Return the files of packages that are installed with what they ask for, and of those without."""
    folder = HERE / "requirements"
    return folder / f"{program}.txt", folder / f"{program}_alone.txt"


def interpreter(program: str, folder: Path) -> Path:
    """Return Python of a program's environment, which is built if it is not there as pinned."""
    pins = "".join(each.read_text(encoding="utf-8") for each in requirements(program))
    place = folder / program
    python, built = place / "bin" / "python", place / "built.txt"
    if not built.is_file() or built.read_text(encoding="utf-8") != pins:
        print(f"building the environment of {program} in {place}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        together, alone = requirements(program)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", together], check=True)
        subprocess.run([*pip, "--no-deps", "-r", alone], check=True)
        built.write_text(pins, encoding="utf-8")
    return python


def run(program: str, folder: Path) -> tuple[Path, Path]:
    """Run the real side of a program; return its golden file and its arrays.

    Raises:
        subprocess.CalledProcessError: If the program fails.
    """
    python = interpreter(program, folder)
    golden, arrays = HERE / "golden" / f"{program}.json", folder / f"{program}.npz"
    module = f"tests.conformance.real.{program}"
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "-m", module, golden, arrays], check=True, cwd=ROOT, env=os.environ | settings)
    return golden, arrays
