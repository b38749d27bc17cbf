"""Loading of checkpoints with integer weights, without the package compressed-tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from qexp.errors import ModelError
from qexp.models.integer_checkpoint import METHOD, PACKED, WHOLE
from qexp.models.integer_files import CONFIG, SECTION, WEIGHTS
from qexp.models.loading import load_saved
from qexp.models.packing import PACKED_BITS, unpack
from qexp.models.pooling import pool

STRATEGIES = ("tensor", "channel", "group")


def load_checkpoint(folder: Path) -> PreTrainedModel:
    """Load a checkpoint with integer or float weights; the model has float weights, on their grid.

    Ranges of inputs are not applied.

    Raises:
        ModelError: The folder holds no checkpoint, or one of another layout than
            :mod:`qexp.models.integer_checkpoint` writes.
    """
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / CONFIG}: cannot be read ({error}); name a folder that qexp publish wrote"
        ) from error
    section = content.pop(SECTION, None)
    if section is None:
        return load_saved(folder)
    if section.get("quant_method") != METHOD or section.get("quantization_status") != "compressed":
        raise ModelError(
            f"{folder / CONFIG}: {SECTION}.quant_method={section.get('quant_method')}, "
            f"quantization_status={section.get('quantization_status')}; allowed are {METHOD} and compressed: "
            "load it with transformers, or publish the run again"
        )
    (name,) = content["architectures"]
    model: PreTrainedModel = pool(getattr(transformers, name)(AutoConfig.for_model(**content)))
    state = _floats(folder, section)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{folder / WEIGHTS}: {problem}; publish the run again") from error
    model.tie_weights()
    model.eval()
    return model


def _floats(folder: Path, section: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of the float model, with dequantized weights."""
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: cannot be read ({error}); publish the run again") from error
    for group in section.get("config_groups", {}).values():
        for module in group.get("targets", ()):
            _dequantize(tensors, module, group, file)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_INPUT)}


_INPUT = (".input_scale", ".input_zero_point")


def _dequantize(tensors: dict[str, Tensor], module: str, group: Mapping[str, Any], file: Path) -> None:
    """Replace the stored tensors of a module's weight by its float values, in place."""
    arguments = group.get("weights") or {}
    strategy, layout = arguments.get("strategy"), str(group.get("format"))
    if layout not in _READERS or strategy not in STRATEGIES or arguments.get("type") != "int":
        raise ModelError(
            f"{file}: {module} has format={layout}, strategy={strategy}, type={arguments.get('type')}; "
            f"allowed are {WHOLE} and {PACKED}, {', '.join(STRATEGIES)}, int: load it with transformers"
        )
    try:
        integers = _READERS[layout](tensors, module, int(arguments["num_bits"]))
        scale = tensors.pop(f"{module}.weight_scale")
        symmetric = arguments.get("symmetric", True)
        zero_point = torch.zeros_like(scale) if symmetric else tensors.pop(f"{module}.weight_zero_point")
        if strategy == "group":
            size = int(arguments["group_size"])
            scale, zero_point = (each.repeat_interleave(size, 1) for each in (scale, zero_point))
        steps = integers.to(torch.int32) - zero_point.to(torch.int32)
        tensors[f"{module}.weight"] = steps.to(scale.dtype) * scale
    except (KeyError, RuntimeError, TypeError) as error:
        raise ModelError(
            f"{file}: the weight of {module} is damaged ({error}); publish the run again"
        ) from error


def _whole(tensors: dict[str, Tensor], module: str, bits: int) -> Tensor:
    return tensors.pop(f"{module}.weight")


def _packed(tensors: dict[str, Tensor], module: str, bits: int) -> Tensor:
    if bits not in PACKED_BITS:
        raise TypeError(f"{bits} bits in words")
    rows, columns = tensors.pop(f"{module}.weight_shape").tolist()
    return unpack(tensors.pop(f"{module}.weight_packed"), bits, columns)[:rows]


_READERS: Mapping[str, Callable[[dict[str, Tensor], str, int], Tensor]] = {WHOLE: _whole, PACKED: _packed}
