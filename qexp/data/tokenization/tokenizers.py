"""Tokenizers: loaded from a checkpoint, or trained on the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TokenTask, TranslationTask
from qexp.data.checkpoints import CONFIG, Checkpoint, ScratchModel, config_of
from qexp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
"""Padding, start of the decoder, and end of every text; ids 0, 1 and 2."""
POSITIONS = 1024
"""Maximum length of a text for a model from scratch, in tokens."""
ROWS_PER_CALL = 1024
"""Rows that are passed to the tokenizer's trainer at once."""
SENTENCEPIECE_FILES = ("spm.model", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
"""Names of SentencePiece's files in checkpoints."""
TARGET_VOCABULARY = "target_vocab.json"
"""File of Marian's vocabulary of the target, where it is not the source's."""
TRANSLATORS = ("marian", "bart", "t5")
"""``model_type`` of checkpoints that can translate."""


def make_tokenizer(columns: Sequence[pa.ChunkedArray], size: int) -> PreTrainedTokenizerBase:
    """Train a joint byte-level BPE vocabulary (Sennrich et al., 2016, on bytes) on columns of texts.

    Bytes represent any text in any language, so there is no unknown token. The same texts yield the same
    vocabulary, whatever the number of threads.

    Args:
        columns: Texts, such as sources and targets.
        size: Maximum size of the vocabulary, 256 bytes and three special tokens included; the result is
            smaller if the texts do not have enough pairs.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    rust.train_from_iterator(_texts(columns), trainer)
    end = rust.token_to_id(EOS)
    rust.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=POSITIONS,
        padding_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def _texts(columns: Sequence[pa.ChunkedArray]) -> Iterator[list[str]]:
    for column in columns:
        for start in range(0, len(column), ROWS_PER_CALL):
            yield column.slice(start, ROWS_PER_CALL).to_pylist()


def tokenizer_for(
    start: Checkpoint | ScratchModel, splits: Mapping[str, pa.Table], task: Task
) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer; for a model from scratch, train one on the train split.

    Raises:
        ModelError: The task is a translation and the checkpoint cannot translate, or its tokenizer cannot be
            loaded.
    """
    if isinstance(start, ScratchModel):
        assert isinstance(task, TranslationTask)  # validated by Experiment
        table = splits[task.train]
        return make_tokenizer((table[task.source], table[task.target]), start.scratch.vocabulary)
    if isinstance(task, TranslationTask):
        _check_translator(start)
        return _with_padding(_loaded(start), start)
    tokenizer = _of_words(start) if isinstance(task, TokenTask) else _loaded(start)
    return _with_types(_with_padding(tokenizer, start), start)


def _with_padding(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Give a tokenizer without a padding token the one of the model's configuration.

    Raises:
        ModelError: Neither has one.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer
    index = config_of(checkpoint).get("pad_token_id")
    token = tokenizer.convert_ids_to_tokens(index) if isinstance(index, int) else None
    if token is None:
        raise ModelError(
            f"model.name={checkpoint.name}: its tokenizer has no padding token, and pad_token_id={index} of "
            "its config.json names none; set tokenizer.pad_token and config.pad_token_id, and save both"
        )
    tokenizer.pad_token = token
    return tokenizer


def _with_types(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Have a tokenizer give token types if it makes them and the model has several.

    The general class of transformers 5 lists no ``token_type_ids``, whatever its post-processor makes.
    """
    from transformers import AutoConfig

    listed, types = tokenizer.model_input_names, "token_type_ids"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if types in listed or backend is None or not any(backend.encode("a", "a").type_ids):
        return tokenizer
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except Exception as error:  # transformers checks the fields of each architecture in its own way
        raise ModelError(
            f"model.name={checkpoint.name}: its {CONFIG} cannot be read: {' '.join(str(error).split())}; "
            "correct it, or save the model again"
        ) from error
    if getattr(config, "type_vocab_size", 0) > 1:
        tokenizer.model_input_names = [*listed, types]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer


def _of_words(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer, for words that are given one by one.

    Byte-level vocabularies have most words with a blank before them, which words of a list lack: it is added.
    """
    tokenizer = _loaded(checkpoint)
    if all(each.add_prefix_space for each in _byte_levels(tokenizer)):
        return tokenizer
    tokenizer = _loaded(checkpoint, add_prefix_space=True)
    for each in _byte_levels(tokenizer):  # the general class of transformers 5 does not read the setting
        each.add_prefix_space = True
    return tokenizer


def _byte_levels(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Return the parts of the pre-tokenizer that work on bytes."""
    from tokenizers.pre_tokenizers import ByteLevel, Sequence

    backend = getattr(tokenizer, "backend_tokenizer", None)
    first = getattr(backend, "pre_tokenizer", None)
    parts: list[Any] = list(first) if isinstance(first, Sequence) else [first]  # type: ignore[call-overload]
    return [part for part in parts if isinstance(part, ByteLevel)]


def _check_translator(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint can translate, and has one vocabulary for both languages.

    Raises:
        ModelError: It cannot, or has two.
    """
    config = json.loads((checkpoint.folder / CONFIG).read_text(encoding="utf-8"))
    if (kind := config.get("model_type")) not in TRANSLATORS:
        raise ModelError(
            f"model.name={checkpoint.name}: its model_type is {kind}; a translation needs one of "
            f"{', '.join(TRANSLATORS)}, or a model from scratch such as model=transformer_tiny"
        )
    settings = checkpoint.folder / "tokenizer_config.json"
    separate = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("separate_vocabs")
    tables = config.get("vocab_size"), config.get("decoder_vocab_size")
    if separate or (checkpoint.folder / TARGET_VOCABULARY).is_file() or (tables[1] or tables[0]) != tables[0]:
        raise ModelError(
            f"model.name={checkpoint.name}: it has a vocabulary for each language ({TARGET_VOCABULARY}), and "
            "only one for both is supported; choose a checkpoint with one vocab.json, such as most of "
            "Helsinki-NLP/opus-mt, or a model from scratch such as model=transformer_tiny"
        )


def _loaded(checkpoint: Checkpoint, **settings: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, use_fast=True, trust_remote_code=False, **settings
        )
    except ImportError as error:
        raise ModelError(
            f"model.name={checkpoint.name}: its tokenizer needs a library that is not installed "
            f"({str(error).strip().splitlines()[0]}); Marian's needs: pip install 'qexp[marian]'"
        ) from error
    except Exception as error:  # of transformers, tokenizers and Rust; the last has no class of its own
        _check_sentencepiece(checkpoint, error)
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"model.name={checkpoint.name}: its tokenizer cannot be loaded: {problem}; "
            "save it again: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        ) from error


def _check_sentencepiece(checkpoint: Checkpoint, error: Exception) -> None:
    """Check that the library of the tokenizer's file is installed; transformers 5 then asks for tiktoken.

    Raises:
        ModelError: The checkpoint has a file of SentencePiece, which is not installed.
    """
    files = [name for name in SENTENCEPIECE_FILES if (checkpoint.folder / name).is_file()]
    if files and find_spec("sentencepiece") is None:
        raise ModelError(
            f"model.name={checkpoint.name}: {files[0]} is a file of SentencePiece, which is not installed; "
            "pip install sentencepiece, or save the tokenizer as tokenizer.json where it is installed"
        ) from error
