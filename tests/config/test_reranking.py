"""Settings of rerankings: distillation, thresholds, and generated rows."""

from __future__ import annotations

import pytest

from qexp.config import Qat, RerankingTask
from tests.conftest import experiment


def distillation(*words: str) -> tuple[float, float]:
    method = experiment("task=reranking", "data=sample", "quant=w8a8", *words).method
    assert isinstance(method, Qat)
    return method.distillation.labels, method.distillation.logits


def test_training_with_quantizers_learns_from_the_fp32_model() -> None:
    assert distillation() == (0, 1)
    assert distillation("method.distillation.logits=0.5") == (1, 0.5)
    assert distillation("method.distillation.hidden=1") == (1, 0)


def test_tokens_and_trainings_do_not_depend_on_the_threshold() -> None:
    tasks = [
        experiment("task=reranking", "data=sample", f"task.threshold={each}").task for each in (0.3, 0.5)
    ]
    assert tasks[0] != tasks[1] and tasks[0].without_decoding == tasks[1].without_decoding
    assert isinstance(tasks[0], RerankingTask) and tasks[0].outputs == 1
    with pytest.raises(ValueError, match=r"threshold"):
        experiment("task=reranking", "data=sample", "task.threshold=1")


@pytest.mark.parametrize("kind", ["reranking", "multi_label", "token_classification"])
def test_generated_rows_have_the_name_of_the_kind(kind: str) -> None:
    assert experiment(f"task={kind}", "data=sample").task.name == kind
    with pytest.raises(ValueError, match=r"data=sample"):
        experiment(f"task={kind}")
