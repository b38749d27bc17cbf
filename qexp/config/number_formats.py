"""Floating-point formats of quantized values, and which bit-widths go with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from qexp.config.base import FLOAT_BITS

NumberFormat = Literal["fp8_e4m3", "fp8_e5m2", "mxfp8", "nvfp4"]
"""8-bit floats with one scale for a tensor or channel; E4M3 with a power of two for each 32 neighbours; E2M1
with a scale in E4M3 for each 16 neighbours, and one for the tensor."""
BITS_OF: Mapping[NumberFormat, int] = {"fp8_e4m3": 8, "fp8_e5m2": 8, "mxfp8": 8, "nvfp4": 4}
"""Bits of a value."""
IN_BLOCKS: tuple[NumberFormat, ...] = ("mxfp8", "nvfp4")
"""Formats that have a scale for each block of neighbours, found at run time."""


def check_formats(
    widths: Mapping[str, tuple[int, NumberFormat | None]], others: Iterable[tuple[str, int | None]]
) -> None:
    """Check that bit-widths are those of the formats, and that no product has integers and floats.

    Args:
        widths: Bits and format of ``weight`` and ``activation``.
        others: Name and bits of settings for some of the weights or activations.

    Raises:
        ValueError: They are not, or such a setting asks for integers beside floats.
    """
    formats = {name: kind for name, (_, kind) in widths.items() if kind is not None}
    if not formats:
        return
    for name, kind in formats.items():
        if widths[name][0] != BITS_OF[kind]:
            raise ValueError(
                f"{name}_format={kind} with {name}_bits={widths[name][0]}: its values have {BITS_OF[kind]} "
                f"bits; use {name}_bits={BITS_OF[kind]}, or {name}_format=null"
            )
    first = ", ".join(f"{name}_format={kind}" for name, kind in formats.items())
    for name, (bits, own_format) in widths.items():
        if own_format is None and bits != FLOAT_BITS:
            raise ValueError(
                f"{first} with {name}_bits={bits} and {name}_format=null: nothing multiplies floats by "
                f"integers; choose {name}_format too, or {name}_bits={FLOAT_BITS}"
            )
    for name, own in others:
        if own not in (None, FLOAT_BITS):
            raise ValueError(
                f"{name}={own} with {first}: formats of floats are those of all sites; use {FLOAT_BITS} to "
                "leave some in floating point, or null"
            )
