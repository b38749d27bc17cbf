"""Whole runs with a refinement on a tiny model: their stages, shared artifacts and results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qexp.config.validation_errors import explain
from qexp.execution.job import OK
from tests.conftest import experiment
from tests.support.jobs import QUICK, record_problem, run

REFINEMENTS = {
    "equalize": ["2-equalized"],
    "smoothquant": ["3-moments"],
    "adaround": ["3-moments", "4-refined"],
    "gptq": ["3-moments", "4-refined"],
    "bias_correction": ["3-moments", "4-refined"],
}
LITTLE = (
    *QUICK[:-1], "task=mrpc", "finetune.epochs=0.02", "budget.evaluation_rows=20", "calibration.samples=16",
)  # fmt: skip
"""Words of a run that is as short as it can be."""
ADAROUND = ("refinement=adaround", "refinement.iterations=30")


def stages(record: dict[str, Any]) -> list[str]:
    """Names of all stages, in their order."""
    return [stage["stage"] for stage in record["stages"]]


def keys(record: dict[str, Any], stage: str) -> list[str]:
    """Keys of a stage."""
    return [each["key"] for each in record["stages"] if each["stage"] == stage]


def facts(outputs: Path, stage: str) -> dict[str, Any]:
    """Of the only artifact of a stage."""
    (file,) = (outputs / "artifacts" / stage).glob("*/facts.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_refinement_adds_its_stages(tiny_bert: Path) -> None:
    words = (*LITTLE, "quant=w4a8", "method=ptq", "deploy=none", f"model.name={tiny_bert}")
    _, plain = run(*words)
    for refinement, added in REFINEMENTS.items():
        chosen = ADAROUND if refinement == "adaround" else (f"refinement={refinement}",)
        code, refined = run(*words, *chosen)
        assert code == OK, record_problem()
        assert [name for name in stages(refined) if name not in stages(plain)] == added
        assert keys(refined, "2-fp32") == keys(plain, "2-fp32")
        assert refined["scores"]["fp32"] == plain["scores"]["fp32"]
        assert (keys(refined, "4-ranges") == keys(plain, "4-ranges")) == (added[-1:] == ["4-refined"])
        assert keys(refined, "6-scores")[1:] != keys(plain, "6-scores")[1:]


@pytest.mark.slow
def test_all_of_it_together_with_qat_and_a_graph_behind_it(tiny_bert: Path, outputs: Path) -> None:
    words = (*LITTLE, "quant=w4a8", f"model.name={tiny_bert}", *ADAROUND, "deploy=onnx")
    more = ("refinement.equalize=true", "refinement.migration=0.5", "refinement.bias_correction=true")
    code, record = run(*words, *more, "method=qat", "method.epochs=0.02")
    assert code == OK, record_problem()
    assert stages(record)[:8] == [
        "1-tokens", "2-fp32", "6-scores", "2-equalized", "3-moments", "3-statistics", "4-ranges", "4-refined",
    ]  # fmt: skip
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert record["parity"]["passed"]
    (manifest,) = (outputs / "artifacts" / "5-qat").glob("*/manifest.json")
    read = json.loads(manifest.read_text())["inputs"]
    assert [read["encoder"]] == keys(record, "4-refined")
    assert [read["teacher"]] == keys(record, "2-fp32")
    assert len(facts(outputs, "2-equalized")["pairs"]) == 2
    assert facts(outputs, "4-ranges")["migration"] == {"moved": 10, "left": 0}
    done = facts(outputs, "4-refined")
    assert (done["rounded"], done["corrected"], done["left"]) == (14, 14, 0)
    assert 0 < done["error"] < 1
    told = record["ranges"]["ptq"]["bert.encoder.layer.0.attention.self.query:linear.input"]
    assert told["high"] <= told["seen_high"] * 1.01 and told["sqnr"] > 20  # both of x / s


def test_stages_are_shared_by_what_they_read(tiny_bert: Path) -> None:
    words = (*LITTLE, "method=ptq", "deploy=none", f"model.name={tiny_bert}")
    run(*words, "quant=w4a8", *ADAROUND)
    for more, built in (
        (("quant=w4a8", "refinement=adaround", "refinement.iterations=31"), ["4-refined", "6-scores"]),
        (("quant=w4a8", "refinement=gptq"), ["4-refined", "6-scores"]),
        (("quant=w4a8", "refinement=gptq", "refinement.damping=0.1"), ["4-refined", "6-scores"]),
        (("quant=w3a8", *ADAROUND), ["4-ranges", "4-refined", "6-scores"]),
        (("quant=w3a8", "refinement=none"), ["6-scores"]),
        (("quant=w4a8", "refinement=bias_correction"), ["3-moments", "4-refined", "6-scores"]),
    ):
        _, record = run(*words, *more)
        assert [each["stage"] for each in record["stages"] if each["state"] == "built"] == built, more


def test_a_model_without_pairs_says_so(
    tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.quant.algorithms.cross_layer_equalization.find_pairs", lambda model: [])
    words = (*LITTLE, "method=ptq", "deploy=none", f"model.name={tiny_bert}")
    code, record = run(*words, "quant=w8a8", "refinement=equalize")
    assert code == OK
    assert any("no two layers of BertForSequenceClassification" in each for each in record["warnings"])
    assert facts(outputs, "2-equalized") == {"pairs": [], "left_alone": {}}


@pytest.mark.slow
def test_gptq_runs_to_the_graph(tiny_bert: Path, outputs: Path) -> None:
    words = (*LITTLE, "quant=w4a8", "method=ptq", f"model.name={tiny_bert}", "deploy=onnx")
    code, record = run(
        *words, "refinement=gptq", "refinement.bias_correction=true", "refinement.migration=0.5"
    )
    assert code == OK, record_problem()
    assert record["parity"]["passed"]
    done = facts(outputs, "4-refined")
    assert (done["rounded"], done["corrected"], done["left"]) == (14, 14, 0)
    assert 0 < done["error"] < 1
    assert done["damping"] == 0.01


def test_a_damping_that_had_to_be_raised_is_told(tiny_bert: Path, outputs: Path) -> None:
    words = (*LITTLE[:-1], "calibration.samples=1", "quant=w4a8", "method=ptq", "deploy=none")
    code, record = run(*words, f"model.name={tiny_bert}", "refinement=gptq", "refinement.damping=0")
    assert code == OK, record_problem()
    assert any("refinement.damping=0.0: not every Hessian" in each for each in record["warnings"])
    assert facts(outputs, "4-refined")["damping"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["w4a32", "w2a32", "w2a8"])
def test_weight_only_and_ternary_run_to_the_graph(quant: str, tiny_models: Callable[[str], Path]) -> None:
    words = (*LITTLE, f"quant={quant}", f"model.name={tiny_models('distilbert')}", "deploy=onnx")
    code, record = run(*words, "method=qat", "method.epochs=0.02", *ADAROUND)
    assert code == OK, record_problem()
    assert record["parity"]["passed"]
    sites = record["sites"]["sites"]
    assert ("linear.input" in sites) == (quant == "w2a8") and sites["linear.weight"] == 14


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quant=w8a8", "quant.weight_bits=32", "refinement=adaround"], "no weight of"),
        (["quant=w4a32", "refinement=smoothquant"], "one of the two stays in floating point"),
        (["quant=w8a8", "placement.sites=[matmul.query]", "refinement=bias_correction"], "no weight of"),
        (["quant=w8a8", "placement.sites=[linear.weight]", "refinement=smoothquant"], "one of the two stays"),
    ],
)  # fmt: skip
def test_what_has_nothing_to_refine_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *words)
    assert said in explain(caught.value)


def test_without_quantization_a_refinement_does_nothing() -> None:
    assert experiment("task=mrpc", "quant=fp32", "refinement=adaround").refinement.rounding == "adaround"
