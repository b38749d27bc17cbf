"""Strategies for whatever a user may hand over: faults of checkpoints, rows, YAML files, words."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
"""Values of JSON of any type."""

CONFIG_FIELDS = [
    "model_type",
    "architectures",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
    "id2label",
    "label2id",
    "num_labels",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "problem_type",
    "torch_dtype",
    "dtype",
    "auto_map",
    "is_decoder",
    "tie_word_embeddings",
    "quantization_config",
    "attention_probs_dropout_prob",
]

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)

Fault = Callable[[Path], None]


def field_is(name: str, value: Any) -> Fault:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


def field_is_gone(name: str) -> Fault:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        tree = json.loads(path.read_text())
        tree.pop(name, None)
        path.write_text(json.dumps(tree))

    return change


def file_is(name: str, content: bytes | float) -> Fault:
    """Replace a file, or cut it to a share of its length; a negative share removes it."""

    def change(folder: Path) -> None:
        path = folder / name
        whole = path.read_bytes() if path.exists() else b""
        if isinstance(content, float) and content < 0:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content if isinstance(content, bytes) else whole[: int(content * len(whole))])

    return change


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 7, 31, 33, 64, 10**6, 0.5, "8", None])

FAULTS = st.one_of(
    st.builds(field_is, st.sampled_from(CONFIG_FIELDS), JSON | NUMBERS),
    st.builds(field_is_gone, st.sampled_from(CONFIG_FIELDS)),
    st.builds(
        file_is, st.sampled_from(FILES), st.floats(-0.5, 1) | st.sampled_from([b"", b"{}", b"[]", b"\xff"])
    ),
)

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.just("the cat " * 400),
    st.lists(st.text(max_size=3) | st.integers(), max_size=3),
    st.just({"a": 1}),
    st.sampled_from(["no", "yes", ""]),
)

TASKS = st.sampled_from(
    [
        "classification",
        "regression",
        "question_answering",
        "token_classification",
        "multi_label",
        "embedding",
        "mrpc",
    ]
)

ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["text", "label", "question", "context", "answers", "tokens", "tags", "id", "text_pair"]
        ),
        CELLS,
        max_size=5,
    ),
    max_size=12,
)

GROUPS = [
    "task",
    "model",
    "data",
    "quant",
    "method",
    "finetune",
    "calibrator",
    "calibration",
    "placement",
    "scheme",
    "deploy",
    "machine",
    "budget",
    "refinement",
    "tracker",
    "recipe",
    "seed",
    "tags",
    "note",
]

NAMES = st.sampled_from(
    [
        "name",
        "kind",
        "learning_rate",
        "epochs",
        "batch_size",
        "bits",
        "sites",
        "path",
        "text",
        "label",
        "labels",
        "metrics",
        "max_length",
        "lengths",
        "percentile",
        "samples",
        "runtimes",
        "overrides",
        "train_steps",
        "x",
    ]
)

VALUES = st.one_of(
    st.integers(-5, 300).map(str),
    st.floats().map(str),
    st.text(string.printable, max_size=8),
    st.sampled_from(
        [
            "null",
            "true",
            "[]",
            "{}",
            "[1,2]",
            "{a:1}",
            "''",
            "mrpc",
            "w8a8",
            "${x}",
            "${oc.env:NO}",
            "???",
            "1,2",
            "choice(1,2)",
            "nan",
            "inf",
            "1e400",
            "full",
            "none",
            "sample",
        ]
    ),
)

KEYS = st.one_of(
    st.sampled_from(GROUPS),
    st.builds("{}.{}".format, st.sampled_from(GROUPS), NAMES),
    st.builds("{}{}.{}".format, st.sampled_from(["+", "++", "~"]), st.sampled_from(GROUPS), NAMES),
    st.text(string.ascii_letters + "._@/", min_size=1, max_size=8),
)

COMMANDS = st.lists(
    st.builds("{}={}".format, KEYS, VALUES) | st.text(string.printable, min_size=1, max_size=8), max_size=3
)

FIELDS = st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=4)

TEXTS = (
    st.builds(json.dumps, FIELDS | JSON)
    | st.text(max_size=30)
    | st.sampled_from(
        [
            "",
            "a: [",
            "\t- x",
            "defaults: [none]",
            "defaults: [/task: mrpc]",
            "_target_: os.system",
            "name: ${name}",
        ]
    )
)

OPTIONS = st.sampled_from(
    ("task", "model", "data", "quant", "scheme", "placement", "calibrator", "recipe", "budget")
)
