"""Corpus BLEU as sacreBLEU computes it, and the signature to report with it."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU in percent, 0 to 100, with sacreBLEU's defaults (Post, 2018).

    Args:
        translations: Plain, detokenized texts; the empty text is allowed.
        references: One reference per translation, as in the data.

    Raises:
        ValueError: There are no translations, or the numbers of translations and references differ.
    """
    from sacrebleu.metrics.bleu import BLEU

    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations, {len(references)} references: give one for each")
    return float(BLEU().corpus_score(translations, [references]).score)


def signature() -> str:
    """Return the signature that sacreBLEU asks to report: references, case, tokens, smoothing, version."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # the number of references is unknown before a first score
    return str(metric.get_signature())
