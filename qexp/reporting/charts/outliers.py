"""Chart of the outlier dimensions of a run's activations, over the range of all other dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from qexp.records.schema import OutlierDimensions
from qexp.reporting.charts.run import MOST_RANGES, ShownRun, natural, without_shared_beginning
from qexp.reporting.charts.spec import Axis, Lane, Mark, RangeChart, scale_of

MOST_NAMED = 5
"""Maximum number of dimensions that the note below a chart names."""


def outliers_chart(chosen: ShownRun) -> RangeChart | None:
    """Return the outlier dimensions of each activation, in the order of layers; None without any."""
    outliers = chosen.run.record.outliers
    if not outliers:
        return None
    order = sorted(outliers, key=natural)
    kept = set(sorted(order, key=lambda name: share_of_others(outliers[name]))[:MOST_RANGES])
    shown = [name for name in order if name in kept]
    short = without_shared_beginning(shown)
    lanes = tuple(Lane(text, tuple(_marks(outliers[name]))) for text, name in zip(short, shown, strict=True))
    left = len(order) - len(shown)
    notes = [f"Left out: {left} activations whose other dimensions need more of the range."] if left else []
    ends = [end for lane in lanes for mark in lane.marks for end in (mark.low, mark.high)]
    return RangeChart(
        f"{chosen.group}-outliers",
        chosen.group,
        title=f"{chosen.group}: outlier dimensions of activations",
        x=Axis("value of the activation", scale_of(ends)),
        lanes=lanes,
        legend=(
            ("seen", "all dimensions"),
            ("bar", "dimensions without an outlier"),
            ("outlier", "an outlier dimension"),
        ),
        notes=(_most_frequent(outliers), *notes),
    )


def share_of_others(each: OutlierDimensions) -> float:
    """Return the share of the whole range that the dimensions without an outlier need."""
    low, high = _ends(each)
    return (each["others_high"] - each["others_low"]) / (high - low)


def _ends(each: OutlierDimensions) -> tuple[float, float]:
    return min(*each["low"], each["others_low"]), max(*each["high"], each["others_high"])


def _marks(each: OutlierDimensions) -> Iterator[Mark]:
    low, high = _ends(each)
    others_low, others_high = each["others_low"], each["others_high"]
    with_outliers = f"{each['count']} of {each['size']} dimensions have outliers"
    yield Mark(low, high, "seen", f"{with_outliers}; all: {low:.4g} to {high:.4g}")
    words = (
        f"the other {each['size'] - each['count']} dimensions: {others_low:.4g} to {others_high:.4g}, "
        f"{share_of_others(each):.0%} of the range"
    )
    yield Mark(others_low, others_high, "bar", words)
    middle = (others_low + others_high) / 2
    for dimension, lowest, highest in zip(each["dimensions"], each["low"], each["high"], strict=True):
        end = max(lowest, highest, key=lambda value: abs(value - middle))
        yield Mark(end, end, "outlier", f"dimension {dimension}: {lowest:.4g} to {highest:.4g}")


def _most_frequent(outliers: Mapping[str, OutlierDimensions]) -> str:
    """Return a sentence on the dimensions that reach farthest in most activations of the most common size.

    An index means the same dimension in all hidden states, and another one inside feed-forward networks.
    """
    ((size, activations),) = Counter(each["size"] for each in outliers.values()).most_common(1)
    of_size = (each for each in outliers.values() if each["size"] == size)
    counts = Counter(dimension for each in of_size for dimension in each["dimensions"])
    named = ", ".join(f"{dimension} ({count})" for dimension, count in counts.most_common(MOST_NAMED))
    where = f"the {activations} activations of {size} dimensions"
    return f"Dimensions that reach farthest in most of {where}: {named}."
