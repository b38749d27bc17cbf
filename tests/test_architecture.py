"""Architecture rules: import layers, file and function sizes, forbidden names."""

from __future__ import annotations

import ast
import inspect
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
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


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


BANNED = {
    "schooling", "taught", "course", "courses", "seat", "surroundings", "journal", "bury",
    "buried", "burial", "death", "watched", "awaited", "patient", "flavour", "flavours", "shelves", "upkeep",
    "workplace", "follower", "nobody", "told", "said", "ledger", "made_good", "spell_out", "last_words",
    "words_of", "worth_half_bytes", "beside_ours",
}  # fmt: skip
"""Coinages that nobody can search for; docs/glossary.md has the words of the field."""


def test_identifiers_are_words_of_the_field() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in FILES
        if "synthetic" not in file.parts
        for name in _identifiers(ast.parse(file.read_text(encoding="utf-8")))
        if name.lower().strip("_") in BANNED
    }
    assert sorted(found) == []


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_no_test_module_imports_another() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                modules = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
                assert not any(name.rpartition(".")[2].startswith("test_") for name in modules), file


def test_a_call_has_at_most_four_positional_arguments() -> None:
    """Where the callee is ours; functions of torch and onnx take more."""
    theirs = ("helper.", "functional.", "torch.", "super().", "FakeQuantize")
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and not any(isinstance(each, ast.Starred) for each in node.args):
                name = ast.unparse(node.func)
                assert len(node.args) <= 4 or name.startswith(theirs), f"{file}:{node.lineno} {name}"


def test_the_top_level_stays_small() -> None:
    inside = [path for path in (ROOT / "qexp").iterdir() if path.name != "__pycache__"]
    assert len([path for path in inside if path.is_dir()]) <= 20
    assert len([path for path in inside if path.suffix == ".py"]) <= 8


def test_every_stage_names_its_inputs_in_the_key() -> None:
    for file in sorted((ROOT / "qexp" / "pipeline" / "stages").glob("[!_]*.py")):
        stage = import_module(f"qexp.pipeline.stages.{file.stem}").STAGE
        parameters = inspect.signature(stage.run).parameters.values()
        assert set(stage.keys) == {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
        assert len(set(stage.keys.values())) == len(stage.keys)


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
