"""``qexp export-encodings``: the folder of a run, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qexp.cli import export_encodings
from qexp.records.record import Record, read_all, records_folder
from tests.support.encodings import read_encodings, with_grids
from tests.support.tiny_runs import lively_bert, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a W4A8 run with QAT."""
    outputs = tmp_path_factory.mktemp("outputs")
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    run(outputs, "task=mrpc", "quant=w4a8", "method=qat", "deploy=none", f"model.name={bert}")
    return outputs


def record_of(outputs: Path) -> Record:
    return read_all(records_folder(outputs))[0][0]


@pytest.mark.parametrize(("folder", "told"), [("m", "m.aimet"), ("there.aimet", "not empty")])
def test_a_folder_that_ai_hub_or_the_user_would_not_want_is_refused(
    tmp_path: Path, folder: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.aimet" / "x").mkdir(parents=True)
    assert export_encodings.main(["0", "--output", str(tmp_path / folder)]) == 2
    assert told in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["there.aimet"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ptq", "qat"])
@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_the_two_files_compute_what_the_run_evaluated(
    finished: Path, tmp_path: Path, stage: str, version: str
) -> None:
    folder = tmp_path / "m.aimet"
    words = ["--stage", stage, "--encodings-version", version, "--output", str(folder)]
    assert export_encodings.main([record_of(finished).key, "--outputs", str(finished), *words]) == 0
    assert {each.name for each in folder.iterdir()} == {"m.onnx", "m.encodings"}
    encodings = read_encodings(folder / "m.encodings")
    assert {each.bits for each in encodings.values()} == {4, 8}
    expected, rows = _simulated(finished, stage)
    onnx.save(with_grids(onnx.load(folder / "m.onnx"), encodings), tmp_path / "grids.onnx")
    np.testing.assert_allclose(_logits(tmp_path / "grids.onnx", rows), expected, rtol=0, atol=1e-5)


def _simulated(outputs: Path, stage: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import torch
    from transformers import AutoTokenizer

    from qexp.analysis.run_models import model_of
    from qexp.context import RunContext
    from qexp.models.inference import load_quantized

    model = model_of(record_of(outputs), outputs, stage)  # type: ignore[arg-type]
    ctx = RunContext.at(outputs, model.experiment.machine)
    loaded, _ = load_quantized(model.encoder, model.quant_config, model.ranges, ctx)
    tokenizer = AutoTokenizer.from_pretrained(model.tokens.tokenizer)
    rows = tokenizer(["The old man sees the bird."], ["A bird is seen."], return_tensors="pt")
    with torch.inference_mode():
        logits = loaded(**rows).logits.numpy()
    return logits, {name: value.numpy() for name, value in rows.items()}


def _logits(file: Path, rows: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    from qexp.deploy.runtimes.onnxruntime.session import new_session

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(file, options)
    return np.asarray(session.run(None, {each.name: rows[each.name] for each in session.get_inputs()})[0])


@pytest.mark.slow
def test_a_run_in_floating_point_and_ranges_of_tokens_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert, outputs = lively_bert(tmp_path / "bert"), tmp_path / "outputs"
    common = ("task=mrpc", "deploy=none", f"model.name={bert}")
    for words, told in (
        (("quant=fp32",), "--stage ptq or qat"),
        (("quant=w8a8", "method=ptq", "scheme.activation.dynamic=token"), "dynamic=null"),
    ):
        record = run(outputs, *common, *words)
        folder = tmp_path / "m.aimet"
        assert export_encodings.main([record.key, "--outputs", str(outputs), "--output", str(folder)]) == 2
        assert told in capsys.readouterr().err
        assert not folder.exists()
