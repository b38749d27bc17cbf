"""What all sections have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FLOAT_BITS = 32
"""The bit-width that means "not quantized"."""

Bits = Annotated[int, Field(ge=2, le=FLOAT_BITS)]


class Section(BaseModel):
    """Base of all sections: frozen, and closed to fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def refuse_unused(section: Section, fields: Sequence[str], because: str, instead: str) -> None:
    """Refuse fields that were changed although another choice leaves them unread.

    Args:
        section: Where they stand.
        fields: Their names.
        because: The choice, such as ``ranges=frozen``.
        instead: The choice that reads them.

    Raises:
        ValueError: one of them is not its default.
    """
    for name in fields:
        value, default = getattr(section, name), type(section).model_fields[name].default
        if value != default:
            raise ValueError(
                f"{name}={value} with {because}: nothing reads it; leave it at {default}, or choose {instead}"
            )


def known_width(bits: int | None) -> int | None:
    """Bits that a grid can have, or floating point; null stays null.

    Raises:
        ValueError: between 16 and 32 bits.
    """
    if bits is not None and 16 < bits < FLOAT_BITS:
        raise ValueError(f"{bits} bits: allowed are 2 to 16, or {FLOAT_BITS} for floating point")
    return bits
