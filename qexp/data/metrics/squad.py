"""Exact match and F1 of SQuAD v1.1 and v2.0, in percent, as the official scripts define them.

Two answers match exactly if their texts are equal after normalization, which ignores case, ASCII punctuation,
the articles a, an and the, and the amount of white space. F1 compares their words as bags. With several gold
answers, the best one counts, for each of the two metrics separately.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize(text: str) -> str:
    """Return an answer as lower-case words, separated by one space, without punctuation and articles."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score_v1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Compute the scores of SQuAD v1.1, where every question has an answer.

    Two answers without any word, such as "the" and "a", match exactly and have F1 0, as officially defined.

    Args:
        predictions: One answer per question; the empty text for a question that was not answered.
        golds: Gold answers of each question, at least one.

    Returns:
        ``exact_match`` and ``f1``, means over the questions.

    Raises:
        ValueError: Lengths differ, there is no question, or a question has no gold answer.
    """
    _check(predictions, golds)
    for number, texts in enumerate(golds):
        if not texts:
            raise ValueError(f"golds[{number}] is empty; v1.1 has answers only: use score_v2 for such rows")
    exact, f1 = _scores(predictions, golds, empty_f1=0.0)
    return {"exact_match": _percent(exact), "f1": _percent(f1)}


def score_v2(
    predictions: Sequence[str],
    golds: Sequence[Sequence[str]],
    no_answer_probabilities: Sequence[float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Compute the scores of SQuAD v2.0, where the right answer to some questions is the empty text.

    A question has an answer if its list of gold answers is not empty; gold answers without any word count as
    the empty text. The best thresholds are found by visiting the questions in ascending order of probability
    (ties in their order) and answering one more at each step. As in the official script, the best point may
    lie between questions of equal probability, a question without answer costs one point even if its
    prediction is "the", and the threshold is 0 where it is best to answer nothing.

    Args:
        predictions: One answer per question, empty for none.
        golds: Gold answers of each question; an empty list where there is none.
        no_answer_probabilities: Probability that a question has no answer, [questions].
        threshold: With probabilities: value above which no answer is predicted, whatever the prediction.

    Returns:
        ``exact``, ``f1`` and ``total``; the same over the questions with an answer (``HasAns_...``) and
        without one (``NoAns_...``), if there are any; with probabilities also the best scores over all
        thresholds, ``best_exact`` and ``best_f1``, and their thresholds, ``best_exact_thresh`` and
        ``best_f1_thresh``.

    Raises:
        ValueError: Lengths differ, there is no question, or a probability is not a finite number.
    """
    _check(predictions, golds)
    probabilities = [0.0] * len(golds) if no_answer_probabilities is None else list(no_answer_probabilities)
    _check_probabilities(probabilities, len(golds))
    answered = [bool(texts) for texts in golds]
    texts = [[text for text in row if normalize(text)] or [""] for row in golds]
    raw = _scores(predictions, texts, empty_f1=1.0)
    exact, f1 = (_thresholded(scores, probabilities, answered, threshold) for scores in raw)
    result = {**_means(exact, f1, ""), **_breakdown(exact, f1, answered)}
    if no_answer_probabilities is not None:
        for name, scores in zip(("exact", "f1"), raw, strict=True):
            best, best_threshold = _best(scores, predictions, probabilities, answered)
            result |= {f"best_{name}": best, f"best_{name}_thresh": best_threshold}
    return result


def _check(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(golds) or not len(golds):
        raise ValueError(f"{len(predictions)} predictions, {len(golds)} golds: give one of each for > 0 rows")


def _check_probabilities(probabilities: list[float], questions: int) -> None:
    if len(probabilities) != questions:
        raise ValueError(f"{len(probabilities)} no_answer_probabilities for {questions} questions")
    for number, value in enumerate(probabilities):
        if not math.isfinite(value):
            raise ValueError(f"no_answer_probabilities[{number}]={value}: must be a finite number")


def _scores(
    predictions: Sequence[str], golds: Sequence[Sequence[str]], *, empty_f1: float
) -> tuple[list[float], list[float]]:
    """Return exact match and F1 of each question, 0 to 1; ``empty_f1``: F1 of two answers without words."""
    exact, f1 = [], []
    for prediction, texts in zip(predictions, golds, strict=True):
        answer, gold_answers = normalize(prediction), {normalize(text) for text in texts}
        exact.append(float(answer in gold_answers))
        words = answer.split()
        f1.append(max(_f1(words, text.split(), empty_f1) for text in gold_answers))
    return exact, f1


def _f1(words: list[str], gold: list[str], empty: float) -> float:
    """Return the harmonic mean of precision and recall of a bag of words."""
    if not words and not gold:
        return empty
    shared = sum((Counter(words) & Counter(gold)).values())
    return 2 * shared / (len(words) + len(gold))


def _thresholded(
    scores: list[float], probabilities: list[float], answered: list[bool], threshold: float
) -> list[float]:
    rows = zip(scores, probabilities, answered, strict=True)
    return [float(not answer) if probability > threshold else score for score, probability, answer in rows]


def _percent(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / len(scores)


def _means(exact: list[float], f1: list[float], prefix: str) -> dict[str, float]:
    return {f"{prefix}exact": _percent(exact), f"{prefix}f1": _percent(f1), f"{prefix}total": len(exact)}


def _breakdown(exact: list[float], f1: list[float], answered: list[bool]) -> dict[str, float]:
    """Return the scores of questions with and without an answer, separately, where there are such."""
    result: dict[str, float] = {}
    for prefix, kind in (("HasAns_", True), ("NoAns_", False)):
        rows = [number for number, answer in enumerate(answered) if answer is kind]
        if rows:
            result |= _means([exact[row] for row in rows], [f1[row] for row in rows], prefix)
    return result


def _best(
    scores: list[float], predictions: Sequence[str], probabilities: list[float], answered: list[bool]
) -> tuple[float, float]:
    """Return the best score over all thresholds, in percent, and its threshold."""
    total = best = float(answered.count(False))
    threshold = 0.0
    for row in sorted(range(len(scores)), key=probabilities.__getitem__):
        total += scores[row] if answered[row] else -bool(predictions[row])
        if total > best:
            best, threshold = total, probabilities[row]
    return 100 * best / len(scores), threshold
