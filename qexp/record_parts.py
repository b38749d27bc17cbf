"""Parts of a Record: what one run found, as plain JSON objects."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


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
    """Exported graph against PyTorch: ``agreement`` in percent, ``metric_difference`` in points."""

    agreement: float | None
    max_logit_difference: float | None
    metric_difference: float | None
    passed: bool
    rows: int


class Timing(TypedDict):
    """Latency quantiles of one batch in milliseconds, and rows per second."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_second: float


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
