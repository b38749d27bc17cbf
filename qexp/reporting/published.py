"""Numbers that others published, kept as data (``qexp/published/*.yaml``): each with its source, how far the
source was read, and what was quantized. They stand beside our rows and never go into a number of ours.
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
"""How far a number can be trusted."""
METHODS = ("none", "ptq", "qat", "unstated")
METRICS = {
    *("matthews", "accuracy", "f1", "pearson", "spearman", "exact_match", "bleu"),
    *("accuracy@matched", "accuracy@mismatched", "accuracy+f1", "pearson+spearman"),
    *("correlation", "tokenized_bleu", "unstated"),
}
"""Scores as Records name them; ``a+b`` is the mean of both; ``correlation`` is one that the source does not
name, ``unstated`` any other such number, and ``bleu`` is sacreBLEU's."""
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
"""Architecture by what a model's short name has in it; the first one found counts."""
Choice = Literal["family", "all", "none"]


@dataclass(frozen=True)
class Published:
    """One row of a published table."""

    source: str
    """Name of the work, short."""
    reference: str
    """Where the numbers stand."""
    mark: str
    """How far they can be trusted (:data:`MARKS`)."""
    sites: tuple[str, ...]
    """What was quantized, in our words for sites where there are some; ``not stated`` if not found."""
    convention: str
    """Which metric stands for a task, and how the average is taken."""
    model: str
    """Architecture (:func:`family_of`)."""
    quant: str
    """``fp32``, or the short form such as ``w4a8``."""
    method: str
    """``none``, ``ptq``, ``qat`` or ``unstated``."""
    detail: str
    """What tells it from other rows of its source; may be empty."""
    split: str
    """Rows of data that were scored, if not those of validation; else empty."""
    scores: Mapping[str, Mapping[str, float]]
    """Percent by task and metric (:data:`METRICS`)."""
    average: Mapping[str, float]
    """GLUE average by the name of its convention, as it was published; ``own`` is the source's own way."""

    @property
    def label(self) -> str:
        """``AIMET 1.27, mobilebert [P]``."""
        words = (f"{self.source}, {self.model}", self.detail, self.split and f"{self.split} rows")
        return ", ".join(word for word in words if word) + f" [{self.mark}]"

    def score(self, task: str, metrics: Sequence[str]) -> float | None:
        """The mean of these metrics, or None where the source does not have it."""
        known = self.scores.get(task, {})
        for name in ("+".join(metrics), *(["correlation"] if len(metrics) > 1 else [])):
            if name in known:
                return known[name]
        return fmean(known[name] for name in metrics) if all(name in known for name in metrics) else None

    def recomputed(self, convention: Convention) -> float | None:
        """The average by our code for the convention, or None where a task is lacking."""
        found = {task: self.score(task, metrics) for task, metrics in convention.metrics.items()}
        numbers = {task: [value] for task, value in found.items() if value is not None}
        return convention.average(numbers) if len(numbers) == len(found) else None


def shown_score(row: Published, task: str, metrics: Sequence[str]) -> str:
    """The score of a column, else all that the source has of the task, each with its metric."""
    if (number := row.score(task, metrics)) is not None:
        return score(number)
    return ", ".join(f"{score(value)} ({name})" for name, value in row.scores.get(task, {}).items()) or "-"


def shown_average(row: Published, convention: Convention) -> str:
    """The published average, else that of its tasks by our code, else one of another convention."""
    if convention.name in row.average:
        return score(row.average[convention.name])
    if (number := row.recomputed(convention)) is not None:
        return f"{score(number)} (computed)"
    return ", ".join(f"{score(value)} ({name})" for name, value in row.average.items()) or "-"


def told_of(rows: Iterable[Published]) -> tuple[str, ...]:
    """A line for each source: where it stands, how far it was read, its convention and its sites."""
    known: dict[tuple[object, ...], set[str]] = {}
    for row in rows:
        known.setdefault((row.source, row.reference, row.convention, row.sites), set()).add(row.mark)
    return tuple(
        f"published: {source} ({reference}; "
        f"{'; '.join(f'{mark}: {MARKS[mark]}' for mark in sorted(marks))}). {convention} "
        f"Quantized: {', '.join(sites)}."  # type: ignore[arg-type]
        for (source, reference, convention, sites), marks in known.items()
    )


def family_of(model: str) -> str | None:
    """Architecture of a model by its name or folder, such as ``bert-base``; None if no pattern knows it."""
    name = short_name(model).lower()
    found = ((re.search(pattern, name), family) for pattern, family in FAMILIES.items())
    return next((match.expand(family) for match, family in found if match), None)


def chosen(choice: Choice, models: Iterable[str]) -> list[Published]:
    """Published rows to show: of the architectures of these models, all, or none.

    Raises:
        DataError: a file is not of its form.
    """
    families = {family for model in models if (family := family_of(model))}
    if choice == "none" or (choice == "family" and not families):
        return []
    return [row for row in published() if choice == "all" or row.model in families]


def baseline_of(row: Published, rows: Sequence[Published]) -> Published | None:
    """The FP32 row that a source holds a quantized one against; None where it has none."""
    same = [
        each for each in rows if each.quant == "fp32" and (each.source, each.model) == (row.source, row.model)
    ]
    exact = [each for each in same if each.detail == row.detail]
    return next(iter(exact or same), None)


@cache
def published() -> tuple[Published, ...]:
    """All rows, in the order of the files.

    Raises:
        DataError: a file is not of its form; the message names the file and the field.
    """
    return tuple(row for path in sorted(FOLDER.glob("*.yaml")) for row in read_file(path))


_OF_FILE = ("source", "reference", "mark", "sites", "convention", "rows")
_OF_ROW = {"model", "quant", "method", "detail", "split", "mark", "scores", "average", "sites"}


def read_file(path: Path) -> list[Published]:
    """Rows of one file; what a row does not say is that of the file.

    Raises:
        DataError: naming the file, the field, its value and what is allowed.
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
    filled = {"detail": "", "split": "", "scores": {}, "average": {}, **common, **row, "method": method}
    metrics = ", ".join(sorted(METRICS))
    methods = method in METHODS and (method == "none") == (quant == "fp32")
    allowed = {
        "mark": (filled["mark"] in MARKS, f"one of {', '.join(MARKS)}"),
        "method": (methods, "ptq, qat or unstated; none of fp32"),
        "quant": (re.fullmatch(r"fp32|w\d+a\d+", str(quant)), "fp32, or such as w4a8"),
        "sites": (filled["sites"] and _are_texts(filled["sites"]), "a list of sites, or [not stated]"),
        "scores": (_are_scores(filled["scores"]), f"percent by task and metric: {metrics}"),
        "average": (_are_percent(filled["average"]), "percent by convention"),
    }
    texts = ("source", "reference", "convention", "model", "detail", "split")
    allowed |= {name: (isinstance(filled[name], str), "a text") for name in texts}
    for name, (right, words) in allowed.items():
        if not right:
            raise DataError(f"{place}: {name} must be {words}, found {filled[name]!r}; correct the file")
    if not filled["scores"] and not filled["average"]:
        raise DataError(f"{place}: neither scores nor an average; give one, or leave the row out")
    return Published(**{**filled, "sites": tuple(filled["sites"])})


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
