"""Ranges that another tool found, in a file of qexp's own: JSON, with the sites that each may belong to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qexp.artifacts.disk import write_whole
from qexp.errors import QuantizationError
from qexp.quant.grid import Grid

FORMAT, VERSION = "qexp-ranges", 1


@dataclass(frozen=True)
class ImportedRange:
    """Range of one value, as its source has it.

    A source that knows its integers has ``bits``: ``x = (q - zero_point) * scale`` for ``q`` from 0 to
    ``2**bits - 1``.
    """

    name: str
    """Name in the source."""
    sites: tuple[str, ...]
    """Sites that the value may be, as ``<module>:<kind>``; the placement of a run decides which it has."""
    low: tuple[float, ...]
    """Lowest value, or one for each channel."""
    high: tuple[float, ...]
    bits: int | None = None
    """Bit-width; None if the source holds a range alone."""
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()

    @classmethod
    def of_magnitude(cls, name: str, sites: Iterable[str], magnitudes: Iterable[float]) -> ImportedRange:
        """Return a range that is symmetric around zero."""
        high = tuple(magnitudes)
        return cls(name, tuple(sites), tuple(-each for each in high), high)

    @classmethod
    def of_integers(
        cls, name: str, bits: int, scale: Iterable[float], zero_point: Iterable[int]
    ) -> ImportedRange:
        """Return a range of unsigned integers, without sites.

        With zero in their middle it is that of a signed grid, and as far below zero as above.
        """
        scales, zeros = tuple(scale), tuple(zero_point)
        symmetric = set(zeros) == {2 ** (bits - 1)}
        pairs = list(zip(scales, zeros, strict=True))
        high = tuple((2**bits - 1 - zero) * each for each, zero in pairs)
        low = tuple(-each for each in high) if symmetric else tuple(-zero * each for each, zero in pairs)
        return cls(name, (), low=low, high=high, bits=bits, scale=scales, zero_point=zeros)

    def qparams(self, grid: Grid) -> tuple[Tensor, Tensor] | None:
        """Return scale and zero point on a grid, as vectors; None if only the range can be taken over."""
        if self.bits != grid.bits:
            return None
        half = 2 ** (grid.bits - 1) if grid.signed else 0
        zero_point = torch.tensor(self.zero_point, dtype=torch.int32) - half
        if grid.symmetric and bool(zero_point.any()):
            return None
        return torch.tensor(self.scale, dtype=torch.float32), zero_point


def write_imported(file: Path, source: str, ranges: Iterable[ImportedRange]) -> None:
    """Write a ranges file atomically; ``source`` says where they come from."""
    entries = [asdict(each) for each in ranges]
    content = {"format": FORMAT, "version": VERSION, "source": source, "ranges": entries}
    write_whole(file, json.dumps(content, indent=1, allow_nan=False).encode())


def read_imported(content: bytes, name: str) -> list[ImportedRange]:
    """Return the ranges of a file.

    Raises:
        QuantizationError: It is no ranges file of this version.
    """
    try:
        tree: Mapping[str, Any] = json.loads(content)
        if (tree["format"], tree["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {tree['format']}, version {tree['version']}")
        return [
            ImportedRange(**{key: _tuple(value) for key, value in each.items()}) for each in tree["ranges"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise QuantizationError(
            f"calibrator.path={name}: no ranges file of version {VERSION} ({error}); write one "
            "with qexp import"
        ) from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
