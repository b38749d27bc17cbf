"""Checkpoints with integer weights, in the layout of compressed-tensors.

transformers loads them with ``from_pretrained`` where the package compressed-tensors is installed, and
:func:`load_checkpoint` without it. Weights of 8 bits are ``int-quantized``: int8 beside a scale. Weights of 2
and 4 bits are ``pack-quantized``: several in an int32 (:mod:`qexp.models.packing`). Other bit-widths are in
whole bytes, as are narrow tables. Linear layers also hold scale and zero point of their input where it has a
fixed range; a dynamic one is only named in the section. compressed-tensors then divides largest magnitudes by
127.5, where torchao and this project divide by 127.

Layout: https://github.com/vllm-project/compressed-tensors, version 0.20.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from qexp.models.integer_files import SUMMARY, WEIGHTS
from qexp.models.packing import PACKED_BITS, pack
from qexp.quant.grid import Grid
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.sites import Site, joined
from qexp.quant.insertion.weights import float_state_dict
from qexp.quant.quantizer import Quantizer

METHOD = "compressed-tensors"
WHOLE, PACKED, MIXED = "int-quantized", "pack-quantized", "mixed-precision"
WIDEST = 8
"""Most bits of a weight or an input in this layout."""


@dataclass(frozen=True)
class IntegerCheckpoint:
    """Content of a checkpoint with integer weights."""

    tensors: Mapping[str, Tensor]
    section: Mapping[str, Any]
    """Content of ``quantization_config``."""
    stored: tuple[str, ...]
    """Modules whose weight is stored in integers."""
    inputs: tuple[str, ...]
    """Modules among them that hold the range of their input, too."""
    in_float: Mapping[str, str]
    """Quantized weights that are stored in floating point, with the values of their grid, and why."""


def checkpoint_of(quantization: QuantizedModel) -> IntegerCheckpoint:
    """Return the integers of a quantized model with its ranges, on the CPU.

    The quantizers must be frozen.
    """
    tensors = {name: value.detach().cpu() for name, value in float_state_dict(quantization.model).items()}
    sites = [site for site in quantization.sites if site.is_weight]
    inputs = _inputs(quantization)
    groups: dict[str, dict[str, Any]] = {}
    in_float = {}
    for site in sites:
        name = joined(site.module, site.parameter)
        if reason := _unfit(quantization, site, sites):
            module = quantization.model.get_submodule(site.module)
            tensors[name] = getattr(module, site.parameter).detach().cpu().clone()
            in_float[name] = reason
            continue
        del tensors[name]
        stored, scheme = _stored(quantization, site)
        read = inputs.get(site.module)
        tensors |= {f"{site.module}.{key}": value for key, value in stored.items()}
        if read is not None:
            tensors |= {f"{site.module}.{key}": value for key, value in _input_tensors(read).items()}
        scheme["input_activations"] = None if read is None else _arguments(read.integer_grid)
        group = groups.setdefault(json.dumps(scheme, sort_keys=True), scheme | {"targets": []})
        group["targets"].append(site.module)
    modules = tuple(module for group in groups.values() for module in group["targets"])
    return IntegerCheckpoint(
        tensors={name: value.contiguous() for name, value in tensors.items()},
        section=_section(list(groups.values())),
        stored=modules,
        inputs=tuple(module for module in modules if module in inputs),
        in_float=in_float,
    )


def save_integers(quantization: QuantizedModel, folder: Path) -> None:
    """Save the integers of a quantized model with its ranges to a folder, for a later publication.

    The quantizers must be frozen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, bits = checkpoint_of(quantization), quantization.bits
    # safetensors' own writer leaves a file that only its owner may read.
    (folder / WEIGHTS).write_bytes(save(dict(checkpoint.tensors), metadata={"format": "pt"}))
    summary = {
        "section": checkpoint.section,
        "stored": len(checkpoint.stored),
        "inputs": len(checkpoint.inputs),
        "in_float": dict(Counter(checkpoint.in_float.values())),
        "sites": [
            {
                "kind": site.kind,
                "module": site.module,
                "quantizer": site.quantizer,
                "bits": bits[site.quantizer],
            }
            for site in quantization.sites
        ],
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _unfit(quantization: QuantizedModel, site: Site, sites: list[Site]) -> str:
    """Return why a weight cannot be stored in integers; empty if it can."""
    module: Any = quantization.model.get_submodule(site.module)
    quantizer = quantization.quantizers[site.quantizer]
    shared = [each for each in sites if _original(quantization, each) is _original(quantization, site)]
    if not isinstance(quantizer.grid, Grid):
        return f"values of {quantizer.grid.name}, no integers"
    if quantizer.grid.bits > WIDEST:
        return f"more than {WIDEST} bits"
    if len(shared) > 1:
        return "shared by several modules"
    if quantizer.migration is not None:
        return "factors of SmoothQuant"
    if not isinstance(module, nn.Linear | nn.Embedding) or quantizer.grid.axis not in (None, 0):
        return "neither a linear layer nor a table"
    return ""


def _original(quantization: QuantizedModel, site: Site) -> Tensor:
    module: Any = quantization.model.get_submodule(site.module)
    original: Tensor = module.parametrizations[site.parameter].original
    return original


def _inputs(quantization: QuantizedModel) -> dict[str, Quantizer]:
    """Return the quantizers of inputs of linear layers that have one range for the tensor, or are dynamic."""
    found = {}
    for site in quantization.sites:
        quantizer = quantization.quantizers[site.quantizer]
        grid = quantizer.grid
        whole = grid.axis is None and quantizer.migration is None
        if site.kind == "linear.input" and whole and isinstance(grid, Grid) and grid.bits <= WIDEST:
            found[site.module] = quantizer
    return found


def _stored(quantization: QuantizedModel, site: Site) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a weight and its entry in the section, without input."""
    quantizer = quantization.quantizers[site.quantizer]
    grid = quantizer.integer_grid
    half = _half(grid)
    integers = (quantization.integers(site.name).cpu().to(torch.int16) - half).to(torch.int8)
    rows = len(integers)
    tensors = {"weight_scale": _table(quantizer.current_scale(), grid, rows)}
    packed = _is_packed(quantization, site)
    if packed:
        tensors |= {
            "weight_packed": pack(integers, grid.bits),
            "weight_shape": torch.tensor(integers.shape, dtype=torch.int64),
        }
    else:
        tensors["weight"] = integers
    if not _symmetric(grid):
        zero_point = _table(quantizer.current_zero_point(), grid, rows) - half
        tensors["weight_zero_point"] = zero_point.to(torch.int8)
    return tensors, {"format": PACKED if packed else WHOLE, "weights": _arguments(grid)}


def _is_packed(quantization: QuantizedModel, site: Site) -> bool:
    """Return whether a weight is packed into words, rather than in whole bytes.

    transformers 5.24 with compressed-tensors 0.20 loads neither packed tables (their initialization reads
    ``weight``) nor packed zero points of channels (an unpacked shape is expected).
    """
    grid = quantization.quantizers[site.quantizer].integer_grid
    module = quantization.model.get_submodule(site.module)
    loads = isinstance(module, nn.Linear) and (_symmetric(grid) or grid.axis is None)
    return grid.bits in PACKED_BITS and loads


def _input_tensors(quantizer: Quantizer) -> dict[str, Tensor]:
    grid = quantizer.integer_grid
    if grid.dynamic:
        return {}
    tensors = {"input_scale": _table(quantizer.current_scale(), grid)}
    if not _symmetric(grid):
        zero_point = _table(quantizer.current_zero_point(), grid) - _half(grid)
        tensors["input_zero_point"] = zero_point.to(torch.int8)
    return tensors


def _table(parameter: Tensor, grid: Grid, rows: int = 1) -> Tensor:
    """Return scales or zero points as [1], [channels, 1], or [channels, blocks]."""
    values = parameter.detach().cpu().clone()
    return values.reshape(1) if grid.axis is None else values.reshape(rows, -1)


def _half(grid: Grid) -> int:
    """Return by how much integers are lowered, as the layout's are signed."""
    return 0 if grid.signed else 2 ** (grid.bits - 1)


def _symmetric(grid: Grid) -> bool:
    """Return whether the zero point is 0 once integers are signed."""
    return grid.symmetric and grid.signed


def _strategy(grid: Grid) -> str:
    return "tensor" if grid.axis is None else "group" if grid.block else "channel"


def _arguments(grid: Grid) -> dict[str, Any]:
    return {
        "num_bits": grid.bits,
        "type": "int",
        "symmetric": _symmetric(grid),
        "strategy": grid.dynamic or _strategy(grid),
        "dynamic": grid.dynamic is not None,
        "group_size": grid.block,
    }


def _section(groups: list[dict[str, Any]]) -> dict[str, Any]:
    formats = sorted({group["format"] for group in groups})
    return {
        "quant_method": METHOD,
        "quantization_status": "compressed",
        "format": formats[0] if len(formats) == 1 else MIXED,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
        "ignore": [],
    }
