"""What no program can beat on this machine: bytes over bandwidth, operations over the rate of products.

All rates are measured in the same process and with the same threads as what they are compared with,
each the best of many tries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.shapes import Shape

FLOAT = 4
"""Bytes of a float32."""
LARGE = 64 << 20
"""Bytes of a tensor that no cache holds."""
CACHED = (16 << 10, 32 << 10, 64 << 10, 128 << 10)
"""Bytes of tensors that the inner caches hold; torch works on each of them with one thread."""
TRY_SECONDS = 0.2
"""Time that a rate is tried for."""


@dataclass(frozen=True)
class Rates:
    """What the machine can do."""

    copied: float
    """Bytes a second that a copy of a large tensor reads and writes, both counted."""
    copied_in_cache: float
    """The same for a tensor in the inner caches, on one thread."""
    product: float
    """Floating-point operations a second in the fastest matrix product of the model."""
    arithmetic: float
    """Seconds that one element of fake quantization costs on one thread when memory costs nothing."""
    threads: int


def rates(shape: Shape, rows: int, length: int) -> Rates:
    """Measure all of them, for the products of a model and batch."""
    return Rates(
        copied=copy_rate(LARGE), copied_in_cache=max(copy_rate(size) for size in CACHED),
        product=product_rate(shape, rows, length), arithmetic=arithmetic_seconds(),
        threads=torch.get_num_threads(),
    )  # fmt: skip


def best(call: Callable[[], object], budget: float = TRY_SECONDS) -> float:
    """Least seconds of a call, repeated until the budget is spent, at least five times."""
    call()
    least, tries, end = math.inf, 0, time.perf_counter() + budget
    while tries < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        least, tries = min(least, time.perf_counter() - started), tries + 1
    return least


def copy_rate(size: int) -> float:
    """Bytes a second, read and written, of a copy of ``size`` bytes."""
    source, target = torch.ones(size // FLOAT), torch.empty(size // FLOAT)
    repeats = max(1, LARGE // size // 64)  # so that one try outlasts the clock and the call

    def copy() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return 2 * size * repeats / best(copy)


def products(shape: Shape, rows: int, length: int) -> list[tuple[tuple[int, int, int, int], int]]:
    """Matrix products of one forward pass: ``(batch, m, k, n)`` and how often it happens."""
    tokens, width, depth = rows * length, shape.width, shape.width // shape.heads
    layers, attending = shape.layers, rows * shape.heads
    return [
        ((1, tokens, width, width), 4 * layers),
        ((1, tokens, width, shape.inner), layers),
        ((1, tokens, shape.inner, width), layers),
        ((attending, length, depth, length), layers),
        ((attending, length, length, depth), layers),
        ((1, rows, width, width), 1),
        ((1, rows, width, 2), 1),
    ]


def forward_operations(shape: Shape, rows: int, length: int) -> int:
    """Floating-point operations in the products of a forward pass; a multiply and an add count as two."""
    return sum(2 * b * m * k * n * times for (b, m, k, n), times in products(shape, rows, length))


def product_rate(shape: Shape, rows: int, length: int) -> float:
    """Operations a second in the fastest of the model's large products."""
    found = []
    for (b, m, k, n), _ in products(shape, rows, length)[:3]:
        left, right = torch.randn(m, k), torch.randn(k, n)
        out = torch.empty(m, n)
        call = _product(left, right, out)
        found.append(2 * b * m * k * n / best(call))
    return max(found)


def _product(left: Tensor, right: Tensor, out: Tensor) -> Callable[[], object]:
    return lambda: torch.mm(left, right, out=out)


def arithmetic_seconds() -> float:
    """Seconds for each element of ``clamp(round(x / scale)) * scale``, free of memory, on one thread.

    Torch's own operators, one after the other, on a tensor that stays in the cache; the best of several
    sizes, as small ones pay for the calls and large ones for the cache. Multiplying by the reciprocal
    would be cheaper, but gives other numbers than ONNX Runtime.
    """
    return min(_chain_seconds(size // FLOAT) for size in CACHED)


def _chain_seconds(elements: int, repeats: int = 16) -> float:
    x, y, scale = torch.randn(elements), torch.empty(elements), torch.tensor(0.05)

    def chain() -> None:
        for _ in range(repeats):
            torch.div(x, scale, out=y).round_().clamp_(-128.0, 127.0).mul_(scale)

    return best(chain, TRY_SECONDS / len(CACHED)) / repeats / elements


def quantized_elements(shape: Shape, rows: int, length: int, sites: str) -> tuple[int, int]:
    """Elements of weights, and of activations, that one forward pass quantizes; each value once.

    ``linear``: weights and inputs of all linear layers, the head's too. ``qdqbert``: the inputs of
    attention's products and of the residual adds as well, where they are not quantized already.
    """
    hidden, inner = rows * length * shape.width, rows * length * shape.inner
    weights = shape.layers * (4 * shape.width**2 + 2 * shape.width * shape.inner)
    weights += shape.width**2 + 2 * shape.width
    activations = shape.layers * (3 * hidden + inner) + 2 * rows * shape.width
    if sites == "qdqbert":
        probabilities = rows * shape.heads * length**2
        activations += shape.layers * (3 * hidden + probabilities + 2 * hidden)
    return weights, activations


def parameters(shape: Shape) -> int:
    """Number of trained values."""
    width, inner = shape.width, shape.inner
    embeddings = (shape.vocabulary + shape.positions + 2 + 2) * width
    layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    return embeddings + shape.layers * layer + width * (width + 1) + 2 * width + 2


@dataclass(frozen=True)
class Floor:
    """Least seconds of one forward pass, of one training step, and of what quantization adds to both."""

    forward: float
    """Products only."""
    step: float
    """Products forward and backward, and AdamW's reading of four and writing of three values a weight."""
    quantization_forward: float
    """One copy of every quantized activation; weights are quantized once and kept."""
    quantization_step: float
    """A copy of every quantized weight and activation, and backward two reads and a write."""


def floor(shape: Shape, rows: int, length: int, sites: str, found: Rates) -> Floor:
    """The floor of a model and batch, for the quantized ``sites``."""
    products_seconds = forward_operations(shape, rows, length) / found.product
    weights, activations = quantized_elements(shape, rows, length, sites)
    optimizer = 7 * FLOAT * parameters(shape) / found.copied
    return Floor(
        forward=products_seconds, step=3 * products_seconds + optimizer,
        quantization_forward=2 * FLOAT * activations / found.copied,
        quantization_step=5 * FLOAT * (weights + activations) / found.copied,
    )  # fmt: skip
