"""Tests of translation through two engines, whose texts and scores must equal those of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qexp.artifacts.types import Tokens
from qexp.config import BeamSearch, TranslationTask
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export_translation import DECODER, ENCODER, export_translation
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.errors import DeployError
from qexp.tasks.exported import export, exported_run
from qexp.tasks.onnx_translation import EngineTranslator
from qexp.tasks.translation import TranslationAdapter, writer
from tests.conftest import experiment
from tests.support.fake_engines import FakeEngine
from tests.support.sequence_models import MODELS, batch, build
from tests.support.tiny_translators import quantize
from tests.support.translators import WORDS, prepared

pytestmark = pytest.mark.slow


def through_engines(folder: Path, runtime: str) -> EngineTranslator:
    engines = (load(runtime, EngineSpec(folder / name, "int8", 1)) for name in (ENCODER, DECODER))
    return EngineTranslator(folder, *engines)


@pytest.mark.parametrize(
    ("architecture", "int8"),
    [
        pytest.param(name, int8, marks=() if name == "marian" else pytest.mark.slow)
        for name in MODELS
        for int8 in (False, True)
    ],
)
def test_every_search_writes_the_words_of_torch(architecture: str, int8: bool, tmp_path: Path) -> None:
    model = build(architecture)
    model.generation_config.forced_bos_token_id = 7
    quantization = quantize(model) if int8 else None
    source = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    searches = [
        BeamSearch(beams=beams, length_penalty=penalty, max_new_tokens=9)
        for beams, penalty in ((1, 1.0), (3, 0.6), (4, 2.0))
    ]
    expected = [writer(model, search)(source) for search in searches]
    if quantization is not None:
        quantization.export_mode()
    export_translation(model, tmp_path, example=batch())
    for translator in (through_engines(tmp_path, runtime) for runtime in ("onnxruntime", "openvino")):
        for search, (words, scores) in zip(searches, expected, strict=True):
            result, own = writer(translator, search)(source)
            assert (words[:, 0] == 7).all()
            assert torch.equal(result, words)
            np.testing.assert_allclose(own, scores, rtol=0.02 if int8 else 1e-4)


def test_bleu_of_the_sample_is_that_of_torch(tmp_path: Path) -> None:
    tokens: Tokens = prepared(tmp_path / "tokens")
    asked = experiment(*WORDS, "task.search.beams=3", "task.search.max_new_tokens=8")
    assert isinstance(asked.task, TranslationTask)
    adapter, model = TranslationAdapter(asked.task), sample_model(tokens, asked)
    run = writer(model, asked.task.search)
    by_torch = adapter.predict(run, tokens, "test", rows=20, advance=lambda *_: None)
    folder = tmp_path / "graphs"
    folder.mkdir()
    rows = adapter.collate(adapter.split(tokens.split("train")), np.arange(2), tokens.pad_id)
    assert export(model, asked.task, folder, rows) == (ENCODER, DECODER)
    run = exported_run(asked.task, folder, lambda path: OnnxRuntimeEngine(EngineSpec(path, "fp32", 1)))
    by_engines = adapter.predict(run, tokens, "test", rows=20, advance=lambda *_: None)
    assert list(by_engines.predictions) == list(by_torch.predictions)
    assert adapter.score(by_engines) == adapter.score(by_torch)


def sample_model(tokens: Tokens, asked: Any) -> Any:
    from qexp.data.checkpoints import locate

    model = TranslationAdapter(asked.task).pretrained(locate(asked.model), tokens, 1).eval()
    model.set_attn_implementation("eager")
    return model


def test_a_runtime_without_states_is_refused(tmp_path: Path) -> None:
    model = build("marian")
    model.config.save_pretrained(tmp_path)
    model.generation_config.save_pretrained(tmp_path)
    with pytest.raises(DeployError, match=r"runtime fake returns one output.*use onnxruntime or openvino"):
        EngineTranslator(tmp_path, FakeEngine(), FakeEngine())


def test_what_the_decoder_reads_is_shifted_as_the_models_do() -> None:
    labels = torch.tensor([[5, 6, 2], [7, 2, -100]])
    model = build("bart")
    translator = EngineTranslator.__new__(EngineTranslator)
    torch.nn.Module.__init__(translator)
    translator.generation_config = model.generation_config
    shifted = translator.prepare_decoder_input_ids_from_labels(labels)
    assert torch.equal(shifted, model.prepare_decoder_input_ids_from_labels(labels))
