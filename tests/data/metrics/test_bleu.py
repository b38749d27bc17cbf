"""Tests of BLEU against sacreBLEU's command line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.data.metrics.bleu import bleu, signature

WORDS = (
    *("der", "die", "das", "Mann", "Frau", "läuft", "über", "grünes", "Gras"),
    *(",", ".", "1,000.5", "E-Mail", "Mädchen's"),
)


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


def official(translations: list[str], references: list[str], folder: Path) -> dict[str, object]:
    """What ``python -m sacrebleu`` says, in full precision."""
    files = {"said": translations, "right": references}
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "right", "-i", "said", "-m", "bleu", "-w", "10"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def nearly(references: list[str], seed: int) -> list[str]:
    """References with some words changed."""
    draw = random.Random(seed)
    return [
        " ".join(word if draw.random() < 0.8 else draw.choice(WORDS) for word in line.split())
        for line in references
    ]


@pytest.mark.parametrize(
    "pair",
    [
        (nearly(texts(50, 1), 2), texts(50, 1)),
        (texts(20, 3), texts(20, 4)),
        (["der Mann läuft über grünes Gras ."], ["der Mann läuft über das Gras ."]),
        (["", "", "der Mann läuft über grünes Gras ."], [*texts(2, 5), "der Mann läuft über grünes Gras ."]),
        (["", ""], texts(2, 6)),
        (["x"], ["y"]),
    ],
    ids=["near", "far", "one sentence", "some empty", "all empty", "nothing right"],
)
def test_it_is_what_the_command_line_says(pair: tuple[list[str], list[str]], tmp_path: Path) -> None:
    found = official(*pair, tmp_path)
    assert bleu(*pair) == pytest.approx(float(str(found["score"])), abs=1e-9)
    parts = dict(part.split(":") for part in signature().split("|"))
    for name, key in (("nrefs", "nrefs"), ("case", "case"), ("tok", "tok"), ("smooth", "smooth")):
        assert parts[name] == str(found[key])
    assert parts["version"] == found["version"]


def test_the_right_translation_has_100() -> None:
    lines = [line + " a b c d" for line in texts(10, 7)]
    assert bleu(lines, lines) == pytest.approx(100)


@pytest.mark.parametrize(("said", "right"), [([], []), (["a"], []), (["a"], ["b", "c"])])
def test_one_reference_for_each_translation(said: list[str], right: list[str]) -> None:
    with pytest.raises(ValueError, match="give one for each"):
        bleu(said, right)
