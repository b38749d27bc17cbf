"""docs/tutorial.md: every block runs, in order, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|bash|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\b[0-9a-f]{8}\b|[+-]?\d+(\.\d+)?x?|\bnoisy\b")


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))


def masked(line: str) -> str:
    """A line without what differs between machines: numbers, keys, spaces, doubts about a latency."""
    return " ".join(NUMBER.sub("#", line).split())


def missing(shown: str, printed: str) -> Iterator[str]:
    """Lines of a page that were not printed, in the order of the page."""
    rest = iter([masked(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line != "…" and masked(line) not in rest:
            yield line
            return


def test_lines_are_held_in_their_order_and_by_their_words() -> None:
    assert not [*missing("a 1.5x\n…\nb", "x\na  noisy\ny\nb\n")]
    assert [*missing("b\na", "a\nb\n")] == ["a"]
    assert [*missing("W8A8 is deployable", "W8A8 is not\n")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_block_runs_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    environment["QEXP_OUTPUTS"] = str(tmp_path / "outputs")
    printed, kinds = "", []
    for kind, text in blocks():
        kinds.append(kind)
        if kind == "text":
            assert not [*missing(text, printed)], printed
            continue
        command = ["bash", "-ec", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        printed = done.stderr + done.stdout
    assert kinds.count("bash") == 6 and kinds.count("text") == 3
    predictions = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(predictions) == 401
    assert (tmp_path / "tickets-int8" / "onnx" / "model_int8.onnx").is_file()
