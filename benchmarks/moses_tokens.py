"""BLEU of lower-cased tokens by sacreBLEU's ``13a`` beside that by the Moses tokenizer, as papers have it.

    python -m benchmarks.moses_tokens ../shared/data/multi30k_en_de/test.parquet de

needs ``pip install sacremoses``. Translations are the references with a share of their words exchanged.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence

import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from qexp.data.metrics.bleu import bleu

SHARES = (0.1, 0.2, 0.4)
"""Shares of words that are exchanged."""


def exchanged(texts: Sequence[str], share: float, draw: random.Random) -> list[str]:
    """Return texts with a share of their words exchanged for those of others."""
    words = [word for text in texts for word in text.split()]
    return [
        " ".join(draw.choice(words) if draw.random() < share else word for word in text.split())
        for text in texts
    ]


def moses(language: str) -> Callable[[str], str]:
    """Return a function that lower-cases a text and puts blanks between its tokens as Moses does."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer  # type: ignore[import-not-found, unused-ignore]

    normalizer, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)

    def tokenized(text: str) -> str:
        plain = normalizer.normalize(text.lower())
        return str(tokenizer.tokenize(plain, return_str=True, escape=False))

    return tokenized


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many rows have the same tokens, and both BLEUs for each share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", help="Parquet file with the references")
    parser.add_argument("column", help="column of the references, and its language")
    given = parser.parse_args(arguments)
    texts: list[str] = pq.read_table(given.file)[given.column].to_pylist()
    tokenized, standard, draw = moses(given.column), Tokenizer13a(), random.Random(0)
    same = sum(tokenized(text) == standard(text.lower()) for text in texts)
    print(f"{same} of {len(texts)} rows have the same tokens")
    for share in SHARES:
        said = exchanged(texts, share, draw)
        theirs = bleu([*map(tokenized, said)], [*map(tokenized, texts)], "tokenized_bleu_lc", "none")
        ours = bleu(said, texts, "tokenized_bleu_lc")
        print(f"{share:.0%} of the words exchanged: Moses {theirs:.2f}, 13a {ours:.2f}")


if __name__ == "__main__":
    main()
