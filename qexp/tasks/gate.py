"""Is an engine the model, or something else? Its predictions, held against the floor of rounding noise.

An engine never has PyTorch's last bits, and fake quantization turns a last bit into a whole step of a grid
now and then, which the layers behind it spread. How far that goes depends on the model and on its rows, so it
is measured: the *noise floor* is the same model in another float32 arithmetic (:mod:`qexp.models.reordered`).
An engine has ``failed`` if it differs from PyTorch in a way that the floor does not: by more than the floor
does, on rows that the floor leaves alone, or always in one direction. What is left is noise: such an engine
has ``passed`` if it agrees with PyTorch as closely as :data:`MIN_AGREEMENT` and
:data:`MAX_METRIC_DIFFERENCE` say, and is ``within noise`` if it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qexp.config import score_name
from qexp.data.metrics.bootstrap import randomization_test
from qexp.tasks.comparison import Comparison, apart, measures_of

Array = NDArray[Any]
Verdict = Literal["passed", "within noise", "failed"]

MIN_AGREEMENT = 99.5
"""Least share of rows, in percent, on which engine and torch predict the same, to pass without the floor."""
MAX_METRIC_DIFFERENCE = 0.2
"""Largest difference of a metric, in points, to pass without the floor, unless one row is worth more."""
ROUNDING = 1e-9
"""What two differences that are meant to be equal may differ by."""
SCALE = 2.0
"""How many times the floor's differences a sound engine's may be: its operators may round more often."""
DRIFT = 1e-3
"""Least systematic difference that counts: a share of the logits' standard deviation, or of a logit."""
FEWEST = 30
"""Distinct rows without which no direction can be told from chance."""
LEVELS = (0.5, 0.75, 0.9, 0.97, 1.0)
"""Quantiles of the floor's differences that an engine's are held against."""
SIGMAS = 5.0
"""Standard errors beyond which chance is no explanation: 1 in 3.5 million for normal errors."""
P_VALUE = 0.001
"""Chance, by the randomization test, below which a metric's difference is none."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
"""What is told of a distribution of differences."""


def judge(comparison: Comparison) -> dict[str, Any]:
    """Verdict, numbers of the engine and of the floor, and the reasons of a failure, as plain JSON values."""
    engine, floor = comparison.flips
    agreement = 100.0 * float(1 - engine.mean())
    worst = max((found[0] for found in comparison.metrics.values()), default=0.0)
    close = all(
        points <= max(MAX_METRIC_DIFFERENCE, 100.0 / len(engine)) + ROUNDING
        for points, _, _ in comparison.metrics.values()
    )
    reasons = list(_reasons(comparison))
    verdict: Verdict = "passed" if agreement >= MIN_AGREEMENT and close else "within noise"
    return {
        "rows": len(engine),
        "agreement": agreement,
        "max_logit_difference": _largest(comparison.engine),
        "metric_difference": worst if np.isfinite(worst) else None,
        "logit_differences": _quantiles(comparison.engine),
        "floor": {
            "agreement": 100.0 * float(1 - floor.mean()),
            "metric_difference": _number(
                max((found[1] for found in comparison.metrics.values()), default=0.0)
            ),
            "logit_differences": _quantiles(comparison.floor),
        },
        "verdict": "failed" if reasons else verdict,
        "passed": not reasons,
        "reasons": reasons,
    }


def _reasons(comparison: Comparison) -> Iterator[str]:
    """Why the engine is not the model; nothing if noise explains what it does."""
    if not comparison.finite:
        yield "logits that are not finite"
        return
    known = [*_beyond_the_floor(comparison), *_drift(comparison), *_flips(comparison)]
    yield from known or _metrics(comparison)


def _beyond_the_floor(comparison: Comparison) -> Iterator[str]:
    """Differences that are larger than the floor's: in too many rows above one of its quantiles."""
    engine, floor = comparison.engine[comparison.distinct], comparison.noise[comparison.distinct]
    for level in LEVELS:
        limit = SCALE * float(np.quantile(floor, level)) + comparison.resolution
        above, expected = int((engine > limit).sum()), (1 - level) * len(engine)
        if above > _most(expected):
            yield (
                f"{above} of {len(engine)} rows differ by more than {limit:.3g}, {SCALE:g} times the "
                f"{100 * level:g} % quantile of the noise floor, where {expected:.0f} are expected"
            )
            return
    paired = int((engine > SCALE * floor + comparison.resolution).sum())
    if paired > _most(len(engine) / 2):
        yield f"{paired} of {len(engine)} rows differ by more than {SCALE:g} times what the floor does there"


def _most(expected: float) -> float:
    """Upper bound of a Poisson count, with a quarter for a floor that is itself a sample."""
    mean = 1.25 * expected
    return mean + 4 * float(np.sqrt(mean)) + 4


def _drift(comparison: Comparison) -> Iterator[str]:
    """Differences in one direction: an offset of an output, or a factor. Noise has no direction.

    The engine is held against the floor here, not against torch: torch's own noise is in its logits, and
    would look like a factor below 1 wherever they are little more than noise.
    """
    least, steps = max(DRIFT, 4 * comparison.roundoff), SCALE * comparison.steps
    for split, side in comparison.splits.items():
        logits, rows = np.unique(side.torch.logits.astype(np.float64), axis=0, return_index=True)
        if len(rows) < FEWEST:
            continue
        off = apart(side.engine, side.floor)[rows]
        for output, (values, differences) in enumerate(zip(logits.T, off.T, strict=True)):
            where = f"output {output}" + (f" of {split}" if len(comparison.splits) > 1 else "")
            offset, error = _mean(differences)
            if (
                abs(offset) > least * values.std() + comparison.smallest + steps
                and abs(offset) > SIGMAS * error
            ):
                yield f"{where} is off by {offset:.3g} on average ({abs(offset) / error:.0f} standard errors)"
            slope, error = _slope(values, differences)
            if abs(slope) * values.std() > least * values.std() + steps and abs(slope) > SIGMAS * error:
                sigmas = abs(slope) / error
                yield f"{where} is off by a factor of {1 + slope:.4f} ({sigmas:.0f} standard errors)"


def _mean(values: Array) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(len(values))) or np.finfo(float).tiny


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Least-squares slope of y on x, and its standard error for unequal variances (White 1980)."""
    x, y = x - x.mean(), y - y.mean()
    if not (total := float(np.square(x).sum())):
        return 0.0, np.inf
    slope = float((x * y).sum()) / total
    error = float(np.sqrt((np.square(x) * np.square(y - slope * x)).sum())) / total
    return slope, error or np.finfo(float).tiny


def _flips(comparison: Comparison) -> Iterator[str]:
    """Other predictions where torch is too sure for noise, or more of them than noise makes."""
    engine, floor = comparison.flips
    expected, margins = 1.25 * float(floor.sum()), comparison.margins
    if margins is not None:
        noise = SCALE * np.sort(comparison.noise) + comparison.resolution
        likely = 1 - np.searchsorted(noise, margins) / len(noise)
        expected = max(expected, float(likely.sum()))
    if int(engine.sum()) > _most(expected):
        yield f"{int(engine.sum())} predictions differ, {int(floor.sum())} in the noise floor"
    if margins is None:
        return
    limit = 2 * float(noise[-1])
    if (beyond := engine & (margins > limit)).any():
        yield (
            f"{int(beyond.sum())} predictions differ although torch's two best scores are up to "
            f"{float(margins[beyond].max()):.3g} apart; noise explains {limit:.3g}"
        )


def _metrics(comparison: Comparison) -> Iterator[str]:
    """Metrics that are better or worse than the rows that changed make likely."""
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


def _largest(differences: Array) -> float | None:
    return _number(differences.max())


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
