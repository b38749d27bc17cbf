"""Whole runs of translation on small models, from rows to BLEU: in FP32, after PTQ and after QAT."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoConfig, AutoTokenizer, MarianTokenizer

from qexp.data.synthetic import sample
from qexp.data.tokenization.pairs import PairSplit
from qexp.data.tokenization.tokenizers import make_tokenizer
from qexp.execution.job import FAILED, OK
from tests.support.jobs import TAUGHT, record_problem, refused, run
from tests.support.sequence_models import MODELS
from tests.support.translators import SIZES

QUICK = (
    "budget=smoke", "machine.progress=false", "machine.threads=1", "budget.evaluation_rows=40",
    "task.search.max_new_tokens=24", "task.search.beams=2", "finetune.batch_size=16", "deploy=none",
)  # fmt: skip
SCRATCH = ("task=translation", "model=transformer_tiny", "data=sample", *SIZES, *QUICK)


def test_one_run_reports_bleu_of_fp32_ptq_and_qat_with_its_signature(outputs: Path) -> None:
    code, record = run(*SCRATCH, "quant=w8a8")
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat"}
    assert all(set(scores) == {"bleu"} and 0 <= scores["bleu"] <= 100 for scores in record["scores"].values())
    for name in record["scores"]:
        assert record["scoring"][name]["test"]["sacrebleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert record["experiment"]["deploy"] == {"kind": "none"}
    assert record["experiment"]["finetune"]["schedule"] == "inverse_sqrt"
    assert record["data"]["preparation"]["train"] == {"truncated_source": 0, "truncated_target": 0}
    assert record["model"]["name"] == "transformer_tiny"
    files = list((outputs / "artifacts" / "6-scores").glob("*/predictions-test.parquet"))
    assert len(files) == 3
    for file in files:
        table = pq.read_table(file)
        assert table.column_names == ["id", "prediction", "label", "logit_0"]
        assert table["prediction"].type == table["label"].type == pa.string()
        assert table["label"].to_pylist() == sample("multi30k_en_de")["test"]["de"].to_pylist()[:40]

    code, again = run(*SCRATCH, "quant=w8a8")
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
    assert again["scores"] == record["scores"]


@pytest.mark.slow
def test_whole_translations_go_through_the_exported_files(outputs: Path) -> None:
    engines = (
        "deploy=auto",
        "deploy.runtimes=[onnxruntime,openvino]",
        "deploy.batch_sizes=[1,4]",
        "deploy.runs=3",
        "budget.benchmark_runs=10",
    )
    words = [word for word in SCRATCH if word != "deploy=none"]
    code, record = run(
        *words, "quant=w8a8", "method=ptq", "placement=neurst", *engines, "deploy.cache_bits=8"
    )
    assert code == OK, record_problem()
    assert record["experiment"]["deploy"]["kind"] == "engines"
    for name in ("onnxruntime/int8", "onnxruntime/fp32", "openvino/int8", "openvino/fp32"):
        engine = record["engines"][name]
        assert engine["gate"]["passed"], engine["gate"]
        assert set(engine["latency"]) == {"1xbeam1", "4xbeam1", "1xbeam5", "4xbeam5"}
        for timing in engine["latency"].values():
            assert timing["tokens_per_second"] >= timing["samples_per_second"]
        assert (engine["audit"]["integer_share"] > 0) == name.endswith("int8")  # attention alone
        assert engine["session"]["memory_bytes"] > 0 and engine["session"]["load_seconds"] > 0
    assert record["latency"]["int8"]["4"] == record["engines"]["onnxruntime/int8"]["latency"]["4xbeam1"]
    assert record["scores"]["onnx"] == record["scores"]["ptq"]
    int8 = max(each["info"]["bytes"] for name, each in record["engines"].items() if name.endswith("int8"))
    assert record["bytes"]["int8"] == int8 < record["bytes"]["fp32"]
    sizes = {
        sum(file.stat().st_size for file in folder.glob("*.onnx"))
        for folder in (outputs / "artifacts" / "7-onnx").iterdir()
    }
    assert {record["bytes"]["int8"], record["bytes"]["fp32"]} <= sizes


@pytest.mark.parametrize("words", [("quant=w8a8",), ("quant=fp32", "method=control")], ids=" ".join)
def test_a_translation_learns_from_a_teacher(words: tuple[str, ...]) -> None:
    code, record = run(*SCRATCH, *words, *TAUGHT)
    assert code == OK, record_problem()
    assert list(record["scores"])[-1] in ("qat", "control")


def test_another_search_evaluates_again_and_trains_nothing() -> None:
    run(*SCRATCH, "quant=fp32")
    _, record = run(*SCRATCH, "quant=fp32", "task.search.beams=1")
    assert [stage["state"] for stage in record["stages"]] == ["cached", "cached", "built"]


@pytest.mark.slow
def test_the_sample_is_learned(outputs: Path) -> None:
    """A few hundred steps are enough for the captions, if every part of the line does its work."""
    code, record = run(
        *SCRATCH, "quant=w8a8", "method=ptq", "budget.train_steps=300", "finetune.batch_size=32",
        "finetune.learning_rate=5e-3", "model.scratch.width=64", "model.scratch.dropout=0.0",
        "calibration.samples=64",
    )  # fmt: skip
    assert code == OK, record_problem()
    (facts,) = (outputs / "artifacts" / "2-fp32").glob("*/facts.json")
    losses = json.loads(facts.read_text())["loss"]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert record["scores"]["fp32"]["bleu"] > 30
    assert abs(record["scores"]["ptq"]["bleu"] - record["scores"]["fp32"]["bleu"]) < 10


def checkpoint(folder: Path, architecture: str) -> Path:
    """A small random model with a fast tokenizer, as a hub's checkpoint lies on disk."""
    import torch

    table = sample("multi30k_en_de")["train"]
    tokenizer = make_tokenizer([table["en"], table["de"]], 300)
    tokenizer.save_pretrained(folder)
    model_class, config = MODELS[architecture]()
    config.vocab_size = config.decoder_vocab_size = len(tokenizer)
    if architecture != "t5":
        config.max_position_embeddings = 128
    config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, tokenizer.bos_token_id
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=() if name == "marian" else pytest.mark.slow) for name in MODELS],
)
def test_checkpoints_walk_the_whole_line(architecture: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / architecture, architecture)
    words = ("task=translation", f"model.name={folder}", "data=sample", *QUICK, "task.max_length=100")
    code, record = run(*words, "quant=w8a8")
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat"}
    assert record["experiment"]["finetune"]["schedule"] == "linear"
    assert AutoConfig.from_pretrained(folder).model_type == architecture
    code, as_it_is = run(*words, "quant=fp32", "finetune=none")
    assert code == OK, record_problem()
    assert as_it_is["scores"]["fp32"]["bleu"] < 10


def test_neursts_recipe_walks_the_whole_line() -> None:
    code, record = run(*SCRATCH, "quant=w8a8", "recipe=neurst")
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat"}
    assert record["sites"]["sites"]["embedding.weight"] >= 1
    assert record["experiment"]["calibrator"]["kind"] == "clip"


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marians_own_tokenizers_make_ids_of_both_sides(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="pip install 'qexp[marian]' for Marian's tokenizers")
    folder = marian(tmp_path, spm)
    words = ("task=translation", f"model.name={folder}", "data=sample", *QUICK, "task.max_length=100")
    code, _ = run(*words, "quant=w8a8", "method=ptq")
    assert code == OK, record_problem()
    tokens = next((Path(os.environ["QEXP_OUTPUTS"]) / "artifacts" / "1-tokens").glob("*/splits/test"))
    split, tokenizer = PairSplit.load(tokens), AutoTokenizer.from_pretrained(folder)
    row = sample("multi30k_en_de")["test"].slice(0, 1).to_pylist()[0]
    assert list(split.source[: split.source_offsets[1]]) == tokenizer(row["en"])["input_ids"]
    assert list(split.target[: split.target_offsets[1]]) == tokenizer(text_target=row["de"])["input_ids"]


def marian(folder: Path, spm: Any) -> Path:
    """A small Marian checkpoint with a SentencePiece model for each language and one vocabulary for both."""
    table, pieces = sample("multi30k_en_de")["train"], {}
    for language, file in (("en", "source"), ("de", "target")):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(table[language].to_pylist()), model_prefix=str(folder / file),
            vocab_size=120, minloglevel=2,
        )  # fmt: skip
        (folder / f"{file}.model").rename(folder / f"{file}.spm")
        model = spm.SentencePieceProcessor(model_file=str(folder / f"{file}.spm"))
        pieces |= {model.id_to_piece(index): None for index in range(3, model.get_piece_size())}
    vocabulary = {piece: index for index, piece in enumerate(["</s>", "<unk>", *pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    MarianTokenizer(*files, model_max_length=100).save_pretrained(folder)
    model_class, config = MODELS["marian"]()
    config.vocab_size = config.decoder_vocab_size = len(vocabulary)
    config.max_position_embeddings = 128
    config.eos_token_id, config.pad_token_id = 0, len(vocabulary) - 1
    config.decoder_start_token_id, config.bos_token_id = len(vocabulary) - 1, None
    model_class(config).save_pretrained(folder)
    return folder


def test_an_encoder_is_refused(tiny_bert: Path) -> None:
    code, record = run("task=translation", f"model.name={tiny_bert}", "data=sample", "quant=fp32", *QUICK)
    assert code == FAILED
    assert "model_type is bert" in record["error"]["message"]
    assert "model=transformer_tiny" in record["error"]["message"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task=mrpc", "model=transformer_tiny"], "models from scratch translate"),
        (["task=translation", "model=transformer_tiny", "finetune=none"], "has not learned anything"),
        (["task=translation", "model=transformer_tiny", "deploy=torch_int8"], "return no cache to a search"),
        (["task=mrpc", "deploy.beams=[1]"], "deploy.beams=(1,) with task=mrpc: only translations search"),
        (["task=translation", "model=transformer_tiny", "model.scratch.heads=3"], "3 do not divide"),
    ],
)
def test_contradictions_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, *words, "data=sample", "machine.progress=false")


def test_a_pair_with_an_empty_side_stops_the_run_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "multi30k_en_de"
    folder.mkdir(parents=True)
    for split, table in sample("multi30k_en_de").items():
        sides = table.slice(0, 20).to_pydict()
        if split == "train":
            sides["de"][7] = " "
        pq.write_table(pa.table(sides), folder / f"{split}.parquet")
    words = [word for word in SCRATCH if word != "data=sample"]
    message = refused(capsys, *words, "quant=fp32", "data=local", f"data.root={tmp_path / 'data'}")
    assert "train.parquet: column 'de', row 7" in message


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_captions_are_learned(outputs: Path) -> None:
    if not os.environ.get("QEXP_DATA"):
        pytest.skip("QEXP_DATA names no folder with real data sets")
    code, record = run(
        "task=translation", "model=transformer_tiny", "data=local", "quant=w8a8", "method=ptq",
        "machine.progress=false", "budget=smoke", "budget.train_steps=150", "finetune.epochs=1",
        "budget.evaluation_rows=100", "deploy=none",
    )  # fmt: skip
    assert code == OK, record_problem()
    assert record["data"]["rows"] == {"train": 29000, "test": 1000}
    (facts,) = (outputs / "artifacts" / "2-fp32").glob("*/facts.json")
    losses = json.loads(facts.read_text())["loss"]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
