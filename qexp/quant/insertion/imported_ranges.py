"""Ranges of another tool on the quantizers of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qexp.config import ImportedCalibrator
from qexp.errors import QuantizationError
from qexp.quant.calibration.imported import ImportedRange, read_imported
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.messages import listed
from qexp.quant.quantizer import Quantizer

SAME = 1e-6
"""Largest relative difference of ranges that count as one."""


def import_ranges(quantization: QuantizedModel, calibrator: ImportedCalibrator) -> dict[str, Any]:
    """Set the ranges of a calibrated model to imported ones where there are any, and tell which.

    Returns:
        ``imported``: name in the source by quantizer. ``rounded``: quantizers whose grid cannot hold the
        source's integers, so that only the range was taken. ``calibrated``: quantizers that keep their
        calibrated range. ``unused``: names of ranges of no quantizer.

    Raises:
        QuantizationError: The file is missing, changed or damaged; or ranges and quantizers do not belong
            together, and the calibrator's options do not allow it.
    """
    ranges = read_imported(_content(calibrator), calibrator.path)
    found, unused = _assigned(quantization, ranges)
    fixed = {name for name, each in quantization.quantizers.items() if each.values == "softmax"}
    needed = {name for name, each in quantization.quantizers.items() if not each.grid.dynamic}
    missing = [name for name in quantization.quantizers if name in needed - fixed - found.keys()]
    if missing and calibrator.missing == "refuse":
        raise QuantizationError(
            f"calibrator.path={calibrator.path}: no range for {len(missing)} quantizers: "
            f"{listed(missing)}; drop their sites from placement.sites, name the layers in "
            "placement.exclude, or set calibrator.missing=calibrate"
        )
    if unused and calibrator.unused == "refuse":
        raise QuantizationError(
            f"calibrator.path={calibrator.path}: {len(unused)} ranges belong to no quantizer: "
            f"{listed(unused)}; add their sites to placement.sites, check model.name, or set "
            "calibrator.unused=ignore"
        )
    rounded = [name for name, each in found.items() if _is_rounded(quantization.quantizers[name], each)]
    return {
        "imported": {name: each.name for name, each in found.items()},
        "rounded": rounded,
        "calibrated": missing,
        "unused": unused,
    }


def _content(calibrator: ImportedCalibrator) -> bytes:
    try:
        content = Path(calibrator.path).expanduser().read_bytes()
    except OSError as error:
        raise QuantizationError(
            f"calibrator.path={calibrator.path}: cannot be read ({error.strerror}); write it again "
            "with qexp import"
        ) from error
    if hashlib.sha256(content).hexdigest() != calibrator.sha256:
        raise QuantizationError(
            f"calibrator.path={calibrator.path}: changed since the run began; start the run again"
        )
    return content


def _assigned(
    quantization: QuantizedModel, ranges: Sequence[ImportedRange]
) -> tuple[dict[str, ImportedRange], list[str]]:
    """Set the ranges, and return them by quantizer, and the names of those that belong to none."""
    owners = {
        f"{site.module}:{site.kind}": site.quantizer
        for site in quantization.sites
        if not quantization.quantizers[site.quantizer].grid.dynamic
    }
    found: dict[str, ImportedRange] = {}
    unused = []
    for each in ranges:
        names = {owner for site in each.sites if (owner := _owner(site, owners)) is not None}
        if not names:
            unused.append(each.name)
        for name in sorted(names):
            if name in found:
                _check_same(name, found[name], each)
            else:
                found[name] = each
                _set(quantization.quantizers[name], each)
    return found, unused


def _owner(site: str, owners: dict[str, str]) -> str | None:
    """Return the quantizer of a site, also where one of the two models has a name in front of its modules."""
    if site in owners:
        return owners[site]
    endings = [
        owner for known, owner in owners.items() if known.endswith(f".{site}") or site.endswith(f".{known}")
    ]
    return endings[0] if len(set(endings)) == 1 else None


def _check_same(name: str, first: ImportedRange, second: ImportedRange) -> None:
    left, right = (torch.tensor([each.low, each.high], dtype=torch.float64) for each in (first, second))
    if left.shape != right.shape or not torch.allclose(left, right, rtol=SAME, atol=0):
        raise QuantizationError(
            f"{first.name} and {second.name}: two ranges of one value, {first.low[:3]} to "
            f"{first.high[:3]} and {second.low[:3]} to {second.high[:3]}; the model reads it once, so "
            "leave one in the ranges file"
        )


def _set(quantizer: Quantizer, imported: ImportedRange) -> None:
    if quantizer.members is not None:
        raise QuantizationError(
            f"{quantizer.name}: ranges of groups of dimensions cannot be imported; set "
            "scheme.activation.granularity=per_tensor"
        )
    qparams = imported.qparams(quantizer.integer_grid)
    if qparams is not None:
        quantizer.set_scale(*(_shaped(each, quantizer, imported) for each in qparams))
        return
    low, high = (torch.tensor(each, dtype=torch.float64) for each in (imported.low, imported.high))
    quantizer.set_range(_shaped(low, quantizer, imported), _shaped(high, quantizer, imported))


def _shaped(values: Tensor, quantizer: Quantizer, imported: ImportedRange) -> Tensor:
    """Return one number for each channel of the quantizer, from one or as many.

    Raises:
        QuantizationError: The numbers of channels differ.
    """
    if values.numel() not in (1, quantizer.scale.numel()):
        raise QuantizationError(
            f"{imported.name}: {values.numel()} ranges for {quantizer.scale.numel()} of {quantizer.name}; "
            "set scheme.weight.granularity as the source has it, or check model.name"
        )
    return values.expand(quantizer.scale.numel()).reshape(quantizer.scale.shape).clone()


def _is_rounded(quantizer: Quantizer, imported: ImportedRange) -> bool:
    return imported.bits is not None and imported.qparams(quantizer.integer_grid) is None
