"""Whatever a checkpoint, rows, YAML files or words hold: an exit code and one line, never a traceback.

A run ends with 0, 1 or 2. With 2 there is no Record, and with 1 one that says why. No lease is left, and no
half-written file: a work folder stays only where the next attempt goes on from it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qexp.cli.run import main
from qexp.errors import FAILED, INVALID, OK
from tests.conftest import save_tokenizer, tiny_config
from tests.support.any_input import COMMANDS, FAULTS, OPTIONS, ROWS, TASKS, TEXTS, Fault

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries about what was drawn; a user sees them, too
LINES = 3
"""Most lines of an error: one, or one for each of several fields."""
WORDS = (
    "quant=w8a8",
    "method=ptq",
    "deploy=none",
    "budget=smoke",
    "machine.progress=false",
    "machine.threads=1",
    "calibration.samples=8",
    "finetune.batch_size=4",
    "budget.train_steps=1",
)
FEW = settings(
    max_examples=4,
    suppress_health_check=[*HealthCheck],
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
)
MANY = settings(FEW, max_examples=int(os.environ.get("QEXP_TEST_CASES", "50")))
"""Of the slow tests; ``make test-all`` draws 100."""


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier with random weights, of 160 positions."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = tiny_config("bert", save_tokenizer(folder), num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


class Trial:
    """A folder for one run, and what must hold after it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output = folder / "trial", output
        patch.setenv("QEXP_OUTPUTS", str(self.folder / "outputs"))
        patch.chdir(folder)

    def __enter__(self) -> Path:
        """Empty the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.output.readouterr()
        return self.folder

    def __exit__(self, *_: object) -> None:
        """Do nothing: what is there stays for the assertions."""

    def run(self, *words: str, planned: bool = False) -> int:
        """Run or plan a command line, check how it ended, and return its exit code."""
        try:
            code = main(["--dry-run", *words] if planned else words)
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.output.readouterr().err
        assert code in (OK, FAILED, INVALID), said
        assert "Traceback" not in said, said
        errors = said[said.find("error: ") :].splitlines() if "error: " in said else []
        assert (code == INVALID) <= bool(errors) or planned, said
        assert len(errors) <= LINES or "fields are wrong" in said, said
        records = [json.loads(file.read_text()) for file in self.folder.glob("outputs/records/*.json")]
        assert len(records) == (code != INVALID and not planned), (said, records)
        for record in records:
            assert record["status"] == ("ok" if code == OK else "failed"), said
            assert code == OK or record["error"]["type"] in ERRORS, record["error"]["traceback"]
        outputs = self.folder / "outputs"
        assert not [*outputs.rglob("*.lease"), *outputs.glob("running/*")]
        assert not [each for each in outputs.rglob("*.work-*") if not (each / "scratch").is_dir()]
        return code


ERRORS = ("DataError", "ModelError", "ConfigError", "TrainingError", "QuantizationError", "DeployError")


@pytest.fixture
def trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Trial]:
    return Trial(tmp_path, monkeypatch, capsys)


def rows_file(folder: Path, count: int = 24) -> Path:
    rows = [{"text": f"the cat sees a dog {each}", "label": ("no", "yes")[each % 2]} for each in range(count)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def on(model: Path, rows: Path) -> tuple[str, ...]:
    return ("task=classification", f"data.path={rows}", f"model.name={model}", *WORDS)


def check_checkpoint(trial: Trial, heads: Path, faults: list[Fault], finetune: str) -> None:
    with trial as folder:
        model = folder / "model"
        shutil.copytree(heads, model)
        for fault in faults:
            with suppress(ValueError, TypeError):  # a config.json that an earlier fault made no object
                fault(model)
        trial.run(*on(model, rows_file(folder)), f"finetune={finetune}")


@FEW
@given(st.lists(FAULTS, min_size=1, max_size=2), st.sampled_from(["full", "none"]))
def test_checkpoints(trial: Trial, heads: Path, faults: list[Fault], finetune: str) -> None:
    check_checkpoint(trial, heads, faults, finetune)


@pytest.mark.slow
@MANY
@given(st.lists(FAULTS, min_size=1, max_size=2), st.sampled_from(["full", "none"]))
def test_many_checkpoints(trial: Trial, heads: Path, faults: list[Fault], finetune: str) -> None:
    check_checkpoint(trial, heads, faults, finetune)


KINDS: Mapping[str, tuple[str, ...]] = {
    "classification": (),
    "regression": (),
    "multi_label": (),
    "token_classification": (),
    "embedding": (),
    "mrpc": (),
    "question_answering": ("task.max_length=64", "task.doc_stride=8", "task.max_question=16"),
}


def check_rows(trial: Trial, heads: Path, task: str, rows: list[dict[str, Any]], regular: int) -> None:
    with trial as folder:
        plain = [
            {
                "text": f"the cat {each}",
                "label": ("no", "yes")[each % 2],
                "question": f"who {each}",
                "context": f"the cat {each}",
                "answers": "cat",
                "tokens": ["the", "cat"],
                "tags": ["O", "B-X"],
            }
            for each in range(regular)
        ]
        if task == "regression":
            plain = [{**row, "label": each / 3} for each, row in enumerate(plain)]
        drawn = [{**plain[0], **row} if regular else row for row in rows]
        file = folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [*plain, *drawn]), encoding="utf-8")
        words = on(heads, file)[1:]
        trial.run(f"task={task}", *words, *KINDS[task], "finetune=full")


@FEW
@given(TASKS, ROWS, st.sampled_from([0, 24]))
def test_rows(trial: Trial, heads: Path, task: str, rows: list[dict[str, Any]], regular: int) -> None:
    check_rows(trial, heads, task, rows, regular)


@pytest.mark.slow
@MANY
@given(TASKS, ROWS, st.sampled_from([0, 24]))
def test_many_rows(trial: Trial, heads: Path, task: str, rows: list[dict[str, Any]], regular: int) -> None:
    check_rows(trial, heads, task, rows, regular)


def check_words(trial: Trial, heads: Path, words: list[str]) -> None:
    with trial as folder:
        trial.run(*on(heads, rows_file(folder)), *(word for word in words if word[0] != "-"), planned=True)


@FEW
@given(COMMANDS)
def test_words(trial: Trial, heads: Path, words: list[str]) -> None:
    check_words(trial, heads, words)


@pytest.mark.slow
@MANY
@given(COMMANDS)
def test_many_words(trial: Trial, heads: Path, words: list[str]) -> None:
    check_words(trial, heads, words)


def check_yaml(trial: Trial, heads: Path, group: str, text: str) -> None:
    with trial as folder:
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mine.yaml").write_text(text, encoding="utf-8")
        words = [word for word in on(heads, rows_file(folder)) if not word.startswith(f"{group}=")]
        trial.run(f"--config-dir={folder / 'conf'}", *words, f"{group}=mine", planned=True)


@FEW
@given(OPTIONS, TEXTS)
def test_yaml(trial: Trial, heads: Path, group: str, text: str) -> None:
    check_yaml(trial, heads, group, text)


@pytest.mark.slow
@MANY
@given(OPTIONS, TEXTS)
def test_many_yaml(trial: Trial, heads: Path, group: str, text: str) -> None:
    check_yaml(trial, heads, group, text)
