"""Layout of the settings of a table: few columns that distinguish its rows, without hiding a difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HEADLINE = (
    "method.kind",
    "method.ranges",
    "method.distillation",
    "calibrator.kind",
    "calibrator.weights",
    "placement.name",
    "scheme.weight.granularity",
    "scheme.weight.symmetric",
    "scheme.activation.symmetric",
    "finetune.kind",
    "data.train_rows",
)
"""Settings that get a column in this order if they differ, and are named in the caption if they do not."""
ABSENT = "-"
"""Value of a setting that a row does not have."""

Settings = Mapping[str, str]


@dataclass(frozen=True)
class SettingsLayout:
    """Settings of a table, by the place where they are shown."""

    columns: tuple[str, ...]
    """Dotted paths that get a column in addition to ``model`` and ``quant``."""
    follows: tuple[str, ...]
    """Sentences on settings that also differ, but are determined by a column."""
    common: dict[str, str]
    """Headline settings that all rows share."""


def split_settings(rows: Sequence[Settings]) -> SettingsLayout:
    """Divide the settings of a table's rows; each row also has ``model`` and ``quant``.

    A headline setting that differs gets a column. Any other setting gets a column only if no single column
    determines it: a learning rate that depends only on the model is described in a sentence instead.
    """
    paths = dict.fromkeys(path for row in rows for path in row if path not in ("model", "quant"))
    differing = [path for path in paths if len({row.get(path) for row in rows}) > 1]
    columns = [path for path in HEADLINE if path in differing]
    causes: dict[str, list[str]] = {}
    for path in (path for path in differing if path not in columns):
        cause = _cause(rows, path, columns)
        if cause is None:
            columns.append(path)
        else:
            causes.setdefault(cause, []).append(path)
    follows = tuple(_sentence(rows, cause, effects) for cause, effects in causes.items())
    shared = {path: rows[0].get(path, "null") for path in HEADLINE if rows and path not in differing}
    common = {path: value for path, value in shared.items() if value != "null"}
    return SettingsLayout(tuple(columns), follows, common)


def label(path: str) -> str:
    """Return the header of a setting, as it is written on the command line."""
    return path.removesuffix(".kind").removesuffix(".name")


def _cause(rows: Sequence[Settings], effect: str, columns: Iterable[str]) -> str | None:
    """Return the column that alone determines the setting, preferring the kind of its own section."""
    kind = f"{effect.split('.')[0]}.kind"
    candidates = dict.fromkeys((*([kind] if kind in columns else []), "quant", "model", *columns))
    relevant = rows
    if kind in columns and _determines(rows, kind, effect, presence=True):
        relevant = [row for row in rows if effect in row]
    return next((cause for cause in candidates if _determines(relevant, cause, effect)), None)


def _determines(rows: Sequence[Settings], cause: str, effect: str, *, presence: bool = False) -> bool:
    seen: dict[str, object] = {}
    for row in rows:
        value = effect in row if presence else row.get(effect)
        if seen.setdefault(row.get(cause, ABSENT), value) != value:
            return False
    return True


def _sentence(rows: Sequence[Settings], cause: str, effects: Sequence[str]) -> str:
    """Return a sentence such as ``With quant: w8a8 has method.epochs 1.0; w4a8 has method.epochs 3.0``."""
    parts: dict[str, dict[str, str]] = {}
    for row in rows:
        present = {path: row[path] for path in effects if path in row}
        parts.setdefault(row.get(cause, ABSENT), {}).update(present)
    clauses = [
        f"{value} has " + ", ".join(f"{path} {printed}" for path, printed in of_value.items())
        for value, of_value in parts.items()
        if of_value
    ]
    return f"With {label(cause)}: {'; '.join(clauses)}"
