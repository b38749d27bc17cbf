"""Tables of relative losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from qexp.reporting.published import source_notes
from qexp.reporting.relative_loss import AGAINST_CONTROL, Loss, PublishedLoss
from qexp.reporting.settings import label
from qexp.reporting.table import NOT_REQUESTED, Table, score
from qexp.reporting.tables.comparison import doubt_notes, marked, model_names, title
from qexp.reporting.tables.footnotes import Footnotes
from qexp.reporting.tables.glue import spread_or_why

COLUMNS = {
    "ptq": "PTQ loss (%)",
    "qat": "QAT loss (%)",
    AGAINST_CONTROL: "QAT loss against control (%)",
}
READING = (
    "Percent of the FP32 score that quantization costs, (FP32 - quantized) / FP32, as Q8BERT prints it; "
    "negative is a gain. Paired by seed, then the median, and (smallest..largest) where there are several."
)


def loss_tables(losses: Sequence[Loss], published: Sequence[PublishedLoss]) -> list[Table]:
    """Return a table for each comparison with a quantized row.

    Tables of full budgets on real rows end with the published rows of their task.
    """
    return [
        _table(list(of_comparison), published)
        for _, of_comparison in groupby(losses, key=lambda loss: id(loss.comparison))
    ]


def _table(losses: Sequence[Loss], published: Sequence[PublishedLoss]) -> Table:
    comparison, footnotes = losses[0].comparison, Footnotes()
    names = model_names(row.model for row in comparison.rows)
    stages = [stage for stage in COLUMNS if any(stage in loss.cells for loss in losses)]
    header = ("metric", "model", "quant", *map(label, comparison.split.columns), "FP32")
    header += tuple(COLUMNS[stage] for stage in stages)
    rows = [
        (
            loss.metric,
            names[loss.row.model],
            loss.row.quant,
            *comparison.columns_of(loss.row),
            marked(spread_or_why(loss.fp32, footnotes), loss.row.is_doubtful("fp32", loss.metric)),
            *(
                marked(spread_or_why(loss.cells.get(stage), footnotes), _is_doubtful(loss, stage))
                for stage in stages
            ),
        )
        for loss in losses
    ]
    published_rows = (
        [] if comparison.is_synthetic or comparison.budget != "full" else _of_task(published, comparison.task)
    )
    rows += [_published_row(each, len(comparison.split.columns), stages) for each in published_rows]
    notes = (*footnotes.lines(), *doubt_notes(rows), *source_notes(each.row for each in published_rows))
    return Table(
        f"relative loss: {title(comparison)}",
        header,
        rows=tuple(rows),
        caption=(READING,),
        notes=notes,
        labels=3,
        foreign=len(published_rows),
    )


def _is_doubtful(loss: Loss, stage: str) -> bool:
    """Return whether a loss is that of a stage, or of an FP32 model, whose score is uninformative."""
    stages = ("qat", "control") if stage == AGAINST_CONTROL else (stage, "fp32")
    return stage in loss.cells and any(loss.row.is_doubtful(each, loss.metric) for each in stages)


def _of_task(published: Iterable[PublishedLoss], task: str) -> list[PublishedLoss]:
    return [each for each in published if each.task == task]


def _published_row(each: PublishedLoss, settings: int, stages: Sequence[str]) -> tuple[str, ...]:
    cells = [score(each.loss) if stage == each.row.method else NOT_REQUESTED for stage in stages]
    facts = (each.metric, f"published: {each.row.label}", each.row.quant)
    return (*facts, *[NOT_REQUESTED] * settings, score(each.fp32), *cells)
