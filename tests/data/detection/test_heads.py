"""Heads of checkpoints by their configuration, and checkpoints in a folder of transformers' Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, RobertaConfig

from qexp.data.detection.heads import checkpoint_in, head_of
from qexp.errors import ModelError
from tests.conftest import tiny_config


def config(architecture: str, **settings: Any) -> dict[str, Any]:
    """What transformers itself writes to config.json."""
    made = BertConfig(architectures=[architecture], **settings)
    written: dict[str, Any] = json.loads(made.to_json_string(use_diff=True))
    return written


@pytest.mark.parametrize(
    ("architecture", "settings", "kind", "outputs"),
    [
        ("BertForSequenceClassification", {"num_labels": 2}, None, 2),
        ("BertForSequenceClassification", {"num_labels": 5}, None, 5),
        (
            "BertForSequenceClassification",
            {"num_labels": 3, "problem_type": "single_label_classification"},
            "classification",
            3,
        ),
        (
            "BertForSequenceClassification",
            {"num_labels": 4, "problem_type": "multi_label_classification"},
            "multi_label",
            4,
        ),
        ("BertForSequenceClassification", {"num_labels": 1, "problem_type": "regression"}, "regression", 1),
        ("BertForSequenceClassification", {"num_labels": 1}, None, 1),
        (
            "BertForSequenceClassification",
            {"num_labels": 1, "sentence_transformers": {"version": "5.0"}},
            "reranking",
            1,
        ),
        ("BertForTokenClassification", {"num_labels": 9}, "token_classification", 9),
        ("BertForQuestionAnswering", {}, "question_answering", 2),
    ],
)
def test_the_architecture_and_the_loss_name_the_kind(
    architecture: str, settings: dict[str, Any], kind: str | None, outputs: int, tmp_path: Path
) -> None:
    head = head_of(config(architecture, **settings), tmp_path)
    assert (head.kind, head.outputs, head.names) == (kind, outputs, ())


def test_names_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    names = {2: "c", 0: "a", 1: "b", **{number: str(number) * 2 for number in range(3, 12)}}
    written = config("BertForSequenceClassification", id2label=names)
    written["id2label"] = dict(sorted(written["id2label"].items()))  # 0, 1, 10, 11, 2, …
    assert head_of(written, tmp_path).names[:4] == ("a", "b", "c", "33")


def test_a_longest_sequence_leaves_out_the_padding_positions_of_roberta(tmp_path: Path) -> None:
    roberta = RobertaConfig(architectures=["RobertaForSequenceClassification"], max_position_embeddings=66)
    assert head_of(roberta.to_dict(), tmp_path).positions == 64
    bert = tiny_config("bert", 50).to_dict() | {"architectures": ["BertForSequenceClassification"]}
    assert head_of(bert, tmp_path).positions == 160


@pytest.mark.parametrize(("field", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_a_folder_of_sentence_transformers_embeds(field: str, pooling: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{field}": True}))
    head = head_of(config("BertModel"), tmp_path)
    assert (head.kind, head.pooling) == ("embedding", pooling)


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM", "BartForConditionalGeneration"])
def test_a_checkpoint_without_a_fine_tuned_head_says_how_to_get_one(
    architecture: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"{architecture} has no fine-tuned head.*qexp task=classification"):
        head_of(config(architecture), tmp_path)


def write_checkpoints(folder: Path, *steps: int, best: int | None = None) -> None:
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "config.json").write_text("{}")
        state = {"best_model_checkpoint": best and f"/elsewhere/checkpoint-{best}"}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))


def test_the_last_checkpoint_of_a_trainer_is_taken_or_the_best_that_it_names(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, 90, 100)
    assert checkpoint_in(tmp_path).name == "checkpoint-100"
    (tmp_path / "best").mkdir()
    write_checkpoints(tmp_path / "best", 5, 10, best=5)
    assert checkpoint_in(tmp_path / "best").name == "checkpoint-5"
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint_in(tmp_path) == tmp_path


def test_a_folder_without_any_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json, and no checkpoint-N"):
        checkpoint_in(tmp_path)
