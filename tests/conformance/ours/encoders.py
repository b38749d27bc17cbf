"""qexp's side of the random BERT: the model, calibration and training as a recipe has them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from qexp.config import Experiment
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.inputs import Array


def bert() -> Any:
    """Return transformers' BERT with the common weights, in evaluation mode."""
    model = BertForSequenceClassification._from_config(BertConfig(**inputs.BERT), attn_implementation="eager")
    state = {name: torch.from_numpy(value) for name, value in inputs.bert_weights().items()}
    model.load_state_dict(state)
    return model.eval()


def tensors(batch: dict[str, Array]) -> dict[str, Tensor]:
    """Return the model's inputs, with labels."""
    return {name: torch.from_numpy(value) for name, value in batch.items()}


@torch.no_grad()
def logits(model: Any, batch: dict[str, Array]) -> Array:
    """Return the logits of a batch."""
    result: Array = model(**tensors(batch)).logits.numpy()
    return result


@torch.no_grad()
def calibrated(
    experiment: Experiment, batches: Sequence[dict[str, Array]], *, plain: bool = False
) -> QuantizedModel:
    """Insert quantizers into the random BERT and calibrate them as the recipe does; still off.

    Args:
        experiment: Experiment of a recipe.
        batches: Batches to observe.
        plain: Whether weights are float and padding counts during calibration, whatever the recipe says.
    """
    quantization = insert(bert(), experiment.quant_config)
    calibration = experiment.calibration
    more = {}
    if getattr(calibration, "weights", "float") == "quantized" and not plain:
        quantization.calibrate_weights(experiment.calibrator)
        more["quantized_weights"] = True
    masked = getattr(calibration, "padding", "masked") == "masked" and not plain
    for batch in batches:
        each = tensors(batch)
        with quantization.observing(each["attention_mask"] if masked else None, **more):
            quantization.model(**each)
    quantization.calibrate(quantization.statistics(), experiment.calibrator)
    return quantization


@torch.no_grad()
def observed_values(quantization: QuantizedModel, batches: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Return all values that each activation's quantizer sees in floating point, padding included."""
    seen: dict[str, list[Array]] = {name: [] for name in quantization.activations()}
    for name, quantizer in quantization.quantizers.items():
        found = seen.get(name)
        if found is None:
            quantizer.switch(QuantizerMode.OFF)
        else:
            quantizer.switch(
                QuantizerMode.OBSERVING, lambda value, found=found: found.append(value.numpy().ravel())
            )
    for batch in batches:
        quantization.model(**tensors(batch))
    quantization.off()
    return {name: np.concatenate(values) for name, values in seen.items()}


def start_training(quantization: QuantizedModel, experiment: Experiment) -> None:
    """Switch quantizers to the mode that the recipe trains with."""
    method: Any = experiment.method
    if find_spec("qexp.quant.insertion.training_mode"):
        from qexp.quant.insertion import training_mode

        training_mode.start_training(quantization, method, experiment.calibrator)
    elif method.ranges == "learned":
        quantization.learn(zero_points=method.zero_points == "learned")
    elif method.ranges == "ema":
        quantization.use_ema(method.range_decay)
    else:
        quantization.freeze()


def step_weights(model: Any) -> None:
    """Move all matrices as ``inputs.stepped`` does, by one step of an optimizer."""
    matrices = [each for each in model.parameters() if each.ndim == 2]
    for each in matrices:
        moved = torch.from_numpy(inputs.stepped(each.detach().numpy()))
        each.grad = each.detach() - moved
    torch.optim.SGD(matrices, 1.0).step()


def site_quantizers(quantization: QuantizedModel) -> dict[tuple[str, str], Quantizer]:
    """Return the quantizer of each site, by kind and module."""
    found = quantization.quantizers
    return {(site.kind, site.module): found[site.quantizer] for site in quantization.sites}


def threshold(quantizer: Quantizer) -> Array:
    """Return the largest value of a symmetric grid."""
    return np.asarray(quantizer.scale.detach().double() * quantizer.grid.qmax)
