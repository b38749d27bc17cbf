"""NeurST 0.1.2 on the common inputs: ``python -m tests.conformance.real.neurst GOLDEN.json ARRAYS.npz``.

Its layers are those of Keras 2, which ``tf_keras`` has for today's TensorFlow. ``neurst/__init__.py`` imports
all of the package, parts of which need an older TensorFlow; so it is left out.
"""

from __future__ import annotations

import os
import sys
import types
from importlib.util import find_spec
from typing import Any

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
import numpy as np
import tensorflow as tf
from absl import logging

logging.set_verbosity(logging.ERROR)
found = find_spec("neurst")
assert found is not None and found.submodule_search_locations is not None
bare = types.ModuleType("neurst")
bare.__path__ = list(found.submodule_search_locations)
sys.modules["neurst"] = bare

import neurst.utils.converters  # noqa: E402, F401  (first, as the package's modules import one another)
from neurst.layers.quantization import QuantLayer  # noqa: E402
from neurst.models import build_model  # noqa: E402

from tests.conformance import inputs  # noqa: E402
from tests.conformance.inputs import Array  # noqa: E402
from tests.conformance.real.results import nested, number, write  # noqa: E402


class Quantizers(QuantLayer):
    """A layer with a quantizer of each kind."""

    def build(self, shape: Any) -> None:
        """Create a weight's quantizer and those of activations."""
        self.weight = self.add_weight("kernel", shape=[1], initializer="zeros")
        for kind in ("act", "relu", "softmax"):
            self.add_activation_quantizer(kind, kind)
        super().build(shape)

    def call(self, x: Any) -> Any:
        """Return the input."""
        return x


def clip(kind: str, bits: int) -> float:
    """Return the clip value with which a step is 0.25."""
    return 0.25 * (2**bits - 1 if kind == "relu" else 2 ** (bits - 1) - 1)


def quantizers() -> dict[str, Any]:
    """Return quantized values, which of them pass their gradient, and that of the clip value.

    The loss weighs quantized values by a ramp.
    """
    results = {}
    for bits in (8, 4):
        QuantLayer.global_init(True, quant_bits=bits)
        layer = Quantizers()
        layer.build((1, 1))
        for kind in ("weight", "act", "relu", "softmax"):
            quantizer = layer.traced["kernel" if kind == "weight" else kind]
            step = 2.0**-bits if kind == "softmax" else 0.25
            points = inputs.points(step, bits)
            values = tf.Variable(points)
            learned = []
            if kind != "softmax":
                learned = [quantizer.clip_max if kind == "weight" else quantizer.activation_clip_max]
                learned[0].assign(clip(kind, bits))
            with tf.GradientTape() as tape:
                result = quantizer(tf.convert_to_tensor(values))
                loss = tf.reduce_sum(result * np.linspace(-1, 1, len(points), dtype=np.float32))
            gradients = tape.gradient(loss, [values, *learned])
            results[f"{kind} {bits}"] = {
                "steps": np.round(result.numpy() / step).astype(int).tolist(),
                "passes": (gradients[0].numpy() != 0).astype(int).tolist(),
                "clip": number(gradients[1].numpy()) if learned else None,
            }
    return results


def transformer(*, quantized: bool) -> Any:
    """Return the random Transformer, without positions and dropout."""
    QuantLayer.global_init(quantized)
    parameters: dict[str, Any] = {
        "modality.share_source_target_embedding": True,
        "modality.share_embedding_and_softmax_weights": True,
        "modality.dim": inputs.TRANSLATOR["width"],
        "modality.timing": None,
    }
    for side in ("encoder", "decoder"):
        sizes = {
            "num_layers": inputs.TRANSLATOR["layers"],
            "hidden_size": inputs.TRANSLATOR["width"],
            "num_attention_heads": inputs.TRANSLATOR["heads"],
            "filter_size": inputs.TRANSLATOR["inner"],
            "ffn_activation": "relu",
            "post_normalize": True,
            "layer_postprocess_epsilon": 1e-5,
            "attention_dropout_rate": 0.0,
            "ffn_dropout_rate": 0.0,
            "layer_postprocess_dropout_rate": 0.0,
        }
        parameters |= {f"{side}.{name}": value for name, value in sizes.items()}
    vocabulary = {
        "vocab_size": inputs.TRANSLATOR["vocabulary"],
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
    }
    settings = {"model.class": "transformer", "params": parameters}
    model = build_model(settings, src_meta=vocabulary, trg_meta=vocabulary)
    weights = inputs.translator_weights()
    for variable in model.weights:
        name = plain(variable.name)
        if not name.endswith("clip_max"):
            variable.assign(weights[name])
        elif name.removesuffix("_clip_max") in weights:
            variable.assign(np.abs(weights[name.removesuffix("_clip_max")]).max())
        else:
            context = name.endswith("_attention/output_clip_max")
            variable.assign(inputs.CONTEXT_CLIP if context else inputs.CLIP)
    return model


def plain(name: str) -> str:
    """Return a variable's name without the model's."""
    return name.partition("/")[2].partition(":")[0]


def models() -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the clip values that logits depend on, and logits in floating point and quantized."""
    batch = inputs.translator_batch()
    feed = {
        "src": tf.constant(batch["source"], tf.int64),
        "src_padding": tf.constant(batch["padding"]),
        "trg_input": tf.constant(batch["target"], tf.int64),
    }
    logits = transformer(quantized=False)(feed, is_training=False).numpy()
    model = transformer(quantized=True)
    with tf.GradientTape() as tape:
        result = model(feed, is_training=False)
        loss = tf.reduce_sum(result**2)
    clips = [each for each in model.trainable_weights if "clip_max" in each.name]
    gradients = tape.gradient(loss, clips)
    used = [plain(each.name) for each, slope in zip(clips, gradients, strict=True) if slope is not None]
    unused = sorted({plain(each.name) for each in clips} - set(used))
    return {"used": used, "unused": unused}, {"logits float": logits, "logits": result.numpy()}


FEW = 4
"""Words of the vocabulary whose logits the tests need."""


def main() -> None:
    """Write all results."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    sites, arrays = models()
    few = {name: nested(value.reshape(-1, value.shape[-1])[:, :FEW]) for name, value in arrays.items()}
    golden = {"values": quantizers(), "sites": sites, "transformer": few}
    write(golden, arrays, ("neurst", "tensorflow-cpu", "tf_keras"))


if __name__ == "__main__":
    main()
