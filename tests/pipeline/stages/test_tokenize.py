"""The tokenization stage: its artifact and its threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.artifacts import BuildDir
from qexp.artifacts.types import Tokens
from qexp.context import RunContext
from qexp.data.checkpoints import locate
from qexp.data.sources.resolve import resolve
from qexp.data.tokenization.texts import TokenSplit
from qexp.pipeline.stages import tokenize
from tests.conftest import experiment


def prepared(checkpoint: Path, folder: Path, *words: str) -> Tokens:
    """The artifact's folder, as the stage leaves it."""
    asked = experiment(
        "task=mrpc", "data=sample", f"model.name={checkpoint}", "machine.progress=false", *words
    )
    rows = resolve(asked.data, asked.task)
    folder.mkdir()
    runtime = RunContext.at(folder, asked.machine)
    tokenize.run(BuildDir(folder), runtime, rows=rows, checkpoint=locate(asked.model), task=asked.task)
    return Tokens(folder, "")


def test_every_split_has_its_rows_and_its_count_of_cut_rows(tiny_bert: Path, tmp_path: Path) -> None:
    tokens = prepared(tiny_bert, tmp_path / "long")
    short = prepared(tiny_bert, tmp_path / "short", "task.max_length=20")
    assert tokens.facts["rows"] == {"train": 1600, "validation": 400}
    assert set(tokens.facts["preparation"]) == {"train", "validation"}
    for name in ("train", "validation"):
        split, cut = TokenSplit.load(tokens.split(name)), TokenSplit.load(short.split(name))
        assert len(split) == tokens.facts["rows"][name]
        counted = short.facts["preparation"][name]["truncated"]
        assert cut.truncated == counted == (split.lengths > 20).sum() > 0
    assert tokens.pad_id == 0


def test_the_saved_tokenizer_is_that_of_the_checkpoint(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokens = prepared(tiny_bert, tmp_path / "tokens", "task.max_length=16")
    saved, source = (AutoTokenizer.from_pretrained(folder) for folder in (tokens.tokenizer, tiny_bert))
    assert saved.backend_tokenizer.to_str() == source.backend_tokenizer.to_str()


@pytest.mark.parametrize(("said", "words", "expected"), [
    (None, [], None),
    (None, ["machine.threads=3"], "3"),
    ("5", ["machine.threads=3"], "5"),
])  # fmt: skip
def test_configured_threads_reach_the_tokenizer(
    said: str | None, words: list[str], expected: str | None,
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RAYON_NUM_THREADS", said or "")
    if said is None:
        monkeypatch.delenv("RAYON_NUM_THREADS")
    prepared(tiny_bert, tmp_path / "tokens", *words)
    assert os.environ.get("RAYON_NUM_THREADS") == expected


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_the_tokenizer_reads_its_threads_when_it_is_first_used() -> None:
    code = """
import os
from tokenizers import Tokenizer, models
tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
os.environ["RAYON_NUM_THREADS"] = "3"
before = len(os.listdir("/proc/self/task"))
tokenizer.encode_batch_fast(["a"] * 100)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"
