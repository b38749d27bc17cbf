"""Tests of tokenizers trained on rows and of tokenizers from checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from qexp.config import FromScratch
from qexp.data.arrow import from_texts
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.synthetic import sample
from qexp.data.tokenization.tokenizers import make_tokenizer, tokenizer_for
from qexp.errors import ModelError
from tests.conftest import experiment, save_tokenizer, tiny_config

TASK = experiment("task=translation", "model=transformer_tiny").task
SCRATCH = FromScratch(vocabulary=500, layers=1, width=8, heads=2, inner=8, dropout=0.0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    table = sample("multi30k_en_de")["train"]
    return make_tokenizer([table["en"], table["de"]], 500)


def test_the_vocabulary_has_the_size_that_was_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == 500
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id] == [0, 1, 2]
    assert len(make_tokenizer([from_texts(["ab"])], 5000)) < 300, "there are no more pairs to join"


def test_words_of_the_rows_are_few_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Two women are holding a red ladder."
    assert len(tokenizer(text)["input_ids"]) < len(text) / 2


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_every_text_comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.removeprefix(" ") == text.removeprefix(" ")


def test_what_is_saved_is_what_is_loaded(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in ("Ein Mädchen läuft.", "a </s> b", "100 %"):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.pad_token_id == tokenizer.pad_token_id


CODE = """
from qexp.data.synthetic import sample
from qexp.data.tokenization.tokenizers import make_tokenizer
table = sample("multi30k_en_de")["train"]
print(make_tokenizer([table["en"], table["de"]], 600).backend_tokenizer.to_str())
"""


def test_the_same_rows_make_the_same_vocabulary_whatever_the_threads() -> None:
    made = set()
    for threads in ("1", "2", "5"):
        surroundings = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=surroundings
        )
        made.add(hashlib.sha256(done.stdout.encode()).hexdigest())
    assert len(made) == 1


def test_a_model_from_scratch_has_a_tokenizer_of_the_train_split() -> None:
    splits = sample("multi30k_en_de")
    made = tokenizer_for(ScratchModel(SCRATCH, "tiny"), splits, TASK)
    again = make_tokenizer([splits["train"]["en"], splits["train"]["de"]], 500)
    assert made.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()


def test_an_encoder_is_refused_before_anything_is_tokenized(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match=r"model_type is bert.*marian, bart, t5.*model=transformer_tiny"):
        tokenizer_for(Checkpoint(tiny_bert, "0", "tiny"), {}, TASK)


@pytest.mark.parametrize(
    ("config", "settings", "files"),
    [
        ({}, {"separate_vocabs": True}, ()),
        ({"vocab_size": 60, "decoder_vocab_size": 50}, {}, ()),
        ({}, {}, ("target_vocab.json",)),
    ],
)
def test_a_vocabulary_for_each_language_is_refused(
    config: dict[str, int], settings: dict[str, bool], files: tuple[str, ...], tmp_path: Path
) -> None:
    """Ids of the target would be read as those of the source."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian", **config}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for file in files:
        (tmp_path / file).write_text("{}")
    task = experiment("task=translation").task
    with pytest.raises(ModelError, match=r"model.name=m: it has a vocabulary for each language.*one vocab"):
        tokenizer_for(Checkpoint(tmp_path, "", "m"), {}, task)


def test_a_library_that_a_tokenizer_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("MarianTokenizer requires the SentencePiece library\nand more")

    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(ModelError, match=r"requires the SentencePiece library.*pip install 'qexp\[marian\]'"):
        tokenizer_for(Checkpoint(tmp_path, "0", "opus"), {}, TASK)


def sentencepiece_checkpoint(folder: Path, kind: str, file: str) -> Checkpoint:
    """A configuration and a file of SentencePiece, without tokenizer.json."""
    texts = sample("multi30k_en_de")["train"]["en"].to_pylist()
    names = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "user_defined_symbols": ["[MASK]"]}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / "made"), vocab_size=100, minloglevel=2,
        **(names | ids if kind == "deberta-v2" else {}),
    )  # fmt: skip
    (folder / "made.vocab").unlink()
    (folder / "made.model").rename(folder / file)
    AutoConfig.for_model(kind, vocab_size=160).save_pretrained(folder)
    return Checkpoint(folder, "", str(folder))


@pytest.mark.parametrize(
    ("kind", "file"), [("deberta-v2", "spm.model"), ("xlm-roberta", "sentencepiece.bpe.model")]
)
def test_a_file_of_sentencepiece_is_a_tokenizer(kind: str, file: str, tmp_path: Path) -> None:
    start = sentencepiece_checkpoint(tmp_path, kind, file)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / file))
    text = "Two women are holding a ladder."
    tokenizer = tokenizer_for(start, {}, experiment("task=mrpc").task)
    assert tokenizer.tokenize(text) == pieces.encode(text, out_type=str)


def test_the_library_of_a_sentencepiece_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = sentencepiece_checkpoint(tmp_path, "deberta-v2", "spm.model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelError, match=r"spm\.model is a file of SentencePiece.*pip install sentencepiece"):
        tokenizer_for(start, {}, experiment("task=mrpc").task)


def without_padding(folder: Path, pad_token_id: int | None) -> Checkpoint:
    save_tokenizer(folder)
    rust = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=rust, cls_token="[CLS]").save_pretrained(folder)
    config = tiny_config("bert", 200)
    config.pad_token_id = pad_token_id
    config.save_pretrained(folder)
    return Checkpoint(folder, "", str(folder))


def test_the_padding_token_may_be_that_of_the_configuration(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(without_padding(tmp_path, 0), {}, experiment("task=mrpc").task)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 0)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").pad_token_id == 0


@pytest.mark.parametrize("pad_token_id", [None, 10_000])
def test_a_checkpoint_without_a_padding_token_is_refused(pad_token_id: int | None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no padding token, and pad_token_id=(None|10000)"):
        tokenizer_for(without_padding(tmp_path, pad_token_id), {}, experiment("task=mrpc").task)


@pytest.mark.parametrize("types", [1, 2])
def test_types_that_the_post_processor_makes_are_used(types: int, tmp_path: Path) -> None:
    """The general class of transformers 5 does not list them."""
    save_tokenizer(tmp_path)
    rust = AutoTokenizer.from_pretrained(tmp_path).backend_tokenizer
    general = PreTrainedTokenizerFast(
        tokenizer_object=rust, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    assert "token_type_ids" not in general.model_input_names
    for file in tmp_path.iterdir():
        file.unlink()
    general.save_pretrained(tmp_path)
    tiny_config("bert", len(general), type_vocab_size=types).save_pretrained(tmp_path)
    start = Checkpoint(tmp_path, "", str(tmp_path))
    used = tokenizer_for(start, {}, experiment("task=mrpc").task)
    assert ("token_type_ids" in used.model_input_names) == (types > 1)
    used.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.model_input_names == used.model_input_names
    pair = again("a", "a")
    assert pair.get("token_type_ids", []) == ([0, 0, 0, 1, 1] if types > 1 else [])
