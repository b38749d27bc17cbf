"""What all sections have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FLOAT_BITS = 32
"""The bit-width that means "not quantized"."""

Bits = Annotated[int, Field(ge=2, le=FLOAT_BITS)]


class Section(BaseModel):
    """Base of all sections: frozen, and closed to fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
