"""Gate that decides whether an engine computes the model, by comparing its predictions to a noise floor.

An engine never reproduces PyTorch's last bits, and fake quantization occasionally turns a last bit into a
whole step of a grid, which later layers spread. The size of this effect depends on the model and its rows, so
it is measured: the *noise floor* is the same model in another float32 arithmetic
(:mod:`qexp.models.reordered`). An engine has ``failed`` if it differs from PyTorch in a way that the noise
floor does not: by more, on rows that the floor does not change, or consistently in one direction. Any other
difference is noise: the engine has ``passed`` if it agrees with PyTorch within :data:`MIN_AGREEMENT` and
:data:`MAX_METRIC_DIFFERENCE`, and is ``within noise`` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qexp.config import RerankingTask, score_name
from qexp.data.metrics.bootstrap import randomization_test
from qexp.tasks.comparison import GateComparison, measures_of
from qexp.tasks.difference_histogram import histogram_of

Array = NDArray[Any]
Verdict = Literal["passed", "within noise", "failed"]

MIN_AGREEMENT = 99.5
"""Smallest share of rows, in percent, with the same prediction as torch for the verdict ``passed``."""
MAX_METRIC_DIFFERENCE = 0.2
"""Largest difference of a metric, in points, for the verdict ``passed``, unless one row is worth more."""
ROUNDING = 1e-9
"""Tolerance for the rounding of metric differences, in points."""
SCALE = 2.0
"""Factor by which the differences of a correct engine may exceed the floor's: it may round more often."""
DRIFT = 1e-3
"""Smallest drift that counts, as a fraction of the logits' standard deviation or of a logit."""
FEWEST = 30
"""Number of distinct rows below which drift cannot be distinguished from chance."""
LEVELS = (0.5, 0.75, 0.9, 0.97, 1.0)
"""Quantiles of the floor's differences that the engine's differences are compared to."""
SIGMAS = 5.0
"""Number of standard errors beyond which drift is not chance: 1 in 3.5 million for normal errors."""
P_VALUE = 0.001
"""p-value of the randomization test below which a metric's difference is not chance."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
"""Quantiles of the differences that the verdict reports."""


def judge(comparison: GateComparison) -> dict[str, Any]:
    """Return the verdict, figures of engine and floor, and reasons of a failure, as plain JSON values."""
    engine, floor = (_of_rows(flips) for flips in comparison.flips)
    agreement = 100.0 * float(1 - engine.mean())
    worst = max((each[0] for each in comparison.metrics.values()), default=0.0)
    close = all(
        points <= max(MAX_METRIC_DIFFERENCE, 100.0 / comparison.rows) + ROUNDING
        for points, _, _ in comparison.metrics.values()
    )
    reasons = list(_reasons(comparison))
    cosines = [{"cosines": _cosines(side)} for side in comparison.cosines or ()] or [{}, {}]
    shares = [{"overlap": _overlap(side)} for side in comparison.overlaps or ()] or [{}, {}]
    verdict: Verdict = "passed" if agreement >= MIN_AGREEMENT and close else "within noise"
    return {
        "rows": comparison.rows,
        **({} if comparison.words is None else {_unit(comparison): comparison.words}),
        "agreement": agreement,
        "max_logit_difference": _largest(comparison.engine),
        "metric_difference": worst if np.isfinite(worst) else None,
        "logit_differences": _quantiles(comparison.engine),
        "distribution": histogram_of(comparison.engine),
        **cosines[0],
        **shares[0],
        "floor": {
            "rows": sum(len(side.floor.ids) for side in comparison.splits.values()),
            "agreement": 100.0 * float(1 - floor.mean()),
            "metric_difference": _number(max((each[1] for each in comparison.metrics.values()), default=0.0)),
            "logit_differences": _quantiles(comparison.floor),
            "distribution": histogram_of(comparison.floor),
            **cosines[1],
            **shares[1],
        },
        "verdict": "failed" if reasons else verdict,
        "passed": not reasons,
        "reasons": reasons,
    } | _decisions(comparison)


def _unit(comparison: GateComparison) -> str:
    """Return what the parts of a row are whose predictions are compared."""
    return "documents" if isinstance(comparison.task, RerankingTask) else "words"


def _of_rows(flips: Array) -> Array:
    """Return which rows have another prediction, bool [rows], from flips by row or by decision of a row."""
    return flips if flips.ndim == 1 else np.asarray(flips.any(axis=1))


def _decisions(comparison: GateComparison) -> dict[str, Any]:
    """Return the share of rows, in percent, with the same decision on each label, if rows have several."""
    flips, names = comparison.flips[0], getattr(comparison.task, "labels", ())
    if flips.ndim == 1:
        return {}
    shares = 100.0 * (1 - flips.mean(axis=0))
    return {"decisions": dict(zip(names, shares.tolist(), strict=True))}


def _reasons(comparison: GateComparison) -> Iterator[str]:
    """Yield the reasons why the engine does not compute the model; none if noise explains all differences."""
    if not comparison.finite:
        yield "logits that are not finite"
        return
    reasons = [*_beyond_the_floor(comparison), *_drift(comparison), *_flips(comparison)]
    yield from reasons or _metrics(comparison)


def _beyond_the_floor(comparison: GateComparison) -> Iterator[str]:
    """Check for differences larger than the floor's: too many rows above one of its quantiles."""
    sampled, distinct = comparison.sampled, comparison.distinct
    noise = np.full(len(sampled), np.nan)
    noise[sampled] = comparison.noise
    engine, floor = comparison.engine[distinct], noise[distinct[sampled[distinct]]]
    for level in LEVELS:
        limit = SCALE * float(np.quantile(floor, level)) + comparison.resolution
        above = int((engine > limit).sum())
        expected = max((1 - level) * len(engine), comparison.beyond(SCALE))
        if above > _most(expected):
            yield (
                f"{above} of {len(engine)} rows differ by more than {limit:.3g}, {SCALE:g} times the "
                f"{100 * level:g} % quantile of the noise floor, where {expected:.0f} are expected"
            )
            return
    engine = engine[sampled[distinct]]
    paired = int((engine > SCALE * floor + comparison.resolution).sum())
    if paired > _most(len(engine) / 2):
        yield f"{paired} of {len(engine)} rows differ by more than {SCALE:g} times what the floor does there"


def _most(expected: float) -> float:
    """Return an upper bound of a Poisson count; its mean is raised by a quarter, as the floor is a sample."""
    mean = 1.25 * expected
    return mean + 4 * float(np.sqrt(mean)) + 4


def _drift(comparison: GateComparison) -> Iterator[str]:
    """Check for differences in one direction, an offset or a factor of an output; noise has no direction.

    The engine is compared to the floor here, not to torch: torch's logits contain its own noise, which would
    look like a factor below 1 wherever they are little more than noise.
    """
    least, steps = max(DRIFT, 4 * comparison.roundoff), SCALE * comparison.steps
    for split, side in comparison.splits.items():
        logits, off, groups = comparison.distinct_outputs(side)
        if len(logits) < FEWEST:
            continue
        for output, (values, differences) in enumerate(zip(logits.T, off.T, strict=True)):
            where = f"output {output}" + (f" of {split}" if len(comparison.splits) > 1 else "")
            offset, error = _mean(differences, groups)
            if (
                abs(offset) > least * values.std() + comparison.smallest + steps
                and abs(offset) > SIGMAS * error
            ):
                yield f"{where} is off by {offset:.3g} on average ({abs(offset) / error:.0f} standard errors)"
            slope, error = _slope(values, differences, groups)
            if abs(slope) * values.std() > least * values.std() + steps and abs(slope) > SIGMAS * error:
                sigmas = abs(slope) / error
                yield f"{where} is off by a factor of {1 + slope:.4f} ({sigmas:.0f} standard errors)"


def _mean(values: Array, groups: Array) -> tuple[float, float]:
    """Return the mean and its standard error, for values that depend on each other within a group."""
    mean = values.mean()
    error = _norm(values - mean, groups) / len(values)
    return float(mean), error or np.finfo(float).tiny


def _slope(x: Array, y: Array, groups: Array) -> tuple[float, float]:
    """Return the least-squares slope of y on x and its standard error.

    The error is that for unequal variances (White 1980), and for values that depend on each other within a
    group (Liang and Zeger 1986, "Longitudinal data analysis using generalized linear models").
    """
    x, y = x - x.mean(), y - y.mean()
    if not (total := float(np.square(x).sum())):
        return 0.0, np.inf
    slope = float((x * y).sum()) / total
    error = _norm(x * (y - slope * x), groups) / total
    return slope, error or np.finfo(float).tiny


def _norm(values: Array, groups: Array) -> float:
    """Return the norm of the sums of the values of each group."""
    return float(np.sqrt(np.square(np.bincount(groups, weights=values)).sum()))


def _flips(comparison: GateComparison) -> Iterator[str]:
    """Check for changed predictions: more than noise causes, or at margins that are too large for noise."""
    engine, floor = comparison.flips
    expected, margins = 1.25 * float(floor.sum()) * comparison.rows_of_one, comparison.margins
    if margins is not None:
        noise = SCALE * np.sort(comparison.noise) + comparison.resolution
        likely = 1 - np.searchsorted(noise, margins) / len(noise)
        expected = max(expected, float(likely.sum()))
    if int(engine.sum()) > _most(expected):
        rows = "" if comparison.sampled.all() else f" of {len(floor)} rows"
        yield f"{int(engine.sum())} predictions differ, {int(floor.sum())} in the noise floor{rows}"
    if margins is None:
        return
    limit = 2 * float(noise[-1])
    beyond = engine & (margins > limit)
    if beyond[comparison.sampled].any() or int(beyond.sum()) > comparison.beyond(2 * SCALE):
        yield (
            f"{int(beyond.sum())} predictions differ although torch's two best scores are up to "
            f"{float(margins[beyond].max()):.3g} apart; noise explains {limit:.3g}"
        )


def _metrics(comparison: GateComparison) -> Iterator[str]:
    """Check for metrics that differ by more than the changed rows make likely."""
    for split, side in comparison.splits.items():
        for name, measure in measures_of(comparison.task).items():
            metric = score_name(name, split, comparison.task)
            points, noise, row = comparison.metrics[metric]
            if points <= max(MAX_METRIC_DIFFERENCE, row, SCALE * noise) + ROUNDING:
                continue
            if not np.isfinite(points):
                yield f"{metric} is undefined on one side only"
                continue
            predictions = side.engine.predictions, side.torch.predictions
            if (chance := randomization_test(measure, *predictions, side.torch.labels)) < P_VALUE:
                yield f"{metric} differs by {points:.2f} points, {noise:.2f} of noise (p = {chance:.4f})"


def _quantiles(differences: Array) -> dict[str, float | None]:
    return {name: _number(np.quantile(differences, level)) for name, level in QUANTILES.items()}


def _cosines(values: Array) -> dict[str, float | None]:
    return {name: _number(np.quantile(values, level)) for name, level in {"min": 0.0, "p50": 0.5}.items()}


def _overlap(values: Array) -> dict[str, float]:
    return {"min": float(values.min()), "mean": float(values.mean())}


def _largest(differences: Array) -> float | None:
    return _number(differences.max())


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
