"""Tokenizers: that of a checkpoint, or one that is made of the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TranslationTask
from qexp.data.checkpoints import CONFIG, Blueprint, Checkpoint
from qexp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
"""Padding, what a decoder starts from, and the end of every text; ids 0, 1 and 2."""
POSITIONS = 1024
"""Longest text of a model from scratch, in tokens."""
ROWS_PER_CALL = 1024
"""Rows given to the trainer at once."""
TRANSLATORS = ("marian", "bart", "t5")
"""``model_type`` of the checkpoints that translate."""


def make_tokenizer(columns: Sequence[pa.ChunkedArray], size: int) -> PreTrainedTokenizerBase:
    """A joint vocabulary of byte pairs (Sennrich et al., 2016, on bytes), made of columns of texts.

    Bytes spell every text of every language, so there is no unknown token. The same texts make the same
    vocabulary, whatever the number of threads.

    Args:
        columns: Texts, such as sources and targets.
        size: Most tokens, 256 bytes and three special ones included; fewer where the texts hold no more.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, BOS, EOS], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    rust.train_from_iterator(_texts(columns), trainer)
    end = rust.token_to_id(EOS)
    rust.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, pad_token=PAD, bos_token=BOS, eos_token=EOS, model_max_length=POSITIONS,
        padding_side="right", split_special_tokens=True, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _texts(columns: Sequence[pa.ChunkedArray]) -> Iterator[list[str]]:
    for column in columns:
        for start in range(0, len(column), ROWS_PER_CALL):
            yield column.slice(start, ROWS_PER_CALL).to_pylist()


def tokenizer_for(
    start: Checkpoint | Blueprint, splits: Mapping[str, pa.Table], task: Task
) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer; of a model from scratch, one that is made of the train split.

    Raises:
        ModelError: The checkpoint cannot translate where that is the task, or its tokenizer cannot be loaded.
    """
    if isinstance(start, Blueprint):
        assert isinstance(task, TranslationTask)  # Experiment sees to it
        table = splits[task.train]
        return make_tokenizer((table[task.source], table[task.target]), start.scratch.vocabulary)
    if isinstance(task, TranslationTask):
        _check_translator(start)
    return _loaded(start)


def _check_translator(checkpoint: Checkpoint) -> None:
    config = json.loads((checkpoint.folder / CONFIG).read_text(encoding="utf-8"))
    if (kind := config.get("model_type")) not in TRANSLATORS:
        raise ModelError(
            f"model.name={checkpoint.name}: its model_type is {kind}; a translation needs one of "
            f"{', '.join(TRANSLATORS)}, or a model from scratch such as model=transformer_tiny"
        )


def _loaded(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, use_fast=True)
    except ImportError as error:
        raise ModelError(
            f"model.name={checkpoint.name}: its tokenizer needs a library that is not installed "
            f"({str(error).strip().splitlines()[0]}); Marian's needs: pip install 'qexp[marian]'"
        ) from error
