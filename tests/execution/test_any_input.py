"""Whatever a checkpoint, rows, a YAML file or a command line hold: an exit code and one line, never a traceback.

A run ends with 0, 1 or 2. With 2 there is no Record, and with 1 one that says why. No lease is left, and no
half-written file: a work folder stays only where the next attempt goes on from it.
"""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qexp.cli.run import main
from qexp.errors import FAILED, INVALID, OK
from tests.conftest import save_tokenizer, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries about what was drawn; a user sees them, too
LINES = 3
"""Most lines of an error: one, or one for each of several fields."""
WORDS = ("quant=w8a8", "method=ptq", "deploy=none", "budget=smoke", "machine.progress=false",
         "machine.threads=1", "calibration.samples=8", "finetune.batch_size=4", "budget.train_steps=1")  # fmt: skip
FEW = settings(
    max_examples=6,
    suppress_health_check=[*HealthCheck],
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
)
MANY = settings(FEW, max_examples=100)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
"""Values of JSON of any type."""


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
    yield Trial(tmp_path, monkeypatch, capsys)


def rows_file(folder: Path, count: int = 24) -> Path:
    rows = [{"text": f"the cat sees a dog {each}", "label": ("no", "yes")[each % 2]} for each in range(count)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def on(model: Path, rows: Path) -> tuple[str, ...]:
    return ("task=classification", f"data.path={rows}", f"model.name={model}", *WORDS)


CONFIG_FIELDS = (
    "model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "id2label", "label2id",
    "num_labels", "hidden_act", "layer_norm_eps", "hidden_dropout_prob", "problem_type", "torch_dtype", "dtype",
    "auto_map", "is_decoder", "tie_word_embeddings", "quantization_config", "attention_probs_dropout_prob",
)  # fmt: skip
FILES = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json",
         "special_tokens_map.json")  # fmt: skip
Fault = Callable[[Path], None]


def field_is(name: str, value: Any) -> Fault:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


def field_is_gone(name: str) -> Fault:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        tree = json.loads(path.read_text())
        tree.pop(name, None)
        path.write_text(json.dumps(tree))

    return change


def file_is(name: str, content: bytes | float) -> Fault:
    """Replace a file, or cut it to a share of its length; a negative share removes it."""

    def change(folder: Path) -> None:
        path = folder / name
        whole = path.read_bytes() if path.exists() else b""
        if isinstance(content, float) and content < 0:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content if isinstance(content, bytes) else whole[: int(content * len(whole))])

    return change


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 7, 31, 33, 64, 10**6, 0.5, "8", None])
FAULTS = st.one_of(
    st.builds(field_is, st.sampled_from(CONFIG_FIELDS), JSON | NUMBERS),
    st.builds(field_is_gone, st.sampled_from(CONFIG_FIELDS)),
    st.builds(
        file_is, st.sampled_from(FILES), st.floats(-0.5, 1) | st.sampled_from([b"", b"{}", b"[]", b"\xff"])
    ),
)


def check_checkpoint(trial: Trial, heads: Path, faults: list[Fault], finetune: str) -> None:
    with trial as folder:
        model = folder / "model"
        shutil.copytree(heads, model)
        for fault in faults:
            try:
                fault(model)
            except (ValueError, TypeError):  # a config.json that an earlier fault made no object
                pass
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


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("the cat " * 400),
    st.lists(st.text(max_size=3) | st.integers(), max_size=3), st.just({"a": 1}), st.sampled_from(["no", "yes", ""]),
)  # fmt: skip
TASKS = st.sampled_from(
    [
        "classification",
        "regression",
        "question_answering",
        "token_classification",
        "multi_label",
        "embedding",
        "mrpc",
    ]
)
ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["text", "label", "question", "context", "answers", "tokens", "tags", "id", "text_pair"]
        ),
        CELLS,
        max_size=5,
    ),
    max_size=12,
)
KINDS: Mapping[str, tuple[str, ...]] = {
    "classification": (), "regression": (), "multi_label": (), "token_classification": (), "embedding": (),
    "mrpc": (), "question_answering": ("task.max_length=64", "task.doc_stride=8", "task.max_question=16"),
}  # fmt: skip


def check_rows(trial: Trial, heads: Path, task: str, rows: list[dict[str, Any]], regular: int) -> None:
    with trial as folder:
        plain = [
            {"text": f"the cat {each}", "label": ("no", "yes")[each % 2], "question": f"who {each}",
             "context": f"the cat {each}", "answers": "cat", "tokens": ["the", "cat"], "tags": ["O", "B-X"]}
            for each in range(regular)
        ]  # fmt: skip
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


GROUPS = ("task", "model", "data", "quant", "method", "finetune", "calibrator", "calibration", "placement",
          "scheme", "deploy", "machine", "budget", "refinement", "tracker", "recipe", "seed", "tags", "note")  # fmt: skip
NAMES = st.sampled_from(
    ("name", "kind", "learning_rate", "epochs", "batch_size", "bits", "sites", "path", "text", "label", "labels",
     "metrics", "max_length", "lengths", "percentile", "samples", "runtimes", "overrides", "train_steps", "x")
)  # fmt: skip
VALUES = st.one_of(
    st.integers(-5, 300).map(str), st.floats().map(str), st.text(string.printable, max_size=8),
    st.sampled_from(["null", "true", "[]", "{}", "[1,2]", "{a:1}", "''", "mrpc", "w8a8", "${x}", "${oc.env:NO}",
                     "???", "1,2", "choice(1,2)", "nan", "inf", "1e400", "full", "none", "sample"]),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(GROUPS),
    st.builds("{}.{}".format, st.sampled_from(GROUPS), NAMES),
    st.builds("{}{}.{}".format, st.sampled_from(["+", "++", "~"]), st.sampled_from(GROUPS), NAMES),
    st.text(string.ascii_letters + "._@/", min_size=1, max_size=8),
)
COMMANDS = st.lists(
    st.builds("{}={}".format, KEYS, VALUES) | st.text(string.printable, min_size=1, max_size=8), max_size=3
)


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


FIELDS = st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=4)
TEXTS = st.builds(json.dumps, FIELDS | JSON) | st.text(max_size=30) | st.sampled_from(
    ["", "a: [", "\t- x", "defaults: [none]", "defaults: [/task: mrpc]", "_target_: os.system", "name: ${name}"]
)  # fmt: skip
OPTIONS = st.sampled_from(
    ("task", "model", "data", "quant", "scheme", "placement", "calibrator", "recipe", "budget")
)


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
