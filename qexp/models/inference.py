"""Logits of whole splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from qexp.artifacts.types import Encoder, Ranges
from qexp.config import Form
from qexp.context import Runtime, device_of, set_threads
from qexp.data.batches import EVALUATION_BATCH, collate, evaluation_batches
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.loading import arguments, load_saved, logits_of, model_inputs
from qexp.quant.insertion.insert import Quantization, insert


def load_quantized(
    encoder: Encoder, form: Form | None, ranges: Ranges | None, rt: Runtime
) -> tuple[PreTrainedModel, Quantization | None]:
    """The model of an artifact, and the quantization inserted into it with its ranges loaded and fixed."""
    from safetensors.torch import load_file

    set_threads(rt.threads)
    model = load_saved(encoder.model)
    quantization = None
    if form is not None and ranges is not None:
        quantization = insert(model, form)
        quantization.load_ranges(load_file(ranges.file))
        quantization.freeze()
    return model.eval().to(device_of(rt.machine)), quantization


def split_logits(
    run: Callable[[dict[str, Tensor]], Tensor],
    split: TokenSplit,
    rows: int | None,
    *,
    pad_id: int,
    move: Callable[..., None],
    batch_size: int = EVALUATION_BATCH,
) -> NDArray[np.float32]:
    """Logits [rows, outputs] of the first ``rows`` rows of a split, in their order; None is all."""
    lengths = split.lengths[:rows]
    batches = evaluation_batches(lengths, batch_size=batch_size)
    parts = []
    for batch in batches:
        parts.append(run(collate(split, batch, pad_id=pad_id)))
        move(len(batch))
    logits = torch.cat(parts).float().cpu().numpy()
    ordered = np.empty_like(logits)
    ordered[np.concatenate(batches)] = logits
    return ordered


def runner(model: nn.Module, rt: Runtime) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function from a padded batch to its logits, without gradients."""
    names: Sequence[str] = model_inputs(model)
    device = device_of(rt.machine)

    def run(batch: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            return logits_of(model(**arguments(model, names, moved)))

    return run
