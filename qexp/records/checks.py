"""Structural checks of a Record's fields: types only, not the meaning of the values.

The checks are plain functions because a report reads thousands of Records and must start without delay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from qexp.errors import StoreError

Check = Callable[[Any], bool]

_LARGEST = sys.float_info.max


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _are_numbers(values: Collection[Any], *types: type) -> bool:
    """Check many values at once, as a Record has thousands; values of ``types`` are allowed, too."""
    if not {*map(type, values)} <= {int, float, *types}:
        return False
    numbers = [value for value in values if value is not None] if types else values
    return not numbers or (min(numbers) >= -_LARGEST and max(numbers) <= _LARGEST)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(time_of(value))
    except ValueError:
        return False


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _items(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and _are_numbers(value)


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and _are_numbers(value.values(), type(None))


def _has(**checks: Check) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and check(value[name]) for name, check in checks.items())
    )


_anything: Check = lambda value: True  # noqa: E731
FORM: dict[str, tuple[Check, str]] = {
    "key": (_is_text, "a string"),
    "status": (lambda value: value in ("ok", "failed"), "ok or failed"),
    "experiment": (_each(_anything), "an object"),
    "started": (_is_time, "an ISO 8601 time"),
    "finished": (_is_time, "an ISO 8601 time"),
    "recipe": (_optional(_is_text), "null or a string"),
    "overrides": (_optional(_items(_is_text)), "null, or a list of strings"),
    "labels": (_each(_anything), "an object"),
    "error": (_optional(_has(type=_is_text, message=_is_text)), "null, or type and message"),
    "data": (_optional(_has(source=_is_text, fingerprint=_is_text)), "null, or source and fingerprint"),
    "model": (_optional(_each(_is_text)), "null, or strings by name"),
    "scores": (_each(_each(_optional(_is_number))), "numbers or null by stage and metric"),
    "scoring": (_each(_each(_anything)), "objects by stage and split"),
    "shifts": (_each(_each(_each(_anything))), "objects by model and split"),
    "intervals": (_each(_each(_is_range)), "numbers or null by stage and metric"),
    "caveats": (_each(_each(_is_text)), "strings by stage and metric"),
    "parity": (
        _optional(_has(passed=lambda value: isinstance(value, bool))),
        "null, or an object with passed true or false",
    ),
    "latency": (_optional(_each(_each(_each(_is_number)))), "null, or numbers by graph and batch size"),
    "host": (_optional(_each(_anything)), "null or an object"),
    "engines": (_each(_each(_each(_anything))), "objects by engine and part"),
    "bytes": (_optional(_each(_is_number)), "null, or numbers by graph"),
    "sites": (_optional(_each(_anything)), "null or an object"),
    "curves": (
        _each(_has(step=_is_list_of_numbers, loss=_is_list_of_numbers)),
        "objects with lists step and loss by training",
    ),
    "selection": (
        _each(_has(step=_is_list_of_numbers, score=_items(_optional(_is_number)), kept=_is_list_of_numbers)),
        "objects with lists step, score and kept by training",
    ),
    "ranges": (_each(_each(_is_range)), "numbers by stage and quantizer"),
    "outliers": (
        _optional(
            _each(
                _has(
                    size=_is_number,
                    count=_is_number,
                    dimensions=_is_list_of_numbers,
                    low=_is_list_of_numbers,
                    high=_is_list_of_numbers,
                    others_low=_is_number,
                    others_high=_is_number,
                )
            )
        ),
        "null, or objects with size, count, others_low, others_high and lists dimensions, low and high by "
        "quantizer",
    ),
    "sweep": (_optional(_has(name=_is_text, id=_is_text, job=_is_number)), "null, or name, id and job"),
    "stages": (_items(_each(_anything)), "a list of objects"),
    "versions": (_each(_is_text), "strings by name"),
    "git": (_optional(_each(_anything)), "null or an object"),
    "warnings": (_items(_is_text), "a list of strings"),
}
"""Check of each field, and its description for messages; a test compares the names with those of Record."""


def check_form(tree: Mapping[str, Any], required: Sequence[str]) -> None:
    """Check the types of a Record's fields, as read from JSON.

    Raises:
        StoreError: Required fields are missing, or a field has the wrong type; the message names them.
    """
    absent = [name for name in required if name not in tree]
    if absent:
        raise StoreError(f"not a Record: without {', '.join(absent)}")
    for name, value in tree.items():
        check, expected = FORM[name]
        if not check(value):
            shown = json.dumps(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            raise StoreError(f"not a Record: {name} must be {expected}, found {shown}")


def time_of(text: str) -> datetime:
    """Parse ISO 8601 text to a time with a zone, UTC by default.

    Raises:
        ValueError: The text is not an ISO 8601 time.
    """
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
