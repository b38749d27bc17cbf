"""``benchmarks.moses_tokens``: exchanged words, tokens as Moses has them, and what is printed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]
import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from benchmarks import moses_tokens
from benchmarks.moses_tokens import SHARES, exchanged, main, moses

TEXTS = ["Zwei Männer sitzen in Blau am 3. Mai.", "Ein Hund läuft schnell.", "Die Frau hält z.B. einen Ball."]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_words_becomes_words_of_the_texts(share: float) -> None:
    texts = TEXTS * 50
    found = exchanged(texts, share, random.Random(0))
    pairs = [
        (old, new)
        for before, after in zip(texts, found, strict=True)
        for old, new in zip(before.split(), after.split(), strict=True)
    ]
    assert {new for _, new in pairs} <= {old for old, _ in pairs}
    words = len({old for old, _ in pairs})
    assert sum(old != new for old, new in pairs) / len(pairs) == pytest.approx(
        share * (1 - 1 / words), abs=0.05
    )


def test_moses_keeps_abbreviations_and_parts_quotes() -> None:
    pytest.importorskip("sacremoses", reason="sacremoses is not installed: pip install qexp[marian]")
    assert moses("de")("Ein „Hund“ läuft, z.B. am 3. Mai.") == 'ein " hund " läuft , z.b. am 3. mai .'
    assert moses("en")("They don't run.") == "they don 't run ."


def test_where_both_have_the_same_tokens_both_have_the_same_bleu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    standard, file = Tokenizer13a(), tmp_path / "rows.parquet"
    monkeypatch.setattr(moses_tokens, "moses", lambda language: lambda text: standard(text.lower()))
    pq.write_table(pa.table({"de": TEXTS * 20}), file)
    main([str(file), "de"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "60 of 60 rows have the same tokens"
    figures = [re.findall(r"\d+\.\d\d", line) for line in lines]
    assert all(theirs == ours for theirs, ours in figures) and len(figures) == len(SHARES)
    assert 100 > float(figures[0][0]) > float(figures[1][0]) > float(figures[2][0]) > 0
