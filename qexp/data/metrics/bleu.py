"""Corpus BLEU as sacreBLEU computes it, and the signature to report with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexp.errors import ConfigError

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

Array = NDArray[Any]
Floats = NDArray[np.float64]

ORDERS = 4
"""Length of BLEU's longest n-grams."""
DEFAULT = "13a"
"""Tokens of sacreBLEU's default, those of the script mteval-v13a."""
BLEU_METRICS: dict[str, dict[str, Any]] = {
    "bleu": {},
    "tokenized_bleu_lc": {"lowercase": True, "smooth_method": "none"},
}
"""Settings of sacreBLEU by metric, besides tokens. The second is BLEU-4 of lower-cased, tokenized texts
without smoothing, as ``multi-bleu.perl`` and fairseq's scorer compute it from such files; its tokens are
sacreBLEU's, too, which differ from those of the Moses tokenizer in rare marks (docs/translation.md)."""


def scorer(metric: str = "bleu", tokenize: str = DEFAULT, **settings: Any) -> BLEU:
    """Return sacreBLEU's object for a metric of :data:`BLEU_METRICS`.

    Args:
        metric: Name of the metric.
        tokenize: Name of sacreBLEU's tokenizer, ``task.bleu_tokenize``.
        settings: More settings of sacreBLEU.

    Raises:
        ConfigError: The tokenizer needs a package that is not installed, or a file that cannot be fetched.
    """
    from sacrebleu.metrics.bleu import BLEU

    try:
        return BLEU(tokenize=tokenize, **BLEU_METRICS[metric], **settings)
    except Exception as error:  # each tokenizer of sacreBLEU fails in its own way: no package, no network
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"task.bleu_tokenize={tokenize}: sacreBLEU cannot make this tokenizer: {why}; install what it "
            "asks for, put its file into ~/.sacrebleu, or set task.bleu_tokenize=char"
        ) from error


def bleu(
    translations: Sequence[str], references: Sequence[str], metric: str = "bleu", tokenize: str = DEFAULT
) -> float:
    """Return corpus BLEU in percent, 0 to 100, with sacreBLEU's defaults (Post, 2018) unless told otherwise.

    Args:
        translations: Plain, detokenized texts; the empty text is allowed.
        references: One reference per translation, as in the data.
        metric: Name in :data:`BLEU_METRICS`.
        tokenize: Name of sacreBLEU's tokenizer.

    Raises:
        ValueError: There are no translations, or the numbers of translations and references differ.
        ConfigError: As in :func:`scorer`.
    """
    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations, {len(references)} references: give one for each")
    return float(scorer(metric, tokenize).corpus_score(translations, [references]).score)


def signature(metric: str = "bleu", tokenize: str = DEFAULT) -> str:
    """Return the signature that sacreBLEU asks to report: references, case, tokens, smoothing, version."""
    made = scorer(metric, tokenize)
    made.corpus_score(["a"], [["a"]])  # the number of references is unknown before a first score
    return str(made.get_signature())


def n_grams(metric: str, tokenize: str, predictions: Array, labels: Array) -> Floats:
    """Return the lengths of translation and reference, then matching and all n-grams, each by order."""
    # Effective order does not change counts; it silences a warning per sentence.
    made = scorer(metric, tokenize, effective_order=True)
    scores = (
        made.sentence_score(translation, [reference])
        for translation, reference in zip(predictions, labels, strict=True)
    )
    rows = [[result.sys_len, result.ref_len, *result.counts, *result.totals] for result in scores]
    return np.array(rows, np.float64)


def bleu_of_sums(smoothing: str, sums: Floats) -> Floats:
    """Return corpus BLEU, with one of sacreBLEU's ways of smoothing."""
    from sacrebleu.metrics.bleu import BLEU

    return np.array(
        [
            BLEU.compute_bleu(
                row[2 : 2 + ORDERS], row[2 + ORDERS :], row[0], row[1], smooth_method=smoothing
            ).score
            for row in sums.astype(np.int64).tolist()
        ]
    )
