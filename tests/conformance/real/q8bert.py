"""NLP Architect 0.5.4, Q8BERT's package: ``python -m tests.conformance.real.q8bert GOLDEN.json ARRAYS.npz``.

Its quantized layers run on today's torch; its BERT needs transformers 2.4. So the layers take the place of
those of today's BERT, with the settings of ``bert-base-uncased.json``, Intel's own list. That file is no
longer to be had; two public copies of it agree.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from nlp_architect.nn.torch import quantization as package
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.real.results import nested, number, numbers, write

warnings.filterwarnings("ignore")
REQUANTIZED = ("attention.self.query", "attention.self.key")
"""Linear layers whose outputs are quantized, too."""
HEAD_START = 200
"""Training steps before the classifier is quantized."""
STEPS = (1, 5, 50)
"""Numbers of training batches after which thresholds are read."""


def quantized_layer(name: str, layer: nn.Module, head_start: int) -> nn.Module | None:
    """Return the package's layer in the place of one of BERT's, with its weights; None to keep it."""
    if isinstance(layer, nn.Linear):
        made = package.QuantizedLinear(
            layer.in_features,
            layer.out_features,
            mode="ema",
            requantize_output=name.endswith(REQUANTIZED),
            start_step=head_start if name == "classifier" else 0,
        )
    elif isinstance(layer, nn.Embedding) and "token_type" not in name:
        made = package.QuantizedEmbedding(*layer.weight.shape, mode="ema")
    else:
        return None
    made.load_state_dict(layer.state_dict(), strict=False)
    return made


def bert(head_start: int = HEAD_START) -> Any:
    """Return the random BERT with the package's layers, in training mode."""
    model = BertForSequenceClassification._from_config(BertConfig(**inputs.BERT), attn_implementation="eager")
    state = {name: torch.from_numpy(value) for name, value in inputs.bert_weights().items()}
    model.load_state_dict(state)
    for name, layer in list(model.named_modules()):
        made = quantized_layer(name, layer, head_start)
        if made is not None:
            model.set_submodule(name, made)
    model.eval()
    return model.train()


def tensors(batch: dict[str, Array]) -> dict[str, Tensor]:
    """Return the model's inputs, with labels."""
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def thresholds(model: Any) -> dict[str, float]:
    """Return thresholds by ``module:input`` and ``module:output``, and the scales of weights."""
    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, package.QuantizedLayer):
            continue
        found[f"{name}:weight"] = 1 / float(package.get_dynamic_scale(layer.weight, layer.weight_bits))
        if isinstance(layer, package.QuantizedLinear):
            found[f"{name}:input"] = float(layer.input_thresh)
            if layer.requantize_output:
                found[f"{name}:output"] = float(layer.output_thresh)
    return found


def first_steps() -> Array:
    """Return the logits of each of the first batches as if it were the first of a training."""
    found = []
    for batch in inputs.bert_batches(inputs.FIRST_STEPS, 1):
        with torch.no_grad():
            found.append(bert()(**tensors(batch)).logits.numpy())
    return np.array(found)


def training(start: int, head_start: int) -> tuple[Any, dict[str, Array]]:
    """Return the model after training batches on fixed weights, and thresholds and a gradient on the way."""
    batches = inputs.bert_batches(start + max(STEPS))[start:]
    model, arrays = bert(head_start), {}
    for index, batch in enumerate(batches):
        output = model(**tensors(batch))
        model.zero_grad()
        output.loss.backward()
        if index == 0:
            query = model.bert.encoder.layer[0].attention.self.query
            arrays["gradient"] = query.weight.grad.numpy()
        if index + 1 in STEPS:
            for name, value in thresholds(model).items():
                arrays[f"{index + 1}|{name}"] = np.array(value)
    return model, arrays


def models() -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the sites, and thresholds, logits and a gradient over training batches.

    The logits in evaluation are those of a model whose classifier is quantized from the first step: before
    the delay is over, the package's are all zero.
    """
    model, arrays = training(inputs.TRAINING_START, HEAD_START)
    found = thresholds(model)
    arrays["first logits"] = first_steps()
    evaluated = tensors(inputs.bert_batches(1, 64)[0])
    whole, _ = training(inputs.TRAINING_START, 0)
    with torch.no_grad():
        arrays["evaluated before the delay"] = model.eval()(**evaluated).logits.numpy()
        arrays["evaluated"] = whole.eval()(**evaluated).logits.numpy()
        for layer in whole.modules():
            if isinstance(layer, package.QuantizedLinear):
                layer.quantized_bias = layer.bias * layer.bias_scale
        arrays["evaluated with float biases"] = whole(**evaluated).logits.numpy()
    return dict.fromkeys(found, 8), arrays


def scales() -> dict[str, Any]:
    """Return the scale of each tensor, by which values are divided; infinity becomes 0."""
    found = {}
    for name, values in inputs.tensors().items():
        for bits in (4, 8):
            scale = float(package.get_dynamic_scale(torch.from_numpy(values), bits))
            found[f"{name} {bits}"] = number(1 / scale)
    return found


def integers_and_gradients() -> dict[str, Any]:
    """Return the integers of fixed values at a fixed threshold, and which values pass their gradient."""
    found = {}
    for bits in (4, 8):
        threshold = torch.tensor(0.25 * (2 ** (bits - 1) - 1))
        values = torch.from_numpy(inputs.points(0.25, bits)).requires_grad_()
        scale = package.get_scale(bits, threshold)
        package._fake_quantize(values, scale, bits).sum().backward()
        found[str(bits)] = {
            "steps": package.quantize(values.detach(), scale, bits).int().tolist(),
            "passes": (values.grad != 0).int().tolist(),
        }
    return found


def moving_averages() -> list[float]:
    """Return the threshold of a linear layer's input after each of the moving batches."""
    layer = package.QuantizedLinear(inputs.WIDTH, 2, mode="ema", requantize_output=False)
    layer.eval()
    layer.train()
    found = []
    for batch in inputs.moving_batches(50):
        layer(torch.from_numpy(batch))
        found.append(float(layer.input_thresh))
    return numbers(found)


TESTED = ("first logits", "50|")
"""Beginnings of the arrays that the tests need."""


def main() -> None:
    """Write all results."""
    torch.set_num_threads(1)
    sites, arrays = models()
    golden = {
        "scales": scales(),
        "values": integers_and_gradients(),
        "moving": moving_averages(),
        "sites": sites,
        "bert": {name: nested(value) for name, value in arrays.items() if name.startswith(TESTED)},
    }
    write(golden, arrays, ("nlp-architect", "torch", "transformers"))


if __name__ == "__main__":
    main()
