"""Tables and CSV of paired comparisons of evaluations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from qexp.data.metrics.score_shift import Shift
from qexp.reporting.attempts import describe
from qexp.reporting.paired import AgreementCounts, EvaluationPair
from qexp.reporting.predictions import Evaluation
from qexp.reporting.table import DOUBLE_DAGGER, Table, points, score
from qexp.reporting.tables.comparison import marked


def tables_of(pair: EvaluationPair) -> list[Table]:
    """Return the table of metrics, and the table of right and wrong rows if predictions can be either."""
    title = f"{pair.first.run.task} {pair.split}: {pair.first.name} (A) and {pair.second.name} (B)"
    caption = (
        "\n".join(_described(letter, each) for letter, each in (("A", pair.first), ("B", pair.second))),
    )
    rows = tuple(
        (
            each.metric,
            _score(pair.first, each.metric, each.first),
            _score(pair.second, each.metric, each.second),
            points(each.points),
            "undefined" if each.low is None else f"{points(each.low)} to {points(each.high)}",
        )
        for each in pair.differences
    )
    header = ("metric", "A", "B", "B-A", "95 % interval of B-A")
    tables = [Table(title, header, rows=rows, caption=caption, notes=_notes(pair))]
    if pair.answers:
        tables.append(_right_and_wrong(pair, pair.answers))
    if pair.shift:
        tables.append(_shift(pair, pair.shift))
    return tables


def _score(each: Evaluation, metric: str, value: float | None) -> str:
    return marked(score(value), each.run.caveat(each.stage, metric))


def _doubts(pair: EvaluationPair) -> list[str]:
    """Return a note for each model and reason why its scores say nothing of it."""
    reasons = {
        f"{DOUBLE_DAGGER} {letter}: {why}": None
        for letter, each in (("A", pair.first), ("B", pair.second))
        for difference in pair.differences
        if (why := each.run.caveat(each.stage, difference.metric))
    }
    return [*reasons]


def _described(letter: str, each: Evaluation) -> str:
    marks = ["sample rows"] * bool(each.run.is_synthetic) + [each.run.budget] * (each.run.budget != "full")
    suffix = "".join(f", {mark}" for mark in marks)
    return f"- {letter}: {each.stage} of {describe(each.run)}{suffix} ({each.run.record.key})"


def _notes(pair: EvaluationPair) -> tuple[str, ...]:
    what = "queries have another order" if pair.shift else "rows have another prediction"
    difference = f"{pair.differing} of {pair.rows} {what}"
    if pair.distance is not None:
        difference += f"; the mean absolute difference is {pair.distance:.4g}"
    notes = [
        f"{difference}.",
        f"Interval: 2.5 and 97.5 percentiles of {pair.resamples} paired resamples of the rows, seed "
        f"{pair.seed}. It covers the choice of rows, not what another training seed would change.",
    ]
    notes += _doubts(pair)
    notes += [
        f"{each.metric}: undefined in {each.undefined} of {pair.resamples} resamples, which are left out."
        for each in pair.differences
        if each.undefined
    ]
    return tuple(notes)


def _right_and_wrong(pair: EvaluationPair, answers: AgreementCounts) -> Table:
    rows = (
        ("A right", str(answers.both), str(answers.only_first)),
        ("A wrong", str(answers.only_second), str(answers.neither)),
    )
    note = (
        f"McNemar's exact test on the {answers.only_first + answers.only_second} rows that one alone has "
        f"right: p = {answers.p_value:.3g}."
    )
    return Table(f"{pair.first.run.task} {pair.split}: rows", ("", "B right", "B wrong"), rows, notes=(note,))


_DIFFERENCES = ("mean", "median", "p1", "p5", "p95", "p99", "max_abs")


def _shift(pair: EvaluationPair, shift: Shift) -> Table:
    """Return the table of how far the scores of B are from those of A."""
    rows = [
        (name, *(f"{shift[key][each]:+.4f}" for each in _DIFFERENCES[:-1]), f"{shift[key]['max_abs']:.4f}")
        for key, name in (("logit", "logit"), ("probability", "sigmoid"))
    ]
    accepted = shift["accepted"]
    same = accepted["same_count"]
    correlations = ", ".join(
        f"{name} {'undefined' if shift[key] is None else format(shift[key], '.4f')}"
        for key, name in (("kendall", "Kendall's tau-b"), ("spearman", "Spearman's coefficient"))
    )
    notes = (
        f"Over {shift['documents']} documents of {shift['queries']} queries; "
        f"{correlations}, means over queries.",
        f"{shift['first_changed']:.2f} % of the queries have another first document.",
        f"Above a sigmoid of {accepted['threshold']:g}, A takes {accepted['reference']} documents and B "
        f"{accepted['shifted']}; {accepted['other']} are taken by one alone. "
        + (
            "No threshold of B takes as many as A."
            if same is None
            else f"B takes as many as A above {same:.4f}."
        ),
    )
    header = ("B-A", "mean", "median", "1 %", "5 %", "95 %", "99 %", "largest")
    return Table(f"{pair.first.run.task} {pair.split}: shift of scores", header, tuple(rows), notes=notes)


CSV_COLUMNS = (
    *("task", "split", "a", "a_stage", "b", "b_stage", "metric", "a_score", "b_score", "difference"),
    *("low", "high", "undefined_resamples", "resamples", "seed", "rows", "differing_rows"),
    *("both_right", "only_a_right", "only_b_right", "both_wrong", "mcnemar_p"),
)


def pairs_csv(pairs: Sequence[EvaluationPair]) -> str:
    """Format pairs as CSV with a header and one line for each split and metric; numbers are not rounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for pair in pairs:
        counts = pair.answers
        answers = (
            (counts.both, counts.only_first, counts.only_second, counts.neither, counts.p_value)
            if counts
            else ("",) * 5
        )
        for each in pair.differences:
            writer.writerow(
                [
                    *(pair.first.run.task, pair.split, pair.first.run.record.key, pair.first.stage),
                    *(pair.second.run.record.key, pair.second.stage),
                    *(each.metric, each.first, each.second, each.points, each.low, each.high),
                    *(each.undefined, pair.resamples, pair.seed, pair.rows, pair.differing, *answers),
                ]
            )
    return file.getvalue()
