"""Runs that left predictions, to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sacrebleu

from qexp.data.metrics.glue import score
from qexp.data.metrics.squad import score_v2
from qexp.records.record import write
from qexp.reporting.predictions import PARITY, SCORES
from tests.support.record_factory import experiment, record

LABELS = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0]


def leave(
    outputs: Path,
    key: str,
    predictions: Mapping[str, Sequence[Any]],
    labels: Sequence[Any] = LABELS,
    *,
    ids: Sequence[Any] | None = None,
    source: str = "local",
    tree: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Write a Record and what its evaluations leave; ``predictions`` by stage."""
    tree = tree or experiment()
    splits = list(tree["task"]["evaluation"])
    visits = [{"stage": "1-tokens", "key": "abc", "state": "built", "seconds": 1.0}]
    scores: dict[str, dict[str, float | None]] = {}
    for stage, values in predictions.items():
        folder = PARITY if stage == "onnx" else SCORES
        visits.append({"stage": folder, "key": f"{key}-{stage}", "state": "built", "seconds": 1.0})
        found = scores_of(tree["task"], values, labels)
        scores[stage] = {
            name if len(splits) == 1 else f"{name}@{split}": value
            for split in splits
            for name, value in found.items()
        }
        place = outputs / "artifacts" / folder / f"{key}-{stage}"
        place.mkdir(parents=True)
        columns = {"id": ids or range(len(labels)), "prediction": values, "label": labels}
        columns |= {} if isinstance(values[0], str) else {"logit_0": values}
        for split in splits:
            pq.write_table(pa.table({name: list(of) for name, of in columns.items()}), file_of(place, split))
    fields = {"key": key, "scores": scores, "stages": visits, "source": source, **changes}
    write(record(tree, **fields), outputs / "records")
    return key


def scores_of(task: Mapping[str, Any], said: Sequence[Any], golds: Sequence[Any]) -> dict[str, float | None]:
    """As the stages compute them."""
    if task["kind"] == "translation":
        return {"bleu": sacrebleu.corpus_bleu(said, [golds], force=True).score}
    if task["kind"] == "question_answering":
        found = score_v2(said, golds)
        return {"exact_match": found["exact"], "f1": found["f1"]}
    return score(task["metrics"], np.array(said), np.array(golds))


def file_of(folder: Path, split: str = "validation") -> Path:
    return folder / f"predictions-{split}.parquet"
