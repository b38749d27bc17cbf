"""Sections of the configuration: derived defaults, rejected values, and the identity of a run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qexp import pipeline
from qexp.config import Control, Experiment, Finetune, Qat, Quant
from qexp.config.validation_errors import allowed_fields, explain, unknown_field
from qexp.environment import conf_folder
from qexp.naming import is_simulated
from tests.conftest import compose, experiment


def _training(*overrides: str) -> Finetune:
    found = experiment(*overrides).finetune
    assert isinstance(found, Finetune)
    return found


def _qat(*overrides: str) -> Qat:
    found = experiment(*overrides).method
    assert isinstance(found, Qat)
    return found


def test_finetune_numbers_come_from_command_line_then_model_then_task() -> None:
    assert _training("task=mrpc", "model=bert_base").learning_rate == 3e-5
    assert _training("task=mrpc").learning_rate == 1e-4
    assert _training("task=stsb").learning_rate == 1e-4
    assert _training("task=stsb").epochs == 3
    assert _training("task=mrpc", "finetune.learning_rate=7e-6").learning_rate == 7e-6


def test_statistics_of_dimensions_are_for_what_needs_them() -> None:
    override = "quant.overrides={pooler: {activation: {granularity: per_embedding_group}}}"
    for words in (["scheme=embedding_groups"], [override]):
        assert experiment("task=mrpc", *words).quant_config.groups_dimensions
    for words in ([], ["scheme=symmetric"], ["refinement=smoothquant"]):
        assert not experiment("task=mrpc", *words).quant_config.groups_dimensions


def test_what_no_one_says_is_left_to_its_default() -> None:
    plain, scratch = _training("task=mrpc"), _training("task=translation", "model=transformer_tiny")
    assert (plain.batch_size, plain.warmup, plain.schedule, plain.beta2) == (32, 0.1, "linear", 0.999)
    assert (scratch.schedule, scratch.beta2) == ("inverse_sqrt", 0.98)
    assert _training("task=mrpc", "finetune.batch_size=7").batch_size == 7
    assert _qat("task=mrpc").epochs == 2
    assert _qat("task=translation", "model=transformer_tiny").epochs == 3
    assert _qat("task=translation", "model=transformer_tiny", "method.epochs=0.5").epochs == 0.5


def test_a_rate_that_no_one_says_is_asked_for() -> None:
    tree = compose("task=mrpc", "model=bert_base")
    tree["task"].pop("finetune")
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree)
    assert "finetune.learning_rate: is required" in explain(caught.value)


def test_method_auto_is_qat_with_bits_and_nothing_without() -> None:
    assert experiment("task=rte", "quant=w8a8").method.kind == "qat"
    assert experiment("task=rte", "quant=fp32").method.kind == "none"


def test_method_controlled_is_qat_with_bits_and_its_control_without() -> None:
    words = ("task=mrpc", "method=controlled", "method.distillation.logits=1", "method.epochs=3")
    qat, control = experiment(*words).method, experiment(*words, "quant=fp32").method
    assert isinstance(qat, Qat) and isinstance(control, Control)
    shared = control.model_dump(exclude={"kind"})
    assert shared == qat.model_dump(include=set(shared))
    assert control.epochs == 3 and control.distillation.logits == 1


def test_a_control_has_no_quantizers() -> None:
    with pytest.raises(ValidationError, match="method=control with quant=w8a8: the control is"):
        experiment("task=mrpc", "quant=w8a8", "method=control")


@pytest.mark.parametrize("labels", [0, 2])
def test_a_weight_of_labels_alone_is_refused(labels: int) -> None:
    with pytest.raises(ValidationError, match="without a teacher") as caught:
        experiment("task=mrpc", f"method.distillation.labels={labels}")
    assert "method.distillation" in explain(caught.value)
    assert _qat("task=mrpc", f"method.distillation.labels={labels}", "method.distillation.hidden=1")


def test_qat_rates_follow_from_finetuning() -> None:
    assert _qat("task=mrpc").learning_rate == pytest.approx(5e-5)
    assert _qat("task=mrpc", "method.learning_rate=1e-5").learning_rate == 1e-5


@pytest.mark.parametrize("method", ["qat", "ptq"])
def test_fp32_with_a_quantization_method_is_refused(method: str) -> None:
    with pytest.raises(ValidationError, match="nothing to quantize") as caught:
        experiment("task=mrpc", "quant=fp32", f"method={method}")
    assert "drop method" in explain(caught.value)


def test_a_resolved_experiment_survives_its_own_json() -> None:
    for words in (["task=mrpc"], ["task=stsb", "quant=fp32"], ["task=cola", "quant=w4a8", "method=ptq"]):
        made = experiment(*words)
        assert Experiment.model_validate(made.model_dump(mode="json")) == made


def test_identity_leaves_out_how_and_where_but_keeps_the_device() -> None:
    base = experiment("task=mrpc")
    same = experiment("task=mrpc", "machine.threads=1", "data=local", "data.root=/elsewhere")
    assert base.identity == same.identity
    assert base.identity != experiment("task=mrpc", "machine=gpu").identity
    assert base.identity != experiment("task=mrpc", "seed=2").identity


def test_the_accepted_loss_changes_no_result_and_no_key_of_a_stage() -> None:
    base, other = experiment("task=mrpc"), experiment("task=mrpc", "accept.loss=2")
    assert (base.accept.loss, other.accept.loss) == (0.5, 2.0)
    assert base.identity == other.identity
    for stage in sorted((Path(pipeline.__file__).parent / "stages").glob("[!_]*.py")):
        assert "accept" not in import_module(f"qexp.pipeline.stages.{stage.stem}").STAGE.keys
    for wrong in ("-0.1", "101", "much"):
        with pytest.raises(ValidationError, match=r"accept\.loss"):
            experiment("task=mrpc", f"accept.loss={wrong}")


@pytest.mark.parametrize(
    "word", ["machine.precision=bf16", "machine.devices=2", "machine.accumulate=2", "machine.compile=true"]
)
def test_what_changes_bits_of_a_training_belongs_to_it_and_to_nothing_else(word: str) -> None:
    base, other = experiment("task=mrpc"), experiment("task=mrpc", word)
    assert base.identity != other.identity
    assert base.training_setup != other.training_setup
    assert base.numerics.inference == other.numerics.inference
    assert base.numerics.inference != experiment("task=mrpc", "machine=gpu").numerics.inference


def test_parts_need_rows() -> None:
    words = ("task=mrpc", "machine.devices=4", "machine.accumulate=2", "finetune.batch_size=7")
    with pytest.raises(ValidationError) as caught:
        experiment(*words)
    told = explain(caught.value)
    assert "machine.devices=4 and machine.accumulate=2" in told
    assert "8 parts, but finetune.batch_size=7; lower them" in told
    assert experiment(*words[:-1], "finetune.batch_size=8").machine.parts == 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("method.ranges=ema", "machine.devices=2"), "use machine.devices=1 with machine.accumulate"),
        (("method.ranges=ema", "machine.compile=true"), "use machine.compile=false"),
        (("method.zero_points=learned", "method.ranges=frozen"), "use method.ranges=learned"),
        (("method.zero_points=learned", "scheme.activation.symmetric=true"), "none to learn"),
        (("method.zero_points=learned", "scheme.activation.dynamic=token"), "none to learn"),
    ],
)
def test_ranges_that_cannot_be_trained_are_refused(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", "method=qat", *words)
    assert told in explain(caught.value)
    experiment("task=mrpc", "method=qat", words[0])


def test_fp16_is_for_gpus() -> None:
    assert experiment("task=mrpc", "machine=gpu", "machine.precision=fp16").numerics.precision == "fp16"
    assert experiment("task=mrpc", "machine.precision=bf16").numerics.precision == "bf16"
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", "machine.precision=fp16")
    told = explain(caught.value)
    assert told.startswith("machine.precision=fp16: ")
    assert "allowed on a CPU are fp32 and bf16; change machine.precision" in told


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["machine.devices=0"], ["machine.devices=0", "greater than or equal to 1"]),
        (["machine.precision=int8"], ["machine.precision=int8", "'fp32', 'bf16' or 'fp16'"]),
        (["quant.weight_bits=1"], ["quant.weight_bits=1", "greater than or equal to 2"]),
        (["quant.weight_bits=20"], ["quant.weight_bits=20", "2 to 16"]),
        (["finetune.epochs=-1"], ["finetune.epochs=-1", "greater than 0"]),
        (
            ["calibrator=percentile", "calibrator.percentile=101"],
            ["calibrator.percentile=101", "less than or equal"],
        ),
        (["data.source=ftp"], ["data.source=ftp", "'hub'", "'local'"]),
        (["placement.sites=[linear.bias]"], ["placement.sites.0=linear.bias", "linear.weight"]),
        (["seed=-1"], ["seed=-1"]),
        (["finetune.learning_rate=fast"], ["finetune.learning_rate=fast", "number"]),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *overrides)
    text = explain(caught.value)
    assert all(word in text for word in words), text
    assert "change " in text


def test_several_errors_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", "seed=-1", "quant.weight_bits=1")
    assert explain(caught.value).startswith("2 fields are wrong")


def test_unknown_fields_are_named_with_their_neighbours() -> None:
    tree: dict[str, Any] = compose("task=mrpc")
    tree["method"]["epoch"] = 2
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree)
    assert "did you mean method.epochs?" in explain(caught.value)
    assert "did you mean quant?" in unknown_field("quantt")
    assert allowed_fields(["method"]) >= {"kind", "ranges", "epochs"}
    assert "; task=translation has it" in unknown_field("task.search.beams")
    assert allowed_fields(["no", "such"]) == set()


def test_names_of_bit_widths() -> None:
    assert Quant(weight_bits=4, activation_bits=8).name == "w4a8"
    assert Quant(weight_bits=32, activation_bits=32).name == "fp32"
    assert Quant(weight_bits=8, activation_bits=32).enabled


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["quant=fp8"], "fp8"),
        (["quant=fp8_e5m2"], "fp8e5m2"),
        (["quant=mxfp8"], "mxfp8"),
        (["quant=nvfp4", "calibrator=max"], "nvfp4"),
        (["quant=fp8", "quant.activation_format=fp8_e5m2"], "wfp8afp8e5m2"),
        (["quant=fp8", "quant.activation_format=null", "quant.activation_bits=32"], "wfp8a32"),
    ],
)
def test_formats_of_floats_have_names_and_are_simulated(words: list[str], name: str) -> None:
    made = experiment("task=rte", *words)
    assert made.quant.name == name
    assert is_simulated((made.quant.weight_bits, made.quant.activation_bits), made.quant.name)
    assert made.deploy.kind == ("none" if name in ("mxfp8", "nvfp4") else "engines")


def test_integers_have_no_format_in_what_keys_are_made_of() -> None:
    assert not {"weight_format", "activation_format"} & set(
        experiment("task=rte", "quant=w8a8").quant.model_dump()
    )


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Quant().weight_bits = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "field", "value", "parts"),
    [
        (
            "model",
            "finetune",
            {"stbs": {"epochs": 3}, "defualt": {"learning_rate": 1e-4}},
            ["no task is called stbs or defualt", "did you mean stsb and default?"],
        ),
        ("model", "finetune", {"stsb": {"epohcs": 3}}, ["did you mean model.finetune.stsb.epochs?"]),
        ("model", "finetune", {"stsb": {"epochs": -3}}, ["model.finetune.stsb.epochs=-3", "greater than 0"]),
        ("task", "finetune", {"epohcs": 3}, ["did you mean task.finetune.epochs?"]),
        ("task", "qat", {"epohcs": 3}, ["did you mean task.qat.epochs?"]),
        ("task", "qat", {"learning_rate": "fast"}, ["task.qat.learning_rate=fast", "number"]),
    ],
)
@pytest.mark.parametrize("words", [("finetune=full",), ("finetune=none", "method=ptq")], ids=" ".join)
def test_recommended_numbers_are_checked_whether_they_are_used_or_not(
    section: str, field: str, value: dict[str, Any], parts: list[str], words: tuple[str, ...]
) -> None:
    tree = compose("task=stsb", *words)
    tree[section] = {**tree[section], field: value}
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree)
    told = explain(caught.value)
    assert "\n" not in told
    for part in parts:
        assert part in told


def test_a_model_may_have_numbers_for_the_task_at_hand_whatever_its_name() -> None:
    tree = compose("task=stsb", "task.name=mine")
    tree["model"] = {**tree["model"], "finetune": {"mine": {"epochs": 7}}}
    assert Experiment.model_validate(tree).finetune.epochs == 7


def test_the_tasks_that_models_may_name_are_those_of_the_configuration() -> None:
    from qexp.config.recommended import TASKS

    options = [file.stem for file in (conf_folder() / "task").glob("*.yaml")]
    made = [experiment(f"task={option}", "data.path=own.csv").task.name for option in options]
    assert sorted(TASKS) == sorted({*made} - {"own"})


def test_fields_of_overrides_are_named_with_their_neighbours() -> None:
    assert "did you mean quant.overrides.*pooler*.weight_bits?" in unknown_field(
        "quant.overrides.*pooler*.weight_bit"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["refinement.iterations=900"],
            ["iterations=900 with rounding=nearest", "refinement.rounding=adaround"],
        ),
        (
            ["refinement=adaround", "refinement.damping=0.1"],
            ["damping=0.1 with rounding=adaround", "refinement.rounding=gptq"],
        ),
        (["refinement.activation_order=false"], ["activation_order=False with rounding=nearest"]),
        (["refinement=gptq", "refinement.iterations=900"], ["iterations=900 with rounding=gptq"]),
        (["quant=fp8", "calibrator=entropy"], ["calibrator=entropy", "quant=fp8", "use calibrator=max"]),
        (["quant=fp8", "calibrator=sqnr"], ["calibrator=sqnr", "it chooses ranges of integers"]),
        (["quant=nvfp4"], ["calibrator=mse", "quant=nvfp4", "use calibrator=max"]),
        (["quant=fp8", "refinement=adaround"], ["rounding=adaround with quant=fp8"]),
        (["quant=fp8", "refinement=gptq"], ["rounding=gptq with quant=fp8"]),
        (["quant=mxfp8", "deploy=onnx"], ["deploy=onnx with quant=mxfp8", "use deploy=none"]),
        (["quant=fp8", "machine.compile=true"], ["machine.compile=true with quant=fp8"]),
        (["quant=fp8", "scheme=dynamic"], ["scheme.activation.dynamic=tensor", "quant=fp8"]),
        (["quant=fp8", "scheme=per_group"], ["group_size", "use symmetric=true"]),
        (["quant=fp8", "method.gradient=grid"], ["method.gradient=grid", "use method.gradient=range"]),
        (["quant=fp8", "quant.weight_bits=4"], ["weight_format=fp8_e4m3 with weight_bits=4"]),
        (["quant=w8a8", "quant.weight_format=fp8_e4m3"], ["activation_format=null", "floats by integers"]),
        (["quant=fp8", "quant.embedding_bits=4"], ["embedding_bits=4 with weight_format=fp8_e4m3"]),
        (["calibrator.search=golden", "calibrator.candidates=7"], ["candidates=7 with search=golden"]),
        (["scheme.activation.groups=3"], ["groups=3 with granularity=per_tensor"]),
        (["scheme.activation.permute=false"], ["permute=False with granularity=per_tensor"]),
        (["quant.label=mine"], ["label=mine with no overrides"]),
        (["method.range_decay=0.5"], ["range_decay=0.5 with ranges=learned", "method.ranges=ema"]),
        (
            ["method.ranges=frozen", "method.range_learning_rate=0.5"],
            ["range_learning_rate=0.5 with ranges=frozen"],
        ),
        (["method.distillation.temperature=5"], ["temperature=5.0 with logits=0"]),
        (["method.range_statistic=magnitude"], ["range_statistic=magnitude with ranges=learned"]),
        (["method.range_start=first_batch"], ["range_start=first_batch with ranges=learned"]),
        (
            ["method.ranges=frozen", "method.range_parameters=ends"],
            ["range_parameters=ends with ranges=frozen"],
        ),
        (
            ["scheme.weight.symmetric=false", "scheme.weight.narrow=false"],
            ["narrow=False with symmetric=false"],
        ),
        (["scheme.weight.range=full"], ["range=full with narrow=true", "narrow=false"]),
        (["scheme.activation.narrow=true"], ["narrow=True with symmetric=false"]),
        (["placement.softmax_max=0.5"], ["softmax_max=0.5 with typed=false"]),
        (["data=sample", "data.root=/rows"], ["root=/rows with data=sample", "data=local"]),
        (["quant.embedding_bits=4"], ["quant.embedding_bits=4 with placement=gemm", "embedding.weight"]),
        (["task.metrics=[bleu]"], ["bleu is none of a classification", "accuracy, f1, f1_macro"]),
        (["task.metrics=[f1,f1]"], ["f1 is named twice"]),
        (["task.labels=[same,Same]"], ["each class has a name of its own"]),
        (["++task.label_range=[0,5]"], ["label_range=(0.0, 5.0) with kind=classification"]),
        (
            [
                "model.revision=main",
                "++model.scratch={vocabulary:300,layers:1,width:2,heads:1,inner:2,dropout:0}",
            ],
            ["revision=main with model.scratch"],
        ),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_what_another_choice_leaves_unread_is_refused(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *words)
    told = explain(caught.value)
    assert "\n" not in told
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    "words",
    [
        ["refinement=adaround", "refinement.iterations=900"],
        ["refinement=gptq", "refinement.damping=0", "refinement.activation_order=false"],
        ["calibrator.candidates=7"],
        ["scheme=embedding_groups", "scheme.activation.groups=3"],
        ["method.ranges=ema", "method.range_decay=0.5"],
        ["method.range_learning_rate=0.5"],
        ["method.ranges=frozen", "method.learning_rate=1e-5"],
        ["method.distillation.logits=1", "method.distillation.temperature=5"],
        ["data=local", "data.root=/rows"],
        ["quant.embedding_bits=4", "placement=q8bert"],
        ["quant=fp32", "calibrator=entropy"],
    ],
    ids=" ".join,
)
def test_what_is_read_and_sections_of_an_fp32_row_are_not_refused(words: list[str]) -> None:
    made = experiment("task=mrpc", *words)
    assert Experiment.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["method.gradient=all"], ["gradient=all with ranges=learned", "method.gradient=range"]),
        (
            ["method.recalibrate_weights=each_step"],
            ["recalibrate_weights=each_step with ranges=learned", "method.ranges=frozen"],
        ),
        (
            ["method.zero_points=learned", "method.range_parameters=ends"],
            ["zero_points=learned with range_parameters=ends"],
        ),
        (
            ["method.schedule=continued"],
            ["method.schedule=continued with finetune.schedule=linear", "finetune.schedule=inverse_sqrt"],
        ),
        (
            ["finetune=none", "method.start=pretrained"],
            ["method.start=pretrained with finetune=none", "method.start=finetuned"],
        ),
        (
            ["refinement=equalize", "method.start=pretrained"],
            ["method.start=pretrained with refinement=equalize", "refinement=none"],
        ),
        (
            ["machine.accumulate=4", "method.batch_size=2"],
            ["machine.accumulate=4", "method.batch_size=2", "raise method.batch_size"],
        ),
        (
            ["method=qat_frozen", "method.gradient=all", "machine.compile=true"],
            ["method.gradient=all with machine.compile=true"],
        ),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_trainings_that_contradict_themselves_are_refused(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *words)
    told = explain(caught.value)
    for part in parts:
        assert part in told


def test_rates_follow_from_how_ranges_are_learned_and_where_training_starts() -> None:
    for words, expected in (
        ([], (2e-5, 2e-4)),
        (["method.range_parameters=ends"], (2e-5, 2e-5)),
        (["finetune=neurst", "method=neurst"], (4e-5, 4e-4)),
    ):
        method = experiment("task=mrpc", "finetune.learning_rate=4e-5", *words).method
        assert isinstance(method, Qat)
        assert (method.learning_rate, method.range_learning_rate) == pytest.approx(expected)


def test_padding_of_two_sequences_has_no_length() -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=translation", "model=transformer_tiny", "calibration.padding=max_length")
    assert "calibration.padding=max_length" in explain(caught.value)


def test_f1_of_three_classes_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"f1 is that of one class, 'neutral', .*use f1_macro"):
        experiment("task=mnli", "task.metrics=[f1]")
    assert experiment("task=mnli", "task.metrics=[f1_macro,accuracy]").task.primary == "f1_macro@matched"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"labels": 0, "logits": 1}),
        (("method.distillation.hidden=2",), {"labels": 0, "logits": 0, "hidden": 2}),
        (("method.distillation.logits=3",), {"labels": 0, "logits": 3}),
    ],
)
def test_an_embedding_learns_from_its_teacher_alone(
    words: tuple[str, ...], expected: dict[str, float]
) -> None:
    made = experiment("task=stsb_embedding", "quant=w8a8", *words)
    assert made.finetune.kind == "none"
    assert isinstance(made.method, Qat)
    assert {name: getattr(made.method.distillation, name) for name in expected} == expected
    assert Experiment.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("finetune=full",), "finetune=none"),
        (("method.distillation.labels=0.5", "method.distillation.logits=1"), "method.distillation.labels=0"),
    ],
)
def test_no_labels_train_an_embedding(words: tuple[str, ...], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=stsb_embedding", "quant=w8a8", *words)
    assert part in explain(caught.value)


def test_a_field_of_two_types_is_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", "placement=neurst", "placement.softmax_max=below_two")
    (line,) = explain(caught.value).splitlines()
    assert line.startswith("placement.softmax_max=below_two: input should be a valid number")
    assert "or should be 'below_one'" in line
    assert line.endswith("change placement.softmax_max=…")


def test_dynamic_ranges_need_no_calibration_and_leave_other_keys_alone() -> None:
    static, tensor = experiment("task=mrpc"), experiment("task=mrpc", "scheme=dynamic")
    words = ("scheme=dynamic_token", "refinement=smoothquant", "calibration.samples=64")
    token = experiment("task=mrpc", *words)
    assert [each.quant_config.observes_nothing for each in (static, tensor, token)] == [False, True, True]
    assert [each.quant_config.depends_on_batch for each in (static, tensor, token)] == [False, True, False]
    assert "dynamic" not in static.scheme.activation.model_dump()
    assert tensor.scheme.activation.model_dump()["dynamic"] == "tensor"
    part = experiment(
        "task=mrpc", "scheme=dynamic", "quant.overrides={*.pooler.*: {activation: {symmetric: true}}}"
    )
    assert part.quant_config.depends_on_batch
    assert not part.quant_config.observes_nothing


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("scheme.activation.granularity=per_token",), "scheme.activation.dynamic=token"),
        (
            ("scheme.activation.granularity=per_embedding_group", "scheme.activation.dynamic=token"),
            "nothing reads it",
        ),
        (("scheme=dynamic", "calibrator=percentile"), "calibrator=max, mse or sqnr"),
        (("scheme=dynamic", "calibration.samples=64"), "samples=64 with scheme.activation.dynamic=tensor"),
        (("scheme=dynamic_token", "calibration.weights=quantized"), "nothing reads it"),
        (("scheme=dynamic", "gate.rows=100"), "budget.evaluation_rows"),
        (("scheme=dynamic", "calibrator=clip", "calibrator.activation_clip_max=8"), "nothing reads it"),
    ],
)
def test_what_ranges_at_run_time_leave_unread_is_refused(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *words)
    assert told in explain(caught.value)
    assert "\n" not in explain(caught.value)
