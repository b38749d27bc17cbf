"""Forward pass over calibration rows, which observers collect statistics from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import pad

from qexp.artifacts.types import Tokens
from qexp.config import AnyCalibrator, Calibration, Task
from qexp.context import RunContext
from qexp.data.batches import evaluation_batches
from qexp.data.microbatches import Batch
from qexp.models.inference import runner
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.tasks import adapter_for

Observing = Callable[[Tensor | None, Tensor | None], AbstractContextManager[None]]
"""Context in which observers see the model's values, given the attention mask and the decoder's mask."""


@dataclass(frozen=True)
class CalibrationRows:
    """Calibration rows, drawn at random from the train split.

    Where padding is masked, rows of similar length share a batch, so little compute is spent on it. Batches
    are in random order, so a moving average does not end with the longest rows. Where padding counts, batches
    are of rows in the order drawn.
    """

    tokens: Tokens
    task: Task
    calibration: Calibration
    limit: int | None
    """Upper bound on the number of rows, in addition to ``calibration.samples``; None for no bound."""
    seed: int

    def run(self, model: nn.Module, observing: Observing, title: str, ctx: RunContext) -> dict[str, int]:
        """Run the model on all rows inside ``observing``; return the number of ``rows`` and ``batches``."""
        adapter = adapter_for(self.task)
        split = adapter.split(self.tokens.split(self.task.train))
        count = min(self.calibration.samples, self.limit or self.calibration.samples, len(split))
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(len(split))[:count]
        size, masked = self.calibration.batch_size, self.calibration.padding == "masked"
        if masked:
            by_length = evaluation_batches(split.lengths[rows], batch_size=size)
            batches = [rows[by_length[index]] for index in rng.permutation(len(by_length))]
        else:
            batches = [rows[start : start + size] for start in range(0, count, size)]
        forward = runner(model, ctx)
        with ctx.console.bar(f"{title} {self.task.name}", total=count) as advance:
            for batch in batches:
                tensors = self._padded(adapter.collate(split, batch, self.tokens.pad_id))
                masks = (tensors["attention_mask"], tensors.get("target_mask"))
                with observing(*masks) if masked else observing(None, None):
                    forward(tensors)
                advance(len(batch))
        return {"rows": count, "batches": len(batches)}

    def _padded(self, tensors: Batch) -> Batch:
        """Pad the tokens of a batch to ``task.max_length``, if calibration wants it."""
        if self.calibration.padding != "max_length":
            return tensors
        more = self.task.max_length - tensors["input_ids"].shape[1]
        fills = {"input_ids": self.tokens.pad_id, "attention_mask": 0, "token_type_ids": 0}
        return tensors | {
            name: pad(tensors[name], (0, more), value=fill) for name, fill in fills.items() if name in tensors
        }


def observe(
    quantization: QuantizedModel,
    rows: CalibrationRows,
    calibrator: AnyCalibrator | None,
    ctx: RunContext,
    *,
    dimensions: bool,
) -> dict[str, int]:
    """Collect the statistics of a model's activations; return the number of ``rows`` and ``batches``.

    Args:
        quantization: Quantizers of the model, on the device to run on.
        rows: Rows to run it on.
        calibrator: Calibrator of the weights, if they are quantized meanwhile, else None.
        ctx: Context of the run.
        dimensions: Whether each dimension has statistics of its own, too.
    """
    if calibrator is not None:
        quantization.calibrate_weights(calibrator)
    observing = partial(
        quantization.observing, dimensions=dimensions, quantized_weights=calibrator is not None
    )
    return rows.run(quantization.model, observing, "observe", ctx)
