"""BLEU as sacreBLEU computes it, with the signature that says how."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus in percent, 0 to 100, with sacreBLEU's defaults (Post, 2018).

    Args:
        translations: Plain texts, detokenized; the empty text is allowed.
        references: One for each, as they are in the data.

    Raises:
        ValueError: None at all, or not as many of one as of the other.
    """
    from sacrebleu.metrics.bleu import BLEU

    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations, {len(references)} references: give one for each")
    return float(BLEU().corpus_score(translations, [references]).score)


def signature() -> str:
    """What sacreBLEU asks to be reported with a score: references, case, tokens, smoothing, version."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # before a first score, it does not know the number of references
    return str(metric.get_signature())
