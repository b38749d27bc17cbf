"""Tests of BLEU against sacreBLEU's command line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.data.metrics.bleu import bleu, signature
from qexp.errors import ConfigError

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


def test_lower_cased_bleu_of_tokens_is_that_of_tokenized_files(tmp_path: Path) -> None:
    """As ``multi-bleu.perl`` reads them: lower-cased tokens with spaces between them, and no smoothing."""
    said = ["Der Mann läuft schnell über die Straße.", "Zwei Hunde spielen, im Gras"]
    right = ["der mann läuft über die Straße .", "Zwei hunde spielen im grünen Gras."]
    files = [
        [line.lower().replace(".", " .").replace(",", " ,") for line in lines] for lines in (said, right)
    ]
    found = bleu(*files, "bleu", "none")
    assert bleu(said, right, "tokenized_bleu_lc") == pytest.approx(found)
    assert bleu(said, right) != pytest.approx(found)
    assert bleu(["x"], ["y"], "tokenized_bleu_lc") == 0
    assert signature("tokenized_bleu_lc").startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:none|version:")


def test_a_tokenizer_that_cannot_be_made_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, **_: object) -> None:
        raise RuntimeError("\nneeds extra\n dependencies")

    monkeypatch.setattr("sacrebleu.metrics.bleu.BLEU.__init__", refuse)
    told = r"task.bleu_tokenize=ja-mecab: .* this tokenizer: needs extra dependencies; install .*=char$"
    with pytest.raises(ConfigError, match=told):
        bleu(["a"], ["a"], tokenize="ja-mecab")


def test_the_right_translation_has_100() -> None:
    lines = [line + " a b c d" for line in texts(10, 7)]
    assert bleu(lines, lines) == pytest.approx(100)


@pytest.mark.parametrize(("said", "right"), [([], []), (["a"], []), (["a"], ["b", "c"])])
def test_one_reference_for_each_translation(said: list[str], right: list[str]) -> None:
    with pytest.raises(ValueError, match="give one for each"):
        bleu(said, right)
