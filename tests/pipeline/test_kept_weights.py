"""Whole runs whose weights are chosen: on held-out rows, and as the mean of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.errors import OK
from tests.support.jobs import QUICK, record_problem, run
from tests.support.translators import SIZES

CHOSEN = ("finetune.evaluate_steps=1", "finetune.holdout=40", "finetune.batch_tokens=512")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric", "rows"),
    [("mrpc", "accuracy", 40), ("stsb", "pearson", 40), ("squad", "loss", None)],
)
def test_a_run_says_which_weights_it_kept(task: str, metric: str, rows: int | None, tiny_bert: Path) -> None:
    words = (*QUICK[:-1], f"task={task}", f"model.name={tiny_bert}", "quant=w8a8", "deploy=none", *CHOSEN)
    windows = ("task.max_length=128", "task.doc_stride=32", "task.max_question=32") if task == "squad" else ()
    code, record = run(*words, "finetune.average=2", "finetune.average_of=best", *windows)
    assert code == OK, record_problem()
    found = record["selection"]["fp32"]
    assert found["metric"] == metric and found["step"] == [1, 2, 3, 4] and len(found["kept"]) == 2
    assert found["rows"] == rows or (rows is None and found["rows"] >= 40)
    assert found["kept_score"] is not None or None in found["score"]
    assert record["scores"]["qat"].keys() == record["scores"]["fp32"].keys()


@pytest.mark.slow
def test_a_translation_ends_early_and_is_quantized_from_its_best_weights() -> None:
    """QAT goes on at the rate at which the training ended, in batches of its own."""
    # At such a rate no weight changes, and no score gets better.
    words = ("task=translation", "model=transformer_tiny", *SIZES, *QUICK[:-1], *CHOSEN, "quant=w8a8")
    words = (*words, "finetune.learning_rate=1e-30", "finetune.patience=1", "method.schedule=continued")
    code, record = run(*words, "task.search.max_new_tokens=8", "method.batch_tokens=256")
    assert code == OK, record_problem()
    found = record["selection"]["fp32"]
    assert (found["metric"], found["rows"], found["stopped"]) == ("loss", 40, True)
    assert found["kept"] == [found["step"][found["score"].index(min(found["score"]))]]
    assert len(record["curves"]["fp32"]["step"]) == found["step"][-1] < 4
