"""Values, weights and batches that the real programs and qexp both compute on; numpy alone.

Values are drawn from PCG64 with fixed seeds. A golden file holds their check sums, so that a change of
numpy's streams shows as what it is.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COUNT = 16384
ROWS = 16
"""Rows of the weights that have a range for each."""
VOCABULARY, WIDTH, LAYERS, HEADS, INNER, LENGTH = 200, 64, 2, 4, 128, 24
BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "num_labels": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""Configuration of the random BERT, in transformers' words."""
OUTLIER = 7
"""Dimension whose values are far larger than the others, as in trained BERTs."""
FIRST_STEPS = 16
"""Batches of one row that are compared as the first of a training."""
TRAINING_START = 3
"""The batch that a training begins with: one in which no value lies so close to a tie that it falls the other
way in another order of sums. Moving averages of decay 0.9999 hardly leave where the first batch puts them."""


def tensors() -> dict[str, Array]:
    """Return values of several distributions, float32."""
    draw = np.random.default_rng(0)
    normal = draw.standard_normal(COUNT)
    uniform = draw.random(COUNT)
    scores = np.exp(3 * draw.standard_normal((COUNT // 64, 64)))
    values = {
        "normal": normal,
        "laplace": np.sign(uniform - 0.5) * -np.log1p(-2 * np.abs(uniform - 0.5)),
        "skewed": 0.3 - np.exp(draw.standard_normal(COUNT)),
        "outlier": np.append(normal[:-1], 60.0),
        "outlier_below": np.append(normal[:-1], -60.0),
        "relu": np.maximum(normal, 0),
        "softmax": (scores / scores.sum(1, keepdims=True)).ravel(),
        "constant": np.full(1024, 0.7),
        "zeros": np.zeros(1024),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def rows(values: Array) -> Array:
    """Return the first values as a weight [ROWS, 256]."""
    return values[: ROWS * 256].reshape(ROWS, -1)


def batches() -> list[Array]:
    """Return batches whose second reaches ten times as far as the others."""
    draw = np.random.default_rng(1)
    return [(size * draw.standard_normal(4096)).astype(np.float32) for size in (1, 10, 1, 0.5)]


def points(scale: float, bits: int) -> Array:
    """Return 130 values within and beyond all grids of so many bits, in quarters of a step, ties included."""
    quarters = np.linspace(-2.4, 4.8, 130) * 2**bits
    return (quarters.round() / 4).astype(np.float32) * np.float32(scale)


INPUT_SCALE, INPUT_ZERO_POINT = 0.0251, 113
"""Of the 8-bit input of the linear layer in an ONNX file."""


def linear_scales() -> Array:
    """Return the scale of each of its 6 outputs' 4-bit weights, float32."""
    return (0.1 + 0.02 * np.arange(6)).astype(np.float32)


def linear_layer() -> tuple[Array, Array]:
    """Return its weight [6, 16] and an input [8, 16]."""
    values = tensors()["normal"]
    return values[:96].reshape(6, 16), values[-128:].reshape(8, 16) * np.float32(1.5)


def moving_batches(count: int) -> list[Array]:
    """Return batches whose largest magnitude changes, and is now above zero, now below."""
    draw = np.random.default_rng(2)
    signs = draw.choice([-1.0, 1.0], count)
    sizes = 1 + draw.random(count)
    return [
        (draw.standard_normal((4, WIDTH)).clip(-2, 2) * size + sign).astype(np.float32)
        for size, sign in zip(sizes, signs, strict=True)
    ]


def check_sum(values: Array) -> int:
    """Return the CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def bert_weights() -> dict[str, Array]:
    """Return the state of a random BERT with two layers and a classifier, by transformers' names."""
    draw = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "bert.embeddings.position_embeddings.weight": (BERT["max_position_embeddings"], WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["bert.embeddings.LayerNorm"]
    linears = {}
    for layer in range(LAYERS):
        prefix = f"bert.encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linears[f"{prefix}.attention.{part}"] = (WIDTH, WIDTH)
        linears[f"{prefix}.intermediate.dense"] = (INNER, WIDTH)
        linears[f"{prefix}.output.dense"] = (WIDTH, INNER)
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    linears |= {"bert.pooler.dense": (WIDTH, WIDTH), "classifier": (2, WIDTH)}
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()}
    state = {name: 0.12 * draw.standard_normal(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": 0.05 * draw.standard_normal(shape[0]) for name, shape in linears.items()}
    for name in norms:
        state[f"{name}.weight"] = 1 + 0.1 * draw.standard_normal(WIDTH)
        state[f"{name}.bias"] = 0.05 * draw.standard_normal(WIDTH)
    state["bert.encoder.layer.0.output.LayerNorm.weight"][OUTLIER] = 6.0
    return {name: value.astype(np.float32) for name, value in state.items()}


def bert_batches(count: int, size: int = 8) -> list[dict[str, Array]]:
    """Return batches of token rows padded on the right, int64, with labels."""
    draw = np.random.default_rng(4)
    made = []
    for _ in range(count):
        lengths = draw.integers(6, LENGTH + 1, size)
        lengths[0] = LENGTH
        place = np.arange(LENGTH)
        mask = (place < lengths[:, None]).astype(np.int64)
        ids = draw.integers(5, VOCABULARY, (size, LENGTH)) * mask
        types = ((place >= lengths[:, None] // 2) & (mask == 1)).astype(np.int64)
        labels = (ids.sum(1) // lengths > VOCABULARY // 2).astype(np.int64)
        made.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels})
    return made


def stepped(weight: Array) -> Array:
    """Return a weight as it is after a training step that changes its largest magnitude."""
    place = np.arange(weight.size, dtype=np.float32).reshape(weight.shape)
    return (weight * (1 + 0.3 * np.sin(place))).astype(np.float32)


TRANSLATOR: dict[str, int] = {"vocabulary": 60, "width": 32, "layers": 2, "heads": 4, "inner": 64}
"""Sizes of the random Transformer with encoder and decoder."""
CLIP, CONTEXT_CLIP = 3.0, 2.9
"""Largest magnitude of activations' ranges there, which some values exceed; and of the context's. With one
for both, sums of probabilities in 256ths times values would be exact ties, which NeurST rounds up."""


def translator_weights() -> dict[str, Array]:
    """Return the weights of a random Transformer with norms behind the residual adds, by NeurST's names."""
    width, inner = TRANSLATOR["width"], TRANSLATOR["inner"]
    shapes: dict[str, tuple[int, ...]] = {
        "shared_symbol_modality/shared/weights": (TRANSLATOR["vocabulary"], width),
        "shared_symbol_modality/shared/bias": (TRANSLATOR["vocabulary"],),
    }
    for side in ("Encoder", "Decoder"):
        for layer in range(TRANSLATOR["layers"]):
            prefix = f"Transformer{side}/layer_{layer}"
            own, cross = (f"{prefix}/{each}_attention_prepost_wrapper" for each in ("self", "encdec"))
            matrices = {
                f"{own}/self_attention/qkv_transform": (width, 3 * width),
                f"{own}/self_attention/output_transform": (width, width),
                f"{prefix}/ffn_prepost_wrapper/ffn/dense1": (width, inner),
                f"{prefix}/ffn_prepost_wrapper/ffn/dense2": (inner, width),
            }
            norms = [own, f"{prefix}/ffn_prepost_wrapper"]
            if side == "Decoder":
                matrices |= {
                    f"{cross}/encdec_attention/q_transform": (width, width),
                    f"{cross}/encdec_attention/kv_transform": (width, 2 * width),
                    f"{cross}/encdec_attention/output_transform": (width, width),
                }
                norms.append(cross)
            for name, shape in matrices.items():
                shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
            shapes |= {f"{norm}/ln/{part}": (width,) for norm in norms for part in ("gamma", "beta")}
    draw = np.random.default_rng(5)
    spread = {"gamma": 0.1, "beta": 0.1, "bias": 0.05, "kernel": 0.2, "weights": 0.2}
    weights = {}
    for name, shape in shapes.items():
        part = name.rpartition("/")[2]
        values = spread[part] * draw.standard_normal(shape) + (part == "gamma")
        weights[name] = values.astype(np.float32)
    return weights


def translator_batch() -> dict[str, Array]:
    """Return token rows of both sides, and the padding of the first, float32 with 1 for padding."""
    draw = np.random.default_rng(6)
    rows, source, target = 6, 11, 9
    lengths = draw.integers(5, source + 1, rows)
    padding = (np.arange(source) >= lengths[:, None]).astype(np.float32)
    ids = draw.integers(4, TRANSLATOR["vocabulary"], (rows, source)) * (1 - padding).astype(np.int64)
    decoded = draw.integers(4, TRANSLATOR["vocabulary"], (rows, target))
    decoded[:, 0] = 1
    return {"source": ids, "padding": padding, "target": decoded}
