"""Writing systems that have no spaces between words, and how BLEU counts their words."""

from __future__ import annotations

from collections.abc import Iterable

KANA = ((0x3040, 0x30FF), (0x31F0, 0x31FF))
HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F))
UNSPACED = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))
"""Thai and Lao, Tibetan, Burmese, Khmer: blocks of Unicode."""
LEAST_SHARE = 0.5
"""Share of the letters of a language's texts that are of its own script, at least."""


def bleu_tokenizer(texts: Iterable[str]) -> str | None:
    """Return sacreBLEU's tokenizer for texts without spaces between words; None where words have them."""
    letters = [ord(letter) for text in texts for letter in text if letter.isalpha()]
    kana, han, others = (sum(_within(code, blocks) for code in letters) for blocks in (KANA, HAN, UNSPACED))
    if kana + han + others <= LEAST_SHARE * len(letters):
        return None
    if kana:
        return "ja-mecab"
    return "zh" if han > others else "flores200"


def _within(code: int, blocks: Iterable[tuple[int, int]]) -> bool:
    return any(first <= code <= last for first, last in blocks)
