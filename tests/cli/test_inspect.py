"""``qexp inspect``: it shows what the store contains, and its errors name the next step."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qexp.analysis.layers_text import histogram
from qexp.cli.inspect import main
from qexp.config import Experiment, MaxCalibrator, QuantizationConfig
from qexp.records.record import read
from tests.conftest import compose, experiment
from tests.support.record_factory import deployed
from tests.support.record_factory import experiment as is_synthetic
from tests.support.tiny_runs import TinyRuns

LAYER = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tiny_runs: TinyRuns) -> Path:
    """Outputs of two runs: QAT with 4-bit weights, and FP32."""
    words = ("task=mrpc", "deploy=none", f"model.name={tiny_models('bert')}")
    return tiny_runs((*words, "quant=w4a8", "recipe=neurst"), (*words, "quant=fp32"))


def record_of(outputs: Path, method: str) -> Path:
    """File of the run with that method."""
    files = (outputs / "records").glob("*.json")
    return next(file for file in files if read(file).experiment["method"]["kind"] == method)


def look(outputs: Path, *words: str) -> int:
    """The exit code; the run is the one with QAT."""
    return main([record_of(outputs, "qat").stem, "--outputs", str(outputs), *words])


def artifact(outputs: Path, stage: str) -> Path:
    """Folder of the quantized run's artifact of a stage."""
    stages = {visit["stage"]: visit["key"] for visit in read(record_of(outputs, "qat")).stages}
    return outputs / "artifacts" / stage / stages[stage]


def test_all_layers_are_listed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look(finished) == 0
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert re.match(r"mrpc \S+ w4a8 neurst qat, run \w{12}$", title)
    assert head.split() == ["layer", "weight", "smallest", "largest", "scale", "activations"]
    names = [line.split()[0] for line in lines]
    assert names[0] == "bert.embeddings.word_embeddings"
    assert names[-1] == "classifier"
    weights = [line for line in lines if "int8 [" in line]
    assert len(weights) == 14 + 3
    (attention,) = (line for line in lines if line.startswith("bert.encoder.layer.1.attention.self "))
    assert attention.split(None, 1)[1] == "matmul.query, matmul.key, matmul.value, matmul.probs"


@pytest.mark.parametrize(("stage", "folders"), [("ptq", ("2-fp32", "4-ranges")), ("qat", ("5-qat", "5-qat"))])
def test_integers_are_those_of_the_store(
    finished: Path, capsys: pytest.CaptureFixture[str], stage: str, folders: tuple[str, str]
) -> None:
    assert look(finished, "--stage", stage, "--layer", LAYER) == 0
    shown = capsys.readouterr().out
    weights, ranges = (artifact(finished, folder) for folder in folders)
    weight = load_file(weights / "model" / "model.safetensors")[f"{LAYER}.weight"].numpy()
    scale = load_file(ranges / "ranges.safetensors")[f"{LAYER}:linear.weight/scale"].numpy()
    integers = np.clip(np.round(weight / scale), -8, 7).astype(np.int8)
    assert "linear.weight: int8 [32, 32], -8 to 7 (4 bits), one range" in shown
    rows = re.findall(r"\[+ *(-?\d+), +(-?\d+), +(-?\d+), \.\.\., +(-?\d+), +(-?\d+), +(-?\d+)\]", shown)
    corner = np.concatenate([integers[:3], integers[-3:]])
    assert np.array_equal(np.array(rows, dtype=int), np.concatenate([corner[:, :3], corner[:, -3:]], axis=1))
    assert (
        f"weights {weight.min():.6g} to {weight.max():.6g}; grid {-8 * scale:.6g} to {7 * scale:.6g}" in shown
    )
    bars = re.findall(r"^ +(-?\d+) \|(#*) *\| +([\d.]+)%$", shown, re.MULTILINE)
    assert [int(value) for value, _, _ in bars] == list(range(-8, 8))
    shares = [100 * np.mean(integers == value) for value in range(-8, 8)]
    assert [float(share) for _, _, share in bars] == pytest.approx(shares, abs=0.006)
    assert max(len(bar) for _, bar, _ in bars) == 40


def test_ranges_of_activations_and_what_shares_them(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(finished, "--layer", "*.layer.0.attention.self", "--layer", "*.output.dense") == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"matmul\.probs: 0 to 0\.996\d+, scale 0\.003906\d*, zero point 0, 0 to 255 \(8 bits\)", shown
    )
    assert re.search(r"attention\.context: -[\d.]+ to [\d.]+, scale [\d.]+, zero point 0, -128 to 127", shown)
    blocks = shown.split("\n\n")
    assert len(blocks) == 1 + 4


def test_a_picture_is_a_png(finished: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    assert look(finished, "--layer", "*.dense", "--png", str(tmp_path / "h.png")) == 0
    assert imread(tmp_path / "h.png").shape[1] > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["h.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--layer", "*.0.*qery"],
            r"no quantized layer of that name; the nearest are \S+query, .*whole name",
        ),
        (["--layer", "*act_fn", "--png", "x.png"], r"--png: 0 quantized weights are chosen"),
        (
            ["--layer", "*query", "--png", "/nowhere/x.png"],
            r"--png /nowhere/x\.png: No such file.*folder that exists",
        ),
    ],
)
def test_mistakes_are_named(
    finished: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert look(finished, *words) == 2
    shown = capsys.readouterr()
    assert re.search(told, shown.err)
    assert not shown.out


def test_an_fp32_run_has_nothing_to_show(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(record_of(finished, "none")), "--outputs", str(finished)]) == 2
    assert "quantized nothing" in capsys.readouterr().err


def test_runs_are_found_by_the_beginning_of_their_key(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zz", "--outputs", str(finished)]) == 2
    told = capsys.readouterr().err
    assert "no Record's key begins so" in told
    assert record_of(finished, "qat").stem[:12] in told
    assert main(["", "--outputs", str(finished)]) == 2
    assert "the beginning of 2 keys" in capsys.readouterr().err
    assert main(["zz", "--outputs", str(tmp_path)]) == 2
    assert "no Records in" in capsys.readouterr().err


def test_a_ptq_run_has_no_qat_and_old_records_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = deployed(is_synthetic(quant="w8a8"))
    ptq = [{"stage": name, "key": "k", "state": "built", "seconds": 1.0} for name in ("2-fp32", "4-ranges")]
    tree = json.loads(record.to_json()) | {"stages": ptq}
    (tmp_path / "ptq.json").write_text(json.dumps(tree))
    assert main([str(tmp_path / "ptq.json"), "--stage", "qat", "--outputs", str(tmp_path)]) == 2
    assert "use --stage ptq" in capsys.readouterr().err
    tree["experiment"]["placement"]["colour"] = "blue"
    (tmp_path / "old.json").write_text(json.dumps(tree))
    assert main([str(tmp_path / "old.json"), "--outputs", str(tmp_path)]) == 2
    assert "another version" in capsys.readouterr().err
    failed = tree | {"stages": [], "status": "failed", "error": {"type": "DataError", "message": "no rows"}}
    failed["error"]["traceback"] = ""
    (tmp_path / "failed.json").write_text(json.dumps(failed))
    assert main([str(tmp_path / "failed.json"), "--outputs", str(tmp_path)]) == 2
    assert "failed before anything was quantized (no rows)" in capsys.readouterr().err


def test_what_is_gone_or_damaged_comes_with_the_command_that_makes_it_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "copy"
    shutil.copytree(finished, outputs)
    weights = artifact(outputs, "5-qat") / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert look(outputs) == 2
    assert "is damaged" in capsys.readouterr().err
    shutil.rmtree(artifact(outputs, "5-qat"))
    assert look(outputs) == 2
    told = capsys.readouterr().err
    assert "is gone; this makes it again" in told
    words = shlex.split(told.splitlines()[-1])
    assert words[:4] == ["python", "-m", "qexp", "task=mrpc"]
    again = Experiment.model_validate(compose(*words[3:]))
    assert again.identity == Experiment.model_validate(read(record_of(outputs, "qat")).experiment).identity
    assert look(outputs, "--stage", "ptq") == 0


def test_histograms_count_every_integer_once() -> None:
    integers = torch.randint(
        -127, 128, (50, 40), generator=torch.Generator().manual_seed(0), dtype=torch.int8
    )
    rows = histogram(integers, -127, 127)
    assert sum(count for _, _, count in rows) == 2000
    assert (rows[0][0], rows[-1][1], len(rows)) == (-127, 127, 17)
    assert all(second[0] == first[1] + 1 for first, second in pairwise(rows))
    unsigned = histogram(torch.tensor([0, 255, 255], dtype=torch.uint8), 0, 255)
    assert (unsigned[0][2], unsigned[-1][2], unsigned[-1][1]) == (1, 2, 255)
    wide = histogram(torch.tensor([-32767, 32767]), -32767, 32767)
    assert sum(count for _, _, count in wide) == 2


def test_a_tied_table_is_shown_once_with_all_its_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with encoder and decoder, as its own stages will leave it."""
    from safetensors.torch import save_file

    from qexp.config import ClipCalibrator
    from qexp.quant.insertion.insert import insert
    from tests.support.sequence_models import batch, build

    made = experiment("task=mrpc", "recipe=neurst", "deploy=none")
    model: Any = build("marian")
    quantization = insert(
        model, QuantizationConfig(placement=made.placement, quant=made.quant, scheme=made.scheme)
    )
    with torch.no_grad(), quantization.observing():
        model(**batch())
    quantization.calibrate(quantization.statistics(), ClipCalibrator(kind="clip"))
    folder = tmp_path / "artifacts" / "5-qat" / "k"
    folder.mkdir(parents=True)
    save_file(quantization.ranges(), folder / "ranges.safetensors")
    quantization.remove()
    model.save_pretrained(folder / "model")
    stages = [{"stage": name, "key": "k", "state": "built", "seconds": 1.0} for name in ("4-ranges", "5-qat")]
    tree = json.loads(deployed(made.model_dump(mode="json")).to_json()) | {"stages": stages}
    (tmp_path / "run.json").write_text(json.dumps(tree))
    assert main([str(tmp_path / "run.json"), "--layer", "lm_head", "--outputs", str(tmp_path)]) == 0
    assert "the same value as model.shared:embedding.weight" in capsys.readouterr().out


def test_a_range_for_each_token_has_no_numbers() -> None:
    from qexp.analysis.layers import layers_of
    from qexp.analysis.layers_text import in_full
    from qexp.config import ActivationScheme, Scheme
    from qexp.quant.insertion.insert import insert
    from tests.support.tiny_models import QDQBERT, build

    scheme = Scheme(activation=ActivationScheme(dynamic="token"))
    quantization = insert(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=scheme))
    quantization.calibrate_weights(MaxCalibrator(kind="max"))
    (layer,) = (each for each in layers_of(quantization) if each.name == LAYER)
    assert "linear.input: a range for each token, found at run time, 0 to 255 (8 bits)" in in_full(layer)
