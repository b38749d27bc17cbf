"""Training that is quantized from its first step, under a new head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from qexp.execution.job import OK
from tests.support.jobs import QUICK, record_problem, run

LITTLE = (
    *QUICK[:-1], "task=mrpc", "finetune.epochs=0.02", "budget.evaluation_rows=20", "calibration.samples=16",
    "method.epochs=0.02", "deploy=none",
)  # fmt: skip
"""Words of a run that is as short as it can be."""


def keys(record: dict[str, Any]) -> dict[str, str]:
    """Key of each stage; of scores the last."""
    return {stage["stage"]: stage["key"] for stage in record["stages"]}


@pytest.mark.parametrize("recipe", ["qdqbert", "q8bert", "aimet"])
def test_a_recipe_trains_from_where_its_program_does(recipe: str, tiny_bert: Path, outputs: Path) -> None:
    code, record = run(*LITTLE, f"recipe={recipe}", f"model.name={tiny_bert}")
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat"}
    pretrained = recipe != "aimet"
    assert ("4-pretrained" in keys(record)) == pretrained
    folder = outputs / "artifacts" / "5-qat" / keys(record)["5-qat"]
    inputs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["inputs"]
    start = keys(record)["4-pretrained" if pretrained else "2-fp32"]
    assert inputs["encoder"] == start
    assert inputs["ranges"] == keys(record)["4-pretrained" if pretrained else "4-ranges"]
    assert inputs["teacher"] == keys(record)["2-fp32"]
    assert inputs["counts_padding"] == (recipe == "q8bert")


def test_a_new_head_is_drawn_as_in_fine_tuning(tiny_bert: Path, outputs: Path) -> None:
    words = (*LITTLE, "quant=w8a8", "method=qat", "method.start=pretrained", f"model.name={tiny_bert}")
    code, _ = run(*words)
    assert code == OK, record_problem()
    artifacts = outputs / "artifacts"
    (start,) = (artifacts / "4-pretrained").glob("*/model/model.safetensors")
    first = load_file(start)
    base = load_file(tiny_bert / "model.safetensors")
    own = {name.removeprefix("bert."): tensor for name, tensor in first.items() if name.startswith("bert.")}
    assert {name for name in base if name in own and not (base[name] == own[name]).all()} == set()
    assert any(name.startswith("classifier") for name in first)


def test_quantized_weights_and_padding_change_the_ranges(tiny_bert: Path, outputs: Path) -> None:
    words = (*LITTLE[:-2], "deploy=none", "quant=w4a8", "method=ptq", f"model.name={tiny_bert}")
    words = (*words, "calibration.samples=60", "calibration.batch_size=2", "calibrator=mse")
    scales = []
    changes = ("weights=float", "weights=quantized", "padding=batch", "padding=max_length")
    for change in changes:
        code, record = run(*words, f"calibration.{change}")
        assert code == OK, record_problem()
        ranges = load_file(outputs / "artifacts/4-ranges" / keys(record)["4-ranges"] / "ranges.safetensors")
        names = [name for name in sorted(ranges) if name.endswith(("input/scale", "probs/scale"))]
        scales.append(tuple(float(ranges[name].max()) for name in names))
    assert [scales.index(each) for each in scales] == list(range(len(changes)))
