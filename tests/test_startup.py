"""Startup: light commands, and runs with cached artifacts, import no heavy modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from qexp.analysis.run_models import model_of
from qexp.context import RunContext
from qexp.data.synthetic import sample
from qexp.prediction.forward import engine_run
from qexp.prediction.predictor import Predictor
from qexp.records.record import read, write
from tests.support.record_factory import deployed, experiment
from tests.support.tiny_runs import TinyRuns

HEAVY = {
    "torch", "transformers", "tokenizers", "datasets", "pandas", "huggingface_hub", "onnx",
    "onnxscript", "onnxruntime", "pytorch_lightning", "lightning", "sklearn", "scipy", "matplotlib",
    "sacrebleu", "wandb", "tensorboard",
}  # fmt: skip
"""What only the work itself needs."""

RUN = """
import json, os, runpy, sys
sys.argv = sys.argv[1:]
code = 0
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
with open(os.environ["MODULES"], "w") as file:
    json.dump({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}, file)
"""


@pytest.fixture
def modules_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODULES", str(tmp_path / "modules.json"))
    return tmp_path / "modules.json"


def imported(module: str, *words: str, file: Path) -> set[str]:
    """Top-level modules that a command imports; it must end well. How fast it is, benchmarks.startup says."""
    done = subprocess.run([sys.executable, "-c", RUN, module, *words], capture_output=True, text=True)
    found = json.loads(file.read_text())
    assert found["code"] == 0, done.stderr
    return set(found["modules"])


@pytest.mark.parametrize("words", [["--help"], ["task=mrpc", "--cfg", "job"]], ids=" ".join)
def test_words_alone_need_neither_arrays_nor_models(words: list[str], modules_file: Path) -> None:
    modules = imported("qexp", *words, file=modules_file)
    assert not modules & (HEAVY | {"numpy", "pyarrow", "pydantic", "rich"})


def test_the_help_needs_few_modules_of_python_too(modules_file: Path) -> None:
    """Each of these takes as long as the help itself."""
    modules = imported("qexp", "--help", file=modules_file)
    assert not modules & {"dataclasses", "inspect", "difflib", "secrets", "datetime", "yaml"}


def test_a_report_needs_records_only(modules_file: Path, outputs: Path) -> None:
    for seed in range(200):
        write(deployed(experiment(quant="w4a8" if seed % 2 else "w8a8", seed=seed)), outputs / "records")
    for words in ((), ("--html",)):
        modules = imported("qexp", "report", *words, file=modules_file)
        assert not modules & (HEAVY | {"numpy", "pyarrow", "pydantic", "hydra", "rich"})


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    told = (
        "import os, sys, qexp.cli.run\nassert 'torch' not in sys.modules\ntry:\n    qexp.cli.run.main()\n"
        "finally:\n    print(os.environ['OMP_WAIT_POLICY'])"
    )
    words = [sys.executable, "-c", told, "task=mrpc", "--cfg", "job"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        "sensitivity",
        "search",
        "predict",
        "publish",
        "export-encodings",
        "runs",
        "show",
        "diff",
        "again",
        "open",
        "clean",
        "completion",
        "plan",
    ],
)  # fmt: skip
def test_help_of_a_look_at_a_run_needs_nothing_heavy(command: str, modules_file: Path) -> None:
    modules = imported("qexp", command, "--help", file=modules_file)
    assert not modules & (HEAVY | {"numpy", "pyarrow", "pydantic", "hydra", "rich"})


@pytest.mark.parametrize(
    "words",
    [
        ["runs"], ["runs", "task=mrpc", "--json"], ["diff", "mrpc/w8a8", "mrpc/w4a8"],
        ["report", "last"], ["open"], ["clean", "--dry-run"], ["completion", "--line", "qexp show "],
    ],
    ids=" ".join,
)  # fmt: skip
def test_commands_on_records_need_neither_arrays_nor_models(
    words: list[str], modules_file: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for quant in ("w8a8", "w4a8"):
        write(deployed(experiment(quant=quant, method={"kind": "ptq"})), outputs / "records")
    modules = imported("qexp", *words, file=modules_file)
    assert not modules & HEAVY


@pytest.mark.slow
def test_a_run_that_finds_everything_imports_nothing_heavy(
    tiny_bert: Path, tmp_path: Path, modules_file: Path
) -> None:
    for split, table in sample("mrpc").items():
        (tmp_path / "data" / "mrpc").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / "data" / "mrpc" / f"{split}.parquet")
    words = [
        "task=mrpc", "quant=w8a8", "budget=smoke", "data=local", f"data.root={tmp_path / 'data'}",
        f"model.name={tiny_bert}", "machine.progress=false",
    ]  # fmt: skip
    built = imported("qexp", *words, file=modules_file)
    assert {"torch", "transformers", "onnxruntime"} <= built
    assert not imported("qexp", *words, file=modules_file) & (HEAVY | {"altair", "vl_convert"})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_predictions_of_an_engine_need_no_torch(
    runtime: str, tiny_runs: TinyRuns, tiny_bert: Path, tmp_path: Path, modules_file: Path
) -> None:
    """And they are those of the engine as the gate runs it, through torch and transformers."""
    pytest.importorskip(runtime)
    outputs = tiny_runs(("task=mrpc", "quant=w8a8", "method=ptq", "deploy=onnx", f"model.name={tiny_bert}"))
    (record,) = (outputs / "records").glob("*.json")
    rows, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("sentence1,sentence2\nthe cat sees a dog,the old dog\na man,the man likes the river\n")
    words = ["qexp", "predict", str(record), str(rows), "--runtime", runtime, "--output", str(out)]
    modules = imported(*words, f"--outputs={outputs}", file=modules_file)
    assert not modules & {"torch", "transformers", "datasets", "onnxscript", "sklearn", "scipy", "sympy"}
    assert [set(json.loads(line)) for line in out.read_text().splitlines()] == [
        {"index", "prediction", "probabilities"}
    ] * 2


WORDS = {"text": "the cat sees a dog", "sentence1": "the cat sees", "sentence2": "a dog"}
ASKED = {"question": "what does the cat see", "context": "In the town the cat sees a dog. " * 9}
KINDS = {
    "multi_label": ((), ()),
    "token_classification": ((), ()),
    "squad_v2": (("task.max_length=96", "task.doc_stride=32", "task.max_question=24"), ()),
    "stsb_embedding": ((), ()),
    "squad_retrieval": (("task.max_length=96",), ("--vectors",)),
}
"""Settings of a run, and options of a second prediction, by task."""


@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
def test_an_engine_predicts_every_kind_of_task_but_translation_without_torch(
    task: str, tiny_runs: TinyRuns, tiny_bert: Path, tmp_path: Path, modules_file: Path
) -> None:
    """And what it predicts is what the same engine does behind the adapters of torch."""
    more, options = KINDS[task]
    words = (f"task={task}", "quant=w8a8", "method=ptq", "deploy=onnx", f"model.name={tiny_bert}", *more)
    outputs = tiny_runs(words)
    rows = [{**WORDS, **ASKED, "tokens": text.split()} for text in (WORDS["text"], "a man likes the river")]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (record,) = (outputs / "records").glob("*.json")
    for option in {(), options}:
        out = tmp_path / "out.jsonl"
        command = ["qexp", "predict", str(record), str(tmp_path / "rows.jsonl"), "--runtime", "onnxruntime"]
        modules = imported(*command, *option, f"--output={out}", f"--outputs={outputs}", file=modules_file)
        assert not modules & {"torch", "transformers", "datasets", "sklearn"}
        predictor = _through_torch(record, outputs, vectors=bool(option))
        expected = predictor.predict(rows, lambda *_: None).to_pylist()
        assert [json.loads(line) for line in out.read_text().splitlines()] == expected


def _through_torch(record: Path, outputs: Path, *, vectors: bool) -> Predictor:
    """A predictor whose engine is a function of tensors, as the gate's."""
    model = model_of(read(record), outputs)
    run = engine_run(model, "onnxruntime", "int8", 32, RunContext.at(outputs, model.experiment.machine))
    return Predictor(model, run, batch_size=32, keep=False, vectors=vectors)


def test_a_finished_run_is_published_without_torch(
    tiny_runs: TinyRuns, tiny_bert: Path, tmp_path: Path, modules_file: Path
) -> None:
    outputs = tiny_runs(("task=mrpc", "quant=w8a8", "method=ptq", "deploy=onnx", f"model.name={tiny_bert}"))
    (record,) = (outputs / "records").glob("*.json")
    words = ["qexp", "publish", str(record), str(tmp_path / "published"), f"--outputs={outputs}"]
    modules = imported(*words, file=modules_file)
    assert not modules & {"torch", "transformers", "datasets", "onnxscript", "sklearn", "scipy", "sympy"}
    assert (tmp_path / "published" / "integer" / "model.safetensors").is_file()
