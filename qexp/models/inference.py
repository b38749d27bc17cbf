"""Loading of stored models for inference, and logits of whole splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from qexp.artifacts.types import ModelArtifact, Ranges
from qexp.config import QuantizationConfig
from qexp.context import RunContext, device_of, set_threads
from qexp.data.batches import EVALUATION_BATCH, ArrayForwardFn, collate, evaluation_batches
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.loading import arguments, load_saved, logits_of, model_inputs
from qexp.quant.insertion.insert import QuantizedModel, insert


def load_quantized(
    encoder: ModelArtifact, quant_config: QuantizationConfig | None, ranges: Ranges | None, ctx: RunContext
) -> tuple[PreTrainedModel, QuantizedModel | None]:
    """Load the model of an artifact in evaluation mode, on the device of ``ctx``.

    Returns:
        The model, and the quantizers inserted into it with their ranges loaded and frozen, or None without
        ``quant_config`` or ``ranges``.
    """
    from safetensors.torch import load_file

    set_threads(ctx.threads)
    model = load_saved(encoder.model)
    quantization = None
    if quant_config is not None and ranges is not None:
        quantization = insert(model, quant_config)
        quantization.load_ranges(load_file(ranges.file))
        quantization.freeze()
    return model.eval().to(device_of(ctx.machine)), quantization


def split_logits(
    run: Callable[[dict[str, Tensor]], Tensor],
    split: TokenSplit,
    rows: int | None,
    *,
    pad_id: int,
    advance: Callable[..., None],
    batch_size: int = EVALUATION_BATCH,
) -> NDArray[np.float32]:
    """Return logits [rows, outputs] of the first ``rows`` rows of a split, in their order; None is all."""
    lengths = split.lengths[:rows]
    batches = evaluation_batches(lengths, batch_size=batch_size)
    parts = []
    for batch in batches:
        parts.append(run(collate(split, batch, pad_id=pad_id)))
        advance(len(batch))
    logits = torch.cat(parts).float().cpu().numpy()
    ordered = np.empty_like(logits)
    ordered[np.concatenate(batches)] = logits
    return ordered


def runner(model: nn.Module, ctx: RunContext) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return a function from a padded batch to its logits, without gradients."""
    names: Sequence[str] = model_inputs(model)
    device = device_of(ctx.machine)

    def run(batch: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            return logits_of(model(**arguments(model, names, moved)))

    return run


def on_arrays(run: Callable[[dict[str, Tensor]], Tensor]) -> ArrayForwardFn:
    """Return a function of arrays for one of tensors."""

    def forward(batch: dict[str, np.ndarray[Any, Any]]) -> NDArray[np.float32]:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        logits: NDArray[np.float32] = run(tensors).float().cpu().numpy()
        return logits

    return forward
