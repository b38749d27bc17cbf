"""Parts of a Record: what one run found, as plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict


def with_metrics(caveats: Mapping[str, str]) -> list[str]:
    """Caveats of one stage, ``accuracy, f1: predicts …``, each reason once; by metric they are given."""
    metrics: dict[str, list[str]] = {}
    for metric, why in caveats.items():
        metrics.setdefault(why, []).append(metric)
    return [f"{', '.join(names)}: {why}" for why, names in metrics.items()]


class Failure(TypedDict):
    """Why a run failed."""

    type: str
    message: str
    traceback: str


class DataUsed(TypedDict):
    """Where rows came from, what identifies them, and how many each split had."""

    source: str
    fingerprint: str
    rows: dict[str, int]


class Parity(TypedDict):
    """Exported graph against PyTorch: ``agreement`` in percent, ``metric_difference`` in points.

    ``floor``: the same numbers of PyTorch in another arithmetic; ``reasons``: what noise does not explain.
    Records from before there was a noise floor have neither, and no ``verdict``.
    """

    agreement: float | None
    max_logit_difference: float | None
    metric_difference: float | None
    passed: bool
    rows: int
    verdict: NotRequired[Literal["passed", "within noise", "failed"]]
    reasons: NotRequired[list[str]]
    logit_differences: NotRequired[dict[str, float | None]]
    floor: NotRequired[dict[str, Any]]


class Timing(TypedDict):
    """Latency quantiles of one batch in milliseconds, rows per second, and joules where they are known."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_second: float
    joules_per_row: NotRequired[float]


class Audit(TypedDict):
    """What an engine does with a batch of ``shape``: matrix products, percent of their work in integers.

    ``conversions``: nodes that only quantize, dequantize or change a layout; ``in_float``: the largest
    products in floating point, each with ``name``, ``kernel``, ``macs``; ``nodes``: executed, by operator.
    """

    shape: list[int]
    products: int
    integer_share: float
    conversions: int
    in_float: list[dict[str, Any]]
    nodes: dict[str, int]


class EngineFound(TypedDict):
    """One runtime in one precision: each part is there if it came so far.

    ``info``: version, device, bytes, seconds to build, command; ``gate``: the engine against torch;
    ``scores``: its own; ``latency``: by shape, rows x tokens; ``problems``: by shape, or ``engine`` for all.
    """

    info: NotRequired[dict[str, Any]]
    gate: NotRequired[Parity]
    scores: NotRequired[dict[str, float | None]]
    latency: NotRequired[dict[str, Timing]]
    audit: NotRequired[Audit]
    problems: NotRequired[dict[str, str]]


class Cost(TypedDict):
    """Bytes of all parameters; multiply-accumulates and bit operations of a row of so many tokens."""

    tokens: int
    macs: int
    bops: int
    bytes: int


class Sites(TypedDict):
    """How many quantizers were inserted, at how many sites of each kind, and what the model then costs.

    Older Records have no cost.
    """

    quantizers: int
    sites: dict[str, int]
    cost: NotRequired[Cost]


class StageRun(TypedDict):
    """One stage of the line: whether its artifact was built or found, and the seconds it took."""

    stage: str
    key: str
    state: Literal["built", "cached"]
    seconds: float


class Curve(TypedDict):
    """Loss of one training, thinned: ``loss`` is the mean over the steps from the one before to ``step``."""

    step: list[int]
    loss: list[float]


class ActivationRange(TypedDict):
    """Range of one quantized activation, beside what calibration saw of it.

    ``sqnr``: signal over quantization noise in dB, expected from the histogram of calibration; null
    where it has no noise or no signal.
    """

    low: float
    high: float
    seen_low: float
    seen_high: float
    sqnr: float | None


class SweepJob(TypedDict):
    """Job of a sweep: ``name`` is that of its file, ``id`` the same for the same words, ``job`` from 0."""

    name: str
    id: str
    job: int


class Git(TypedDict):
    """State of the checkout that computed the Record."""

    commit: str
    dirty: bool
