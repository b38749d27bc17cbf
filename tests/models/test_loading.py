"""Tests of loading checkpoints: heads, label orders and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from qexp.artifacts.types import Tokens
from qexp.config import Model
from qexp.data.checkpoints import locate
from qexp.errors import ModelError
from qexp.models.loading import (
    label_order,
    load_embedder,
    load_finetuned,
    load_pretrained,
    load_saved,
    logits_of,
    model_inputs,
    set_dropout,
)
from qexp.tasks import adapter_for
from tests.conftest import ARCHITECTURES, experiment, save_tokenizer, tiny_config
from tests.support import sequence_models

MRPC, MNLI, STSB = (experiment(f"task={name}").task for name in ("mrpc", "mnli", "stsb"))
IDS = torch.tensor([[2, 50, 60, 3]])


def _finetuned(folder: Path, architecture: str = "bert", **config: object) -> Path:
    torch.manual_seed(1)
    size = save_tokenizer(folder)
    AutoModelForSequenceClassification.from_config(tiny_config(architecture, size, **config)).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pretrained_encoder_gets_a_new_head_drawn_from_the_seed(
    architecture: str, tiny_models: Callable[[str], Path]
) -> None:
    folder = tiny_models(architecture)
    first, again, other = (load_pretrained(folder, MNLI, seed) for seed in (1, 1, 2))
    assert first.config.num_labels == 3
    assert first.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_regression_gets_one_output(tiny_bert: Path) -> None:
    assert load_pretrained(tiny_bert, STSB, 1)(IDS).logits.shape == (1, 1)


def test_head_of_another_width_is_replaced_for_finetuning(tmp_path: Path) -> None:
    folder = _finetuned(tmp_path / "three", num_labels=3)
    assert load_pretrained(folder, MRPC, 1)(IDS).logits.shape == (1, 2)


def test_body_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = _finetuned(tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"lacks \d+ weights"):
        load_pretrained(folder, MRPC, 1)


@pytest.mark.parametrize("prefix", ["model.", "_fsdp_wrapped_module.", "net.encoder."])
def test_weights_of_a_model_around_it_are_named_for_what_they_are(prefix: str, tmp_path: Path) -> None:
    folder = _finetuned(tmp_path / "wrapped")
    file = folder / "model.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"has {re.escape(prefix)}bert\..*saved from a model around it"):
        load_pretrained(folder, MRPC, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_of_a_finetuned_head_are_put_into_the_tasks_order(architecture: str, tmp_path: Path) -> None:
    names = {0: "CONTRADICTION", 1: "Neutral", 2: "entailment"}
    folder = _finetuned(
        tmp_path / "nli", architecture, id2label=names, label2id={v: k for k, v in names.items()}
    )
    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()(IDS).logits
    ordered = load_finetuned(folder, MNLI)
    assert torch.equal(ordered(IDS).logits, own[:, [2, 1, 0]])
    ordered.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_saved(tmp_path / "saved")(IDS).logits, own[:, [2, 1, 0]])


def test_label_order_by_name_or_by_number() -> None:
    assert label_order({0: "LABEL_0", 1: "LABEL_1"}, MRPC.labels) == [0, 1]
    assert label_order({0: "Equivalent", 1: "not-equivalent"}, MRPC.labels) == [1, 0]
    with pytest.raises(ModelError, match=r"\['yes', 'no'\].*not_equivalent.*id2label"):
        label_order({0: "yes", 1: "no"}, MRPC.labels)


@pytest.mark.parametrize(
    ("outputs", "labels", "order"),
    [
        (("-1", "0", "1"), ("-1", "0", "1"), [0, 1, 2]),
        (("1", "-1", "0"), ("-1", "0", "1"), [1, 2, 0]),
        (("C", "C++", "C#"), ("C#", "C", "C++"), [2, 0, 1]),
        (("!", "?"), ("?", "!"), [1, 0]),
        (("1", "2", "3"), ("1", "2", "3"), [0, 1, 2]),
        (("LABEL_2", "LABEL_1"), ("no", "yes"), [1, 0]),
        (("LABEL_2", "LABEL_1"), ("label_1", "label_2"), [1, 0]),
    ],
)
def test_each_output_is_that_of_one_label(
    outputs: tuple[str, ...], labels: tuple[str, ...], order: list[int]
) -> None:
    assert label_order(dict(enumerate(outputs)), labels) == order


@pytest.mark.parametrize(
    ("id2label", "labels"),
    [
        ({0: "-1", 1: "0", 2: "1"}, ("minus 1", "0", "1")),
        ({0: "a", 1: "a"}, ("a", "b")),
        ({-1: "neg", 0: "neu", 1: "pos"}, ("neg", "neu", "pos")),
        ({1: "neg", 2: "neu", 3: "pos"}, ("neg", "neu", "pos")),
    ],
)
def test_an_ambiguous_head_is_refused(id2label: dict[int, str], labels: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="id2label"):
        label_order(id2label, labels)


def test_finetuned_checkpoint_needs_a_head_of_the_right_width(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no fine-tuned head"):
        load_finetuned(tiny_bert, MRPC)
    with pytest.raises(ModelError, match="has 3 outputs, task=mrpc needs 2"):
        load_finetuned(_finetuned(tmp_path / "three", num_labels=3), MRPC)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = _finetuned(tmp_path / "pickled")
    torch.save(
        AutoModelForSequenceClassification.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin"
    )
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pretrained(folder, MRPC, 1)


def test_dropout_is_set_or_left(tiny_bert: Path) -> None:
    model = load_pretrained(tiny_bert, MRPC, 1)

    def rates() -> set[float]:
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    set_dropout(model, None)
    assert rates() == {0.1}
    set_dropout(model, 0.0)
    assert rates() == {0.0}


def test_model_inputs_are_those_of_its_forward(tiny_models: Callable[[str], Path]) -> None:
    assert "token_type_ids" in model_inputs(load_pretrained(tiny_models("bert"), MRPC, 1))
    assert "token_type_ids" not in model_inputs(load_pretrained(tiny_models("distilbert"), MRPC, 1))


def test_a_reader_of_an_nli_checkpoint_gives_starts_and_ends(tmp_path: Path) -> None:
    folder = _finetuned(tmp_path / "nli", num_labels=3)
    reader = adapter_for(experiment("task=squad").task).pretrained(
        locate(Model(name=str(folder))), Tokens(tmp_path, ""), 1
    )
    assert logits_of(reader(IDS)).shape == (1, 4, 2)


def test_a_model_with_a_decoder_classifies_nothing(tmp_path: Path) -> None:
    sequence_models.build("bart").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has a decoder beside its encoder"):
        load_pretrained(tmp_path, MRPC, 1)


def test_a_model_with_a_decoder_embeds_nothing(tmp_path: Path) -> None:
    sequence_models.build("t5").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has a decoder beside its encoder"):
        load_embedder(tmp_path, "mean")


@pytest.mark.parametrize("model_type", ["bert", "mine"])
def test_code_beside_a_checkpoint_is_never_run(model_type: str, tmp_path: Path) -> None:
    """And nobody is asked whether it may: nothing is read from the standard input."""
    folder = _finetuned(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": model_type, "auto_map": {"AutoConfig": "configuration_mine.MyConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if model_type == "bert":
        assert type(load_pretrained(folder, MRPC, 1)).__name__ == "BertForSequenceClassification"
    else:
        with pytest.raises(ModelError):
            load_pretrained(folder, MRPC, 1)
    assert not (tmp_path / "ran").exists()
