"""Answers to questions, from a function of padded batches of windows; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from qexp.config import QuestionTask
from qexp.data.batches import ArrayForwardFn, evaluation_batches, padded_arrays
from qexp.data.metrics.answer_spans import BestAnswers, Collector, SpanLimits
from qexp.data.tokenization.references import References
from qexp.data.tokenization.windows import WindowSplit


def window_answers(
    forward: ArrayForwardFn,
    task: QuestionTask,
    folder: Path,
    reading: References,
    *,
    pad_id: int,
    advance: Callable[..., None],
    batch_size: int,
) -> BestAnswers:
    """Return the answers and their spans for the questions of ``reading``, the first rows of a split.

    Args:
        forward: Function from a padded batch to the scores of start and end, [batch, longest, 2].
        task: Limits of the search for answers.
        folder: Folder of the tokenized split.
        reading: Contexts of the rows.
        pad_id: Token id of padding.
        advance: Progress callback, called with the share of rows done since its last call.
        batch_size: Windows per batch.
    """
    windows, search = first_windows(WindowSplit.load(folder), len(reading.golds)), task.search
    null = search.null_threshold if task.unanswerable else None
    collector = Collector(
        windows, reading.contexts, SpanLimits(search.n_best, search.max_answer_length, null)
    )
    share = len(reading.golds) / len(windows)
    for batch in evaluation_batches(windows.lengths, batch_size=batch_size):
        logits = forward(padded_arrays(windows, batch, pad_id=pad_id))
        collector.add(batch, logits[..., 0], logits[..., 1])
        advance(len(batch) * share)
    return collector.answers()


def first_windows(windows: WindowSplit, rows: int) -> WindowSplit:
    """Return the windows of the first ``rows`` rows."""
    count = int(np.searchsorted(windows.rows, rows))
    columns = {name: getattr(windows, name)[:count] for name in ("rows", "starts", "ends")}
    return replace(windows, offsets=windows.offsets[: count + 1], **columns)
