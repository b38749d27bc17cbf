"""Published results of others, stored as data (``qexp/reporting/published/*.yaml``).

Each has its source, how far the source was read, and what was quantized. They are shown beside the rows of
Records and never enter a number computed from Records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from qexp.errors import DataError
from qexp.reporting.attempts import short_name
from qexp.reporting.glue import Convention
from qexp.reporting.table import score

FOLDER = Path(__file__).resolve().parent / "published"
MARKS = {
    "P": "read in the primary source",
    "S": "quoted from the source by another text",
    "M": "from memory, unverified",
    "C": "computed here from the numbers that the source has",
}
"""Trustworthiness of a number, by its mark."""
METHODS = ("none", "ptq", "qat", "unstated")
METRICS = {
    *("matthews", "accuracy", "f1", "pearson", "spearman", "exact_match", "bleu"),
    *("accuracy@matched", "accuracy@mismatched", "accuracy+f1", "pearson+spearman"),
    *("correlation", "tokenized_bleu", "tokenized_bleu_lc", "unstated"),
}
"""Scores as Records name them. ``a+b`` is the mean of both, ``correlation`` is one that the source does not
name, ``unstated`` is any other unnamed metric, ``bleu`` is sacreBLEU's, ``tokenized_bleu`` that of cased
tokens, and ``tokenized_bleu_lc`` that of lower-cased ones."""
FAMILIES = {
    r"mobilebert": "mobilebert",
    r"distilbert": "distilbert-base",
    r"roberta[-_]base": "roberta-base",
    r"roberta[-_]large": "roberta-large",
    r"minilm[-_]l(6|12)": r"minilm-l\1",
    r"bert_uncased_l-2_h-128_": "bert-tiny",
    r"bert_uncased_l-4_h-256_": "bert-mini",
    r"bert_uncased_l-4_h-512_": "bert-small",
    r"(?<![a-z])bert[-_](tiny|mini|small|base|large)": r"bert-\1",
    r"transformer[-_](tiny|base|big)": r"transformer-\1",
}
"""Architecture by a pattern in a model's short name; the first match counts."""
Choice = Literal["family", "all", "none"]


@dataclass(frozen=True)
class Published:
    """One row of a published table."""

    source: str
    """Short name of the work."""
    reference: str
    """Place of the numbers in the source."""
    mark: str
    """Trustworthiness of the numbers (:data:`MARKS`)."""
    sites: tuple[str, ...]
    """Quantized sites, by this project's names where it has some; ``not stated`` if not found."""
    convention: str
    """Metric of each task, and how the average is taken."""
    model: str
    """Architecture (:func:`family_of`)."""
    quant: str
    """``fp32``, or the short form such as ``w4a8``."""
    method: str
    """``none``, ``ptq``, ``qat`` or ``unstated``."""
    detail: str
    """What distinguishes it from other rows of its source; may be empty."""
    split: str
    """Split that was scored, if not validation; else empty."""
    scores: Mapping[str, Mapping[str, float]]
    """Scores in percent, by task and metric (:data:`METRICS`)."""
    average: Mapping[str, float]
    """Published GLUE average by the name of its convention; ``own`` is the source's own way."""

    @property
    def label(self) -> str:
        """Label such as ``AIMET 1.27, mobilebert [P]``."""
        parts = (f"{self.source}, {self.model}", self.detail, self.split and f"{self.split} rows")
        return ", ".join(part for part in parts if part) + f" [{self.mark}]"

    def score(self, task: str, metrics: Sequence[str]) -> float | None:
        """Return the mean of the metrics, or None if the source does not have it."""
        scores = self.scores.get(task, {})
        for name in ("+".join(metrics), *(["correlation"] if len(metrics) > 1 else [])):
            if name in scores:
                return scores[name]
        return fmean(scores[name] for name in metrics) if all(name in scores for name in metrics) else None

    def recomputed(self, convention: Convention) -> float | None:
        """Return the average as recomputed by the convention, or None if a task is missing."""
        scores = {task: self.score(task, metrics) for task, metrics in convention.metrics.items()}
        numbers = {task: [value] for task, value in scores.items() if value is not None}
        return convention.average(numbers) if len(numbers) == len(scores) else None


def shown_score(row: Published, task: str, metrics: Sequence[str]) -> str:
    """Format the score of a column, or else every score of the task in the source, each with its metric."""
    if (number := row.score(task, metrics)) is not None:
        return score(number)
    return ", ".join(f"{score(value)} ({name})" for name, value in row.scores.get(task, {}).items()) or "-"


def shown_average(row: Published, convention: Convention) -> str:
    """Format the published average, or else the recomputed one, or else those by other conventions."""
    if convention.name in row.average:
        return score(row.average[convention.name])
    if (number := row.recomputed(convention)) is not None:
        return f"{score(number)} (computed)"
    return ", ".join(f"{score(value)} ({name})" for name, value in row.average.items()) or "-"


def source_notes(rows: Iterable[Published]) -> tuple[str, ...]:
    """Return a note for each source: its reference, how far it was read, its convention and its sites."""
    marks_by_source: dict[tuple[object, ...], set[str]] = {}
    for row in rows:
        marks_by_source.setdefault((row.source, row.reference, row.convention, row.sites), set()).add(
            row.mark
        )
    return tuple(
        f"published: {source} ({reference}; "
        f"{'; '.join(f'{mark}: {MARKS[mark]}' for mark in sorted(marks))}). {convention} "
        f"Quantized: {', '.join(sites)}."  # type: ignore[arg-type]
        for (source, reference, convention, sites), marks in marks_by_source.items()
    )


def family_of(model: str) -> str | None:
    """Return the architecture of a model, such as ``bert-base``, by its name or folder; None if unknown."""
    name = short_name(model).lower()
    matches = ((re.search(pattern, name), family) for pattern, family in FAMILIES.items())
    return next((match.expand(family) for match, family in matches if match), None)


def chosen(choice: Choice, models: Iterable[str]) -> list[Published]:
    """Return the published rows to show: of the models' architectures, all, or none.

    Raises:
        DataError: If a file is malformed.
    """
    families = {family for model in models if (family := family_of(model))}
    if choice == "none" or (choice == "family" and not families):
        return []
    return [row for row in published() if choice == "all" or row.model in families]


def baseline_of(row: Published, rows: Sequence[Published]) -> Published | None:
    """Return the FP32 row that a source compares a quantized one with, or None if it has none."""
    same = [
        each for each in rows if each.quant == "fp32" and (each.source, each.model) == (row.source, row.model)
    ]
    exact = [each for each in same if each.detail == row.detail]
    return next(iter(exact or same), None)


@cache
def published() -> tuple[Published, ...]:
    """Load all rows, in the order of the files.

    Raises:
        DataError: If a file is malformed; the message names the file and the field.
    """
    return tuple(row for path in sorted(FOLDER.glob("*.yaml")) for row in read_file(path))


_OF_FILE = ("source", "reference", "mark", "sites", "convention", "rows")
_OF_ROW = {"model", "quant", "method", "detail", "split", "mark", "scores", "average", "sites"}


def read_file(path: Path) -> list[Published]:
    """Load the rows of one file; fields that a row omits are taken from the file.

    Raises:
        DataError: If the file is malformed; the message names the file, the field, its value and what is
            allowed.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error}); correct the file") from None
    if not isinstance(tree, dict) or set(tree) != set(_OF_FILE):
        raise DataError(f"{path}: expected exactly the fields {', '.join(_OF_FILE)}; correct the file")
    common = {name: tree[name] for name in _OF_FILE if name != "rows"}
    return [_row(row, common, f"{path}: rows[{index}]") for index, row in enumerate(tree["rows"])]


def _row(row: Any, common: Mapping[str, Any], place: str) -> Published:
    if not isinstance(row, dict) or not {"model", "quant"} <= set(row) <= _OF_ROW:
        raise DataError(f"{place}: expected model, quant and some of {', '.join(sorted(_OF_ROW))}")
    quant = row["quant"]
    method = row.get("method", "none" if quant == "fp32" else None)
    fields = {"detail": "", "split": "", "scores": {}, "average": {}, **common, **row, "method": method}
    metrics = ", ".join(sorted(METRICS))
    methods = method in METHODS and (method == "none") == (quant == "fp32")
    allowed = {
        "mark": (fields["mark"] in MARKS, f"one of {', '.join(MARKS)}"),
        "method": (methods, "ptq, qat or unstated; none of fp32"),
        "quant": (re.fullmatch(r"fp32|w\d+a\d+", str(quant)), "fp32, or such as w4a8"),
        "sites": (fields["sites"] and _are_texts(fields["sites"]), "a list of sites, or [not stated]"),
        "scores": (_are_scores(fields["scores"]), f"percent by task and metric: {metrics}"),
        "average": (_are_percent(fields["average"]), "percent by convention"),
    }
    texts = ("source", "reference", "convention", "model", "detail", "split")
    allowed |= {name: (isinstance(fields[name], str), "a text") for name in texts}
    for name, (valid, expected) in allowed.items():
        if not valid:
            raise DataError(f"{place}: {name} must be {expected}, found {fields[name]!r}; correct the file")
    if not fields["scores"] and not fields["average"]:
        raise DataError(f"{place}: neither scores nor an average; give one, or leave the row out")
    return Published(**{**fields, "sites": tuple(fields["sites"])})


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_percent(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(number, int | float) and -100 <= number <= 100 for number in value.values()
    )


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _are_percent(of_task) and set(of_task) <= METRICS for of_task in value.values()
    )
