"""Tokenizers of artifacts, loaded without transformers, whose import takes seconds and torch along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKEN_TYPES = {
    "BertTokenizer": True, "BertTokenizerFast": True, "ElectraTokenizer": True, "ElectraTokenizerFast": True,
    "MobileBertTokenizer": True, "MobileBertTokenizerFast": True,
    "DistilBertTokenizer": False, "DistilBertTokenizerFast": False,
    "RobertaTokenizer": False, "RobertaTokenizerFast": False,
}  # fmt: skip
"""Whether tokenizers of a class of transformers make token types, unless their file says so."""
NO_LIMIT = int(1e30)
"""Maximum length of a tokenizer whose file has none, as in transformers."""


@dataclass(frozen=True)
class SavedTokenizer:
    """Fast tokenizer of a folder, with what tokenization reads of one of transformers."""

    backend_tokenizer: Tokenizer
    model_input_names: tuple[str, ...]
    model_max_length: int
    truncation_side: str
    split_special_tokens: bool
    is_fast: bool = True


def saved_tokenizer(folder: Path) -> Any:
    """Return the tokenizer that ``save_pretrained`` wrote; transformers loads one of another class."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    names, typed = config.get("model_input_names"), TOKEN_TYPES.get(str(config.get("tokenizer_class")))
    if (names is None and typed is None) or not (folder / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    from tokenizers import Tokenizer

    return SavedTokenizer(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        model_input_names=tuple(names or (("input_ids", "token_type_ids") if typed else ("input_ids",))),
        model_max_length=config.get("model_max_length", NO_LIMIT),
        truncation_side=config.get("truncation_side", "right"),
        split_special_tokens=config.get("split_special_tokens", False),
    )
