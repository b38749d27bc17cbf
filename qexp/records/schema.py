"""Parts of a Record as plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict


def with_metrics(caveats: Mapping[str, str]) -> list[str]:
    """Group a stage's caveats by reason, as ``accuracy, f1: predicts …``, from one reason per metric."""
    metrics: dict[str, list[str]] = {}
    for metric, why in caveats.items():
        metrics.setdefault(why, []).append(metric)
    return [f"{', '.join(names)}: {why}" for why, names in metrics.items()]


class Failure(TypedDict):
    """Error that stopped a run."""

    type: str
    message: str
    traceback: str


class DataUsed(TypedDict):
    """Source and fingerprint of the rows, and their number in each split.

    ``reading`` has sentences on the files that were read, splits that were made, and classes that were found;
    ``checks`` on duplicates, balance and truncation.
    """

    source: str
    fingerprint: str
    rows: dict[str, int]
    reading: NotRequired[list[str]]
    checks: NotRequired[list[str]]


BINS_OF_DECADE = 4
"""Number of bins of a :class:`DifferenceHistogram` from one power of ten to the next."""


class DifferenceHistogram(TypedDict):
    """Number of rows by the largest absolute difference of a logit.

    Item ``k`` of ``counts`` is the number of rows with a difference from ``10 ** ((first + k) / 4)`` up to
    the next bin. ``below`` is the number of rows with a smaller difference than 1e-9, or none.
    """

    below: int
    first: int
    counts: list[int]


class ParityResult(TypedDict):
    """Exported graph compared with PyTorch: ``agreement`` in percent, ``metric_difference`` in points.

    ``floor`` has the same numbers for PyTorch in another arithmetic, and ``reasons`` the differences that
    noise does not explain. Records from before the noise floor was introduced have neither, and no
    ``verdict``. ``distribution`` is newer, of the engine and of the ``floor``.
    """

    agreement: float | None
    max_logit_difference: float | None
    metric_difference: float | None
    passed: bool
    rows: int
    words: NotRequired[int]
    documents: NotRequired[int]
    verdict: NotRequired[Literal["passed", "within noise", "failed"]]
    reasons: NotRequired[list[str]]
    logit_differences: NotRequired[dict[str, float | None]]
    distribution: NotRequired[DifferenceHistogram]
    floor: NotRequired[dict[str, Any]]


class ScoreInterval(TypedDict):
    """95 % interval of a stage's score minus FP32's in points, by the paired bootstrap over ``rows`` rows.

    Both ends are null where no resample defines both scores.
    """

    low: float | None
    high: float | None
    rows: int
    resamples: int


class Timing(TypedDict):
    """Latency quantiles of a batch in ms, rows per second, timed calls, and joules per row if measured."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_second: float
    runs: NotRequired[int]
    tokens_per_second: NotRequired[float]
    joules_per_row: NotRequired[float]


class SessionCost(TypedDict):
    """What loading an engine costs: ``memory_bytes`` of resident memory and ``load_seconds``.

    Memory is what a process that holds nothing else grows by until the engine is loaded; the time ends with
    the answer to a first batch. Null has its ``reason``.
    """

    memory_bytes: int | None
    load_seconds: float | None
    reason: NotRequired[str]


class AuditResult(TypedDict):
    """Nodes that an engine executes for a batch of ``shape``.

    ``products`` is the number of matrix products, and ``integer_share`` the percentage of their work that is
    done in integers. ``conversions`` counts nodes that only quantize, dequantize or change a layout.
    ``in_float`` lists the largest products in floating point with ``name``, ``kernel`` and ``macs``.
    ``nodes`` counts the executed nodes by operator.
    """

    shape: list[int]
    products: int
    integer_share: float
    conversions: int
    in_float: list[dict[str, Any]]
    nodes: dict[str, int]


class EngineFound(TypedDict):
    """Results of one runtime in one precision; parts that were not reached are absent.

    ``info`` has version, device, bytes, build time in seconds, and command; ``gate`` the comparison with
    torch; ``scores`` the engine's own scores. ``latency`` is by shape (rows x tokens, or rows x beams of
    a translation), and ``problems`` by shape, or ``engine`` for the whole engine. ``session`` is newer.
    """

    info: NotRequired[dict[str, Any]]
    gate: NotRequired[ParityResult]
    scores: NotRequired[dict[str, float | None]]
    latency: NotRequired[dict[str, Timing]]
    session: NotRequired[SessionCost]
    audit: NotRequired[AuditResult]
    problems: NotRequired[dict[str, str]]


class Cost(TypedDict):
    """Bytes of all parameters; multiply-accumulates and bit operations of a row of ``tokens`` tokens."""

    tokens: int
    macs: int
    bops: int
    bytes: int


class Sites(TypedDict):
    """Number of quantizers, number of sites of each kind, and cost of the quantized model.

    Older Records have no cost.
    """

    quantizers: int
    sites: dict[str, int]
    cost: NotRequired[Cost]


class StageRun(TypedDict):
    """One stage of the pipeline: whether its artifact was built or cached, and the seconds of its build."""

    stage: str
    key: str
    state: Literal["built", "cached"]
    seconds: float


class Curve(TypedDict):
    """Downsampled loss of a training; each ``loss`` is the mean since the previous ``step``."""

    step: list[int]
    loss: list[float]


class KeptWeights(TypedDict):
    """Which weights of a training were kept, and why.

    ``rows`` of tokens were held out of the train split: of questions their windows, of queries their
    documents; ``metric`` is the task's first metric in percent, or ``loss``
    in nats, and null where nothing was held out. ``score`` has one for each ``step`` of evaluation, null
    where it is undefined. ``kept`` are the steps whose weights are kept, their mean if there are several, and
    ``kept_score`` is its score. ``stopped`` says whether patience ended the training.
    """

    rows: int
    metric: str | None
    step: list[int]
    score: list[float | None]
    kept: list[int]
    kept_score: float | None
    stopped: bool


def describe_kept(found: KeptWeights) -> str:
    """Return a sentence on which weights were kept."""
    kept, score = found["kept"], found["kept_score"]
    what = f"the weights of step {kept[0]}" if len(kept) == 1 else f"the mean of the weights of steps {kept}"
    scored = "" if score is None else f", {found['metric']} {score:.4g} on {found['rows']} held-out rows"
    return f"{what}{scored}" + (
        f"; patience ended it at step {found['step'][-1]}" if found["stopped"] else ""
    )


class ActivationRange(TypedDict):
    """Range of one quantized activation, and the smallest and largest value that calibration observed.

    ``sqnr`` is the expected signal-to-quantization-noise ratio in dB, from the histogram of calibration; null
    without noise or without signal.
    """

    low: float
    high: float
    seen_low: float
    seen_high: float
    sqnr: float | None


class OutlierDimensions(TypedDict):
    """Dimensions of an activation with a value more than 6 standard deviations from the activation's mean.

    ``count`` of the ``size`` dimensions have one. ``dimensions`` are the indices of those that reach
    farthest, at most 5, the farthest first, with the lowest and highest value of each in calibration.
    ``others_low`` and ``others_high`` are the range of all dimensions without an outlier.
    """

    size: int
    count: int
    dimensions: list[int]
    low: list[float]
    high: list[float]
    others_low: float
    others_high: float


class SweepJob(TypedDict):
    """Job of a sweep: ``name`` of its file, ``id`` (equal for equal overrides), and ``job`` from 0."""

    name: str
    id: str
    job: int


class Git(TypedDict):
    """State of the checkout that computed the Record."""

    commit: str
    dirty: bool
