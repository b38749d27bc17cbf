"""conf/recipe: each agrees with its source, and combines with any architecture, calibrator and bit-width."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from pydantic import ValidationError

from qexp.config import Control, Distillation, Experiment, Qat, QuestionTask
from qexp.config.calibration import OF_ACTIVATIONS
from qexp.environment import conf_folder
from qexp.quant.insertion.insert import insert
from tests.conftest import compose, experiment
from tests.support.tiny_models import CONFIGS, batch, build

RECIPES = sorted(file.stem for file in (conf_folder() / "recipe").glob("*.yaml"))
CALIBRATORS = sorted(file.stem for file in (conf_folder() / "calibrator").glob("*.yaml"))
CALIBRATORS.remove("imported")  # asks for a file of ranges, whose sites are those of one placement

AIMET = {
    "w8a8": {
        "cola": "per_tensor max", "sst2": "per_channel max", "mrpc": "per_channel max",
        "stsb": "per_channel max", "qqp": "per_channel max", "rte": "per_channel max",
        "squad": "per_channel max", "mnli": "per_tensor sqnr", "qnli": "per_tensor sqnr",
    },
    "w4a8": {
        "cola": "per_tensor sqnr", "sst2": "per_channel sqnr", "mrpc": "per_channel sqnr",
        "stsb": "per_channel sqnr", "qqp": "per_tensor sqnr", "rte": "per_channel sqnr",
        "squad": "per_channel sqnr", "mnli": "per_tensor sqnr", "qnli": "per_tensor sqnr",
    },
}  # fmt: skip
"""Granularity of weights and calibrator (tf is max, tf_enhanced is sqnr) in AIMET's table."""


def test_every_protocol_of_the_field_is_there() -> None:
    assert RECIPES == [
        "aimet", "best", "bondarenko", "bondarenko_mp", "bondarenko_peg", "fast_cpu", "ft_mode1", "ft_mode2",
        "mqbench", "neurst", "onnxruntime_dynamic", "q8bert", "qdqbert", "qdqbert_masked",
    ]  # fmt: skip
    for recipe in RECIPES:
        head = (
            (conf_folder() / "recipe" / f"{recipe}.yaml")
            .read_text(encoding="utf-8")
            .partition("defaults:")[0]
        )
        assert len(head.splitlines()) >= 2, "a recipe opens with its source"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_every_recipe_goes_with_every_calibrator(recipe: str, calibrator: str) -> None:
    """Sections composed once each are put together, as no recipe sets fields of a calibrator."""
    tree = compose("task=cola", f"recipe={recipe}", "quant=w8a8", "method=ptq")
    tree["calibrator"] = compose("task=cola", f"calibrator={calibrator}")["calibrator"]
    if recipe == "onnxruntime_dynamic" and tree["calibrator"]["kind"] in OF_ACTIVATIONS:
        with pytest.raises(ValidationError, match="found at run time"):
            Experiment.model_validate(tree)
        return
    made = Experiment.model_validate(tree)
    assert made.calibrator.kind == calibrator.split("_")[0]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("quant", ["w4a8", "w8a16"])
def test_every_recipe_goes_with_every_bit_width(recipe: str, quant: str) -> None:
    made = experiment("task=cola", f"recipe={recipe}", "calibrator=mse", f"quant={quant}", "method=ptq")
    assert made.calibrator.kind == "mse"
    assert made.quant.name.startswith(quant)
    assert made.method.kind == "ptq"


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_sets_fields_of_a_calibrator(recipe: str) -> None:
    assert "calibrator" not in yaml.safe_load((conf_folder() / "recipe" / f"{recipe}.yaml").read_text())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_recipe_quantizes_every_architecture(recipe: str, architecture: str) -> None:
    made, model, tensors = experiment("task=cola", f"recipe={recipe}"), build(architecture), batch()
    quantization = insert(model, made.quant_config)
    grouped = made.quant_config.groups_dimensions
    with torch.no_grad(), quantization.observing(tensors["attention_mask"], dimensions=grouped):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), made.calibrator)
    quantization.freeze()
    with torch.no_grad():
        quantized = model(**tensors).logits
        quantization.off()
        original = model(**tensors).logits
    assert bool(torch.isfinite(quantized).all())
    assert not torch.equal(quantized, original)
    kinds = {site.kind for site in quantization.sites}
    included = {"linear.input"} if (recipe, architecture) == ("aimet", "mobilebert") else set()
    assert kinds == set(made.placement.sites) | included


@pytest.mark.parametrize(
    ("quant", "task"), [(quant, task) for quant, tasks in AIMET.items() for task in tasks]
)
def test_aimet_is_its_table(quant: str, task: str) -> None:
    made = experiment(f"recipe=aimet/{quant}_{task}")
    assert (made.quant.name, made.task.name) == (quant, task)
    assert f"{made.scheme.weight.granularity} {made.calibrator.kind}" == AIMET[quant][task]
    assert made.calibrator.weights == made.calibrator.kind
    assert not made.scheme.activation.symmetric
    assert made.placement.mask_value == -6
    assert isinstance(made.method, Qat)
    method = made.method
    moves = (method.ranges, method.range_parameters, method.recalibrate_weights)
    learns = (quant, task) == ("w4a8", "squad")
    assert moves == (("learned", "ends", False) if learns else ("frozen", "scale", "each_step"))
    assert (made.scheme.weight.narrow, made.scheme.weight.range) == (False, "full")
    assert made.scheme.embedding is not None
    assert made.scheme.embedding.granularity == "per_tensor"
    assert (made.calibration.weights, made.calibration.padding) == ("quantized", "max_length")


def test_numbers_of_the_sources() -> None:
    qdqbert, q8bert = experiment("task=squad", "recipe=qdqbert"), experiment("task=cola", "recipe=q8bert")
    assert isinstance(qdqbert.method, Qat)
    assert isinstance(q8bert.method, Qat)
    assert (qdqbert.method.learning_rate, qdqbert.method.epochs, qdqbert.method.ranges) == (4e-5, 2, "frozen")
    assert qdqbert.calibrator.model_dump(include={"percentile", "edge"}) == {
        "percentile": 99.99, "edge": "lower",
    }  # fmt: skip
    assert (qdqbert.method.start, qdqbert.method.schedule, qdqbert.method.batch_size) == (
        "pretrained",
        "cosine",
        12,
    )
    assert (qdqbert.calibration.samples, qdqbert.calibration.batch_size) == (128, 8)
    example = experiment("recipe=qdqbert/squad").task
    assert isinstance(example, QuestionTask)
    assert (example.max_length, example.doc_stride) == (128, 32)
    assert (q8bert.method.learning_rate, q8bert.method.ranges, q8bert.method.range_decay) == (
        2e-5,
        "ema",
        0.9999,
    )
    assert (q8bert.method.epochs, q8bert.method.head_delay, q8bert.method.start) == (3, 200, "pretrained")
    assert (q8bert.method.warmup, q8bert.method.weight_decay, q8bert.method.dropout) == (0, 0, None)
    assert q8bert.calibrator.model_dump()["decay"] == 0.9999
    assert (q8bert.scheme.weight.granularity, q8bert.scheme.activation.symmetric) == ("per_tensor", True)
    first, second = (experiment("task=squad", f"recipe=ft_mode{mode}") for mode in (1, 2))
    assert (first.scheme.weight.granularity, first.placement.fuse_qkv) == ("per_channel", False)
    assert (second.scheme.weight.granularity, second.placement.fuse_qkv) == ("per_tensor", True)
    assert "residual.input" in second.placement.sites
    assert "residual.input" not in first.placement.sites
    groups = experiment("task=cola", "recipe=bondarenko_peg").quant.overrides
    assert {each.activation.groups for each in groups.values() if each.activation} == {6}
    wide = experiment("task=cola", "recipe=bondarenko_mp").quant.overrides
    assert {glob: each.activation_bits for glob, each in wide.items()} == {
        "@ffn_input": 16, "@ffn_output": 16, "@ffn_sum": 16,
    }  # fmt: skip


def test_the_control_of_best_differs_in_nothing_but_quantizers() -> None:
    best, control = (experiment("task=stsb", "recipe=best", f"quant={bits}") for bits in ("w4a8", "fp32"))
    assert isinstance(best.method, Qat)
    assert isinstance(control.method, Control)
    shared = set(Control.model_fields) - {"kind"}
    assert best.method.model_dump(include=shared) == control.method.model_dump(include=shared)
    assert best.method.distillation != Distillation()
    assert not control.quant.enabled
    assert math.isclose(best.method.distillation.logits, 1.0)
