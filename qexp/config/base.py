"""Base class and validators of all sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FLOAT_BITS = 32
"""Bit-width of a value that is not quantized."""

Bits = Annotated[int, Field(ge=2, le=FLOAT_BITS)]


def is_none(value: object) -> bool:
    """Return whether a dump leaves a field out: one that was added later, so that keys stay as they were."""
    return value is None


class Section(BaseModel):
    """Base of all sections: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def refuse_unused(section: Section, fields: Sequence[str], because: str, instead: str) -> None:
    """Reject fields that were set although another setting leaves them unused.

    Args:
        section: Section of the fields.
        fields: Names of the fields.
        because: The setting that leaves them unused, such as ``ranges=frozen``.
        instead: The setting that uses them.

    Raises:
        ValueError: A field differs from its default.
    """
    for name in fields:
        value, default = getattr(section, name), type(section).model_fields[name].default
        if value != default:
            raise ValueError(
                f"{name}={value} with {because}: nothing reads it; leave it at {default}, or choose {instead}"
            )


def check_bit_width(bits: int | None) -> int | None:
    """Return a bit-width that a grid can have, or 32 for floating point; None stays None.

    Raises:
        ValueError: The bit-width is between 16 and 32.
    """
    if bits is not None and 16 < bits < FLOAT_BITS:
        raise ValueError(f"{bits} bits: allowed are 2 to 16, or {FLOAT_BITS} for floating point")
    return bits
