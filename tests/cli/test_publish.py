"""``qexp publish``: the folder loads without qexp, and its model card agrees with the Record."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from qexp.cli import predict, publish
from qexp.data.synthetic import sample
from qexp.publishing import examples, folder
from qexp.publishing.model_card import _gate
from qexp.records.record import Record, read_all, records_folder
from tests.conftest import experiment
from tests.support.record_factory import record as is_synthetic
from tests.support.tiny_runs import artifacts, lively_bert, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WITHOUT_QEXP = """
import sys
class Absent:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "qexp":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a run with QAT and its graphs, and its folder ``my-model`` beside."""
    outputs = tmp_path_factory.mktemp("outputs")
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    words = ("task=mrpc", "quant=w8a8", "method=qat", "deploy=onnx", "placement=gemm", f"model.name={bert}")
    record = run(outputs, *words)
    assert publish.main([record.key[:8], str(outputs / "my-model"), "--outputs", str(outputs)]) == 0
    return outputs


def record_of(outputs: Path) -> Record:
    return read_all(records_folder(outputs))[0][0]


def from_docs() -> list[str]:
    """The examples of the page, as they stand there."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "using.md").read_text("utf-8"), re.DOTALL)


def ran(code: str, cwd: Path, *on: str) -> str:
    """What a process prints that cannot import qexp, started by the words of another command."""
    done = subprocess.run(
        [*on, sys.executable, "-I", "-c", WITHOUT_QEXP + code], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_VNNI = ("qemu-x86_64", "-cpu", "Haswell")
NO_EMULATOR = pytest.mark.skipif(
    shutil.which(WITHOUT_VNNI[0]) is None, reason="no emulator: apt-get install qemu-user"
)


@pytest.mark.parametrize(
    ("which", "on"),
    [
        pytest.param(0, (), id="transformers"),
        pytest.param(1, (), id="onnxruntime"),
        pytest.param(1, WITHOUT_VNNI, id="onnxruntime_without_vnni", marks=NO_EMULATOR),
    ],
)
def test_the_examples_of_the_page_run_without_qexp(finished: Path, which: int, on: tuple[str, ...]) -> None:
    example = from_docs()[which]
    assert len([line for line in example.splitlines() if line]) <= 11
    answer, logits = ran(
        f"{example}\nprint(logits.tolist())\ntry:\n    import qexp\nexcept ModuleNotFoundError:\n    pass\n"
        "else:\n    raise SystemExit('qexp was there')",
        finished, *on,
    ).splitlines()  # fmt: skip
    expected = _logits(finished, quantized=bool(which))
    assert np.allclose(json.loads(logits), expected, atol=1e-4)
    assert answer == str([["not_equivalent", "equivalent"][place] for place in expected.argmax(-1)])


def _logits(outputs: Path, *, quantized: bool) -> np.ndarray:
    """Of the page's texts, by the weights of the store, with qexp's own fake quantization or without."""
    import torch
    from transformers import AutoTokenizer

    from qexp.analysis.run_models import model_of
    from qexp.context import RunContext
    from qexp.models.inference import load_quantized

    model = model_of(record_of(outputs), outputs)
    ctx = RunContext.at(outputs, model.experiment.machine)
    ranges = (model.quant_config, model.ranges) if quantized else (None, None)
    loaded, _ = load_quantized(model.encoder, *ranges, ctx)
    tokenizer = AutoTokenizer.from_pretrained(model.tokens.tokenizer)
    rows = tokenizer(["The old man sees the bird."], ["A bird is seen."], return_tensors="pt")
    with torch.inference_mode():
        return loaded(**rows).logits.numpy()


def test_the_page_and_the_card_have_the_same_examples(finished: Path) -> None:
    task = experiment("task=mrpc").task
    graph = folder.GRAPHS["int8"]
    assert from_docs() == [
        examples.with_transformers(task, "my-model"),
        examples.with_onnxruntime(task, "my-model", graph),
    ]
    text = (finished / "my-model" / "README.md").read_text("utf-8")
    for example in from_docs():
        there = example.replace('"my-model"', '"."').replace('"my-model/', '"./')
        assert f"```python\n{there}```" in text


def test_weights_and_ranges_are_those_of_the_run(finished: Path) -> None:
    (trained,) = artifacts(record_of(finished), finished, "5-qat")
    made = finished / "my-model"
    for ours, theirs in (("model.safetensors", "model/model.safetensors"), ("ranges.safetensors",) * 2):
        expected, found = load_file(trained / theirs), load_file(made / ours)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)
    plain, quantized = artifacts(record_of(finished), finished, "7-onnx")
    assert (made / "onnx/model.onnx").read_bytes() == (plain / "model.onnx").read_bytes()
    assert (made / "onnx/model_int8.onnx").read_bytes() == (quantized / "model.onnx").read_bytes()
    facts = json.loads((made / "quantization.json").read_text())
    kinds: dict[str, int] = {}
    for each in facts["kinds"]:
        kinds[each["kind"]] = kinds.get(each["kind"], 0) + each["sites"]
    sites = record_of(finished).sites
    assert sites is not None
    assert kinds == sites["sites"]
    assert len({site["quantizer"] for site in facts["sites"]}) == sites["quantizers"]
    assert {site["bits"] for site in facts["sites"]} == {8}


@pytest.mark.parametrize("folder", ["my-model", "my-model/integer"])
def test_predictions_of_the_folder_are_those_of_the_run(finished: Path, tmp_path: Path, folder: str) -> None:
    """Bit for bit: of integers alone, too, and where the run is gone."""
    rows = tmp_path / "rows.jsonl"
    table = sample("mrpc")["validation"].slice(0, 40)
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    shutil.copytree(finished / folder, tmp_path / "elsewhere")
    found = []
    for run_or_folder in (record_of(finished).key, str(tmp_path / "elsewhere")):
        out = tmp_path / f"{len(found)}.jsonl"
        words = [run_or_folder, str(rows), "--output", str(out), "--outputs"]
        assert predict.main([*words, str(finished if not found else tmp_path / "none")]) == 0
        found.append([json.loads(line) for line in out.read_text().splitlines()])
    assert found[0] == found[1]
    assert len({row["probabilities"]["equivalent"] for row in found[0]}) > 20


@pytest.mark.parametrize(
    "option", [("--stage", "ptq"), ("--precision", "int8"), ("--runtime", "onnxruntime")]
)
def test_a_folder_is_one_model_for_torch(
    finished: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(finished / "my-model"), "rows.jsonl", *option]) == 2
    assert " ".join(option) in capsys.readouterr().err


def test_a_folder_that_was_not_published_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(tmp_path), "rows.jsonl"]) == 2
    assert "task.json" in capsys.readouterr().err


def test_the_integer_checkpoint_is_complete_small_and_told(finished: Path) -> None:
    made = finished / "my-model"
    integers, floats = (load_file(made / name / "model.safetensors") for name in ("integer", "."))
    config = json.loads((made / "integer" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    for name in ("ranges.safetensors", "quantization.json", "task.json", "tokenizer.json"):
        assert (made / "integer" / name).read_bytes() == (made / name).read_bytes()
    name = "bert.encoder.layer.0.output.dense.weight"
    assert integers[name].nbytes * 4 == floats[name].nbytes
    text = (made / "README.md").read_text("utf-8")
    assert "integer/model.safetensors" in text
    assert "Not quantized there" in text and "matmul.probs (2)" in text


def test_the_hub_reads_the_card(finished: Path) -> None:
    """The oracle is the hub's own library."""
    from huggingface_hub import ModelCard

    read = ModelCard.load(finished / "my-model" / "README.md")
    data, record = read.data, record_of(finished)
    assert (data.pipeline_tag, data.library_name) == ("text-classification", "transformers")
    assert {each.metric_type: each.metric_value for each in data.eval_results} == record.scores["qat"]
    assert {each.dataset_type for each in data.eval_results} == {"qexp-sample"}
    assert data.datasets is None and data.base_model is None and data.license is None
    assert "# license: choose one" in (finished / "my-model" / "README.md").read_text()
    for told in (
        "its scores mean nothing",
        "python -m qexp task=mrpc",
        "| linear.weight",
        "exported graph: passed",
    ):
        assert told in read.text
    for stage in ("fp32", "ptq", "qat", "onnx"):
        assert f"{record.scores[stage]['f1']:.2f}" in read.text


def test_the_gate_of_every_engine_is_told() -> None:
    engines = {
        "onnxruntime/int8": {"gate": {"agreement": 99.75, "metric_difference": 0.1, "passed": True}},
        "openvino/int8": {"gate": {"agreement": 90.0, "passed": False}},
        "openvino/fp32": {"problems": {"engine": "absent"}},
    }
    told = _gate(is_synthetic(engines=engines))
    assert (
        "- onnxruntime/int8: passed; predictions agree with torch on 99.75 % of rows, metric differs" in told
    )
    assert "- openvino/int8: **failed**; predictions agree with torch on 90 % of rows" in told
    assert "fp32" not in told


def test_an_fp32_stage_has_no_integers(finished: Path, tmp_path: Path) -> None:
    words = [record_of(finished).key, str(tmp_path / "new" / "plain"), "--outputs", str(finished)]
    assert publish.main([*words, "--stage", "fp32", "--license", "mit"]) == 0
    files = {file.relative_to(tmp_path / "new/plain").as_posix() for file in (tmp_path / "new").rglob("*.*")}
    assert {"model.safetensors", "onnx/model.onnx", "README.md"} <= files
    assert not files & {"ranges.safetensors", "quantization.json", "onnx/model_int8.onnx", "integer"}
    assert {"task.json"} <= files
    text = (tmp_path / "new/plain/README.md").read_text()
    assert "license: mit" in text.split("---")[1].splitlines()
    assert "Quantized sites" not in text


def test_nothing_is_overwritten_and_nothing_half_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, there = record_of(finished).key, tmp_path / "there"
    (there / "x").mkdir(parents=True)
    assert publish.main([key, str(there), "--outputs", str(finished)]) == 2
    assert "is there and not empty; name a new folder" in capsys.readouterr().err

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.shutil, "copyfile", full)
    assert publish.main([key, str(tmp_path / "new"), "--outputs", str(finished)]) == 2
    assert "No space left on device; make room, or name another folder" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_what_is_gone_or_failed_is_named(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "artifacts" / "5-qat")
    key = record_of(finished).key
    assert publish.main([key, str(tmp_path / "new"), "--outputs", str(copy)]) == 2
    assert "is gone; this makes it again" in capsys.readouterr().err
    (file,) = records_folder(copy).glob("*.json")
    failure = {"type": "TrainingError", "message": "loss is nan", "traceback": ""}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "failed", "error": failure}))
    assert publish.main([key, str(tmp_path / "new"), "--outputs", str(copy), "--stage", "fp32"]) == 2
    assert "failed (loss is nan): mend that, and run it again:\n  python -m qexp" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
