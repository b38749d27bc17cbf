"""The house rules that a program can check: layers, sizes, forbidden names."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "qexp").rglob("*.py"))


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_imports_point_down() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 320
    for name, lines in _functions(ast.parse(text)):
        assert lines <= 60, f"{name} has {lines} lines"


def test_the_median_function_is_short() -> None:
    lengths = [
        lines for file in FILES for _, lines in _functions(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert statistics.median(lengths) <= 12


def test_no_drawer_and_no_pickle() -> None:
    for file in FILES:
        assert "utils" not in file.parts
        assert file.stem not in {"utils", "helpers", "misc", "common"}
        assert "import pickle" not in file.read_text(encoding="utf-8")


def test_light_paths_import_nothing_heavy() -> None:
    code = (
        "import sys, qexp.cli.run, qexp.execution.job, qexp.pipeline.pipeline, qexp.cli.report;"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'onnxruntime', 'sklearn', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_function_makes_every_session_of_onnx_runtime() -> None:
    """Made elsewhere, a session would compute wrong products on a CPU without VNNI."""
    made = {
        file.relative_to(ROOT).as_posix()
        for folder in ("qexp", "tests", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "InferenceSession"
    }
    assert made == {"qexp/deploy/runtimes/onnxruntime/session.py"}
    written = {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for folder in ("qexp", "docs")
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix in (".py", ".md", ".yaml") and "InferenceSession(" in file.read_text(encoding="utf-8")
    }
    # What a reader runs without qexp asks for exact products itself.
    assert set(written) == made | {"qexp/publishing/examples.py", "docs/using.md"}
    assert all("session.x64quantprecision" in text for text in written.values())
