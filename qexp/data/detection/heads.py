"""What a fine-tuned checkpoint says of its task: the kind, the number of outputs, and their names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qexp.data.sources.class_names import are_placeholders, head_names
from qexp.errors import ModelError

KINDS = (
    "classification", "regression", "multi_label", "token_classification", "question_answering", "reranking",
    "embedding",
)  # fmt: skip
"""Kinds of task that are detected."""
_BY_PROBLEM = {
    "single_label_classification": "classification",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
"""Kind of task by ``problem_type`` of transformers."""
_SUFFIX = re.compile(r"For(\w+)$")
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
"""Pooling by the field of sentence-transformers."""
STATE = "trainer_state.json"
"""File of transformers' Trainer in its checkpoints."""


@dataclass(frozen=True)
class Head:
    """Head of a checkpoint.

    Attributes:
        kind: Kind of task; None where the head has one output, which is a regression or a reranking, or
            several of an unknown loss, which is a classification or a multi-label task.
        outputs: Number of outputs.
        names: Names of the outputs in their order; empty if they are ``LABEL_0``, … or not named.
        pooling: ``mean`` or ``cls`` of an embedding.
        positions: Longest sequence; None without a limit.
    """

    kind: str | None
    outputs: int = 1
    names: tuple[str, ...] = ()
    pooling: str | None = None
    positions: int | None = None


def head_of(config: Mapping[str, Any], folder: Path) -> Head:
    """Return the head of a checkpoint by its ``config.json``.

    Raises:
        ModelError: It has no head that was fine-tuned, or one that nothing here evaluates.
    """
    architecture = next(iter(config.get("architectures") or []), "")
    found = _SUFFIX.search(architecture)
    head, positions = found[1] if found else "", positions_of(config)
    if head == "TokenClassification":
        return Head("token_classification", *_outputs(config), positions=positions)
    if head == "QuestionAnswering":
        return Head("question_answering", 2, positions=positions)
    if head == "SequenceClassification":
        outputs, names = _outputs(config)
        return Head(_kind(config, outputs), outputs, names, positions=positions)
    if not head and (pooling := _pooling(folder)):
        return Head("embedding", pooling=pooling, positions=positions)
    raise ModelError(
        f"{folder}: architecture {architecture or 'unknown'} has no fine-tuned head of a classification, "
        "regression, token classification or question answering, and no modules.json of "
        "sentence-transformers; fine-tune it first, such as with: qexp task=classification data.path=ROWS "
        f"model.name={folder}"
    )


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Return the longest sequence of a model; RoBERTa's positions begin behind the padding id."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    shifted = config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return positions - 2 if shifted else positions


def checkpoint_in(folder: Path) -> Path:
    """Return the folder itself, or of an output folder of transformers' Trainer its best or last checkpoint.

    Raises:
        ModelError: There is neither a model nor a checkpoint in it.
    """
    if not folder.is_dir() or (folder / "config.json").is_file():
        return folder
    numbered = {
        int(found[1]): each
        for each in folder.iterdir()
        if (found := re.fullmatch(r"checkpoint-(\d+)", each.name)) and (each / "config.json").is_file()
    }
    if not numbered:
        raise ModelError(
            f"{folder}: no config.json, and no checkpoint-N of transformers' Trainer; name a folder that "
            "save_pretrained or Trainer wrote"
        )
    last = numbered[max(numbered)]
    best = Path(str(_json(last / STATE).get("best_model_checkpoint") or "")).name
    return next((each for each in numbered.values() if each.name == best), last)


def _kind(config: Mapping[str, Any], outputs: int) -> str | None:
    """Return the kind of a head for sequences; sentence-transformers marks its cross-encoders."""
    if "sentence_transformers" in config and outputs == 1:
        return "reranking"
    kind = _BY_PROBLEM.get(str(config.get("problem_type")))
    return None if kind == "regression" and outputs > 1 else kind


def _outputs(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Return the number and the names of the outputs; transformers leaves its defaults out of the file."""
    names = head_names(config.get("id2label") or {})
    count = len(names) or int(config.get("num_labels") or 2)
    return count, () if are_placeholders(names) or not names else names


def _pooling(folder: Path) -> str | None:
    """Return the pooling of a folder of sentence-transformers; None without one that is known."""
    if not (folder / "modules.json").is_file():
        return None
    settings = _json(folder / "1_Pooling" / "config.json")
    chosen = [name for field, name in _POOLINGS.items() if settings.get(field)]
    return chosen[0] if len(chosen) == 1 else None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}
