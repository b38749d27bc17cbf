"""Peers: that they quantize what they say, and that what is missing is named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from benchmarks.peers import NOT_COMPARABLE, OWN, PEERS, Peer, attempt, logits, prepare, quiet
from benchmarks.shapes import SHAPES, Batch, Family, batch_of


@pytest.fixture
def family() -> Family:
    return Family(SHAPES["tiny"])


@pytest.fixture
def batch() -> Batch:
    return batch_of(SHAPES["tiny"], 4, 16)


@pytest.mark.parametrize("sites", ["linear", "qdqbert"])
def test_hooks_of_torch_operators_compute_what_qexp_computes(
    family: Family, batch: Batch, sites: str
) -> None:
    """Two independent ways to the same grids: torch's native operators, and this project.

    Torch multiplies by 1 / scale, which may round a value to the neighbouring step; from there on, the
    layers multiply the difference. So the first layer is compared, and the rest only as to its size.
    """
    names = {"qexp frozen": OWN["qexp frozen"], "torch hooks": PEERS["torch hooks"]}
    found = prepare(family, sites, batch, names)
    outputs = {}
    for name, model in found.models.items():
        first = model.bert.encoder.layer[0].attention.self.value
        first.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        change = (logits(model, batch) - logits(family.build(), batch)).abs().max()
        assert 0.001 < float(change) < 0.2
    own, other = outputs.values()
    assert float(((own - other).abs() > 1e-5).float().mean()) < 0.05


def test_a_frozen_and_a_learned_model_begin_alike(family: Family, batch: Batch) -> None:
    found = prepare(family, "qdqbert", batch, OWN)
    frozen, learned = found.models.values()
    assert torch.equal(logits(frozen, batch), logits(learned, batch))
    trained = [sum(p.requires_grad for p in model.parameters()) for model in (frozen, learned)]
    assert trained[1] > trained[0]


def test_what_is_missing_or_fails_is_named(family: Family, batch: Batch) -> None:
    def fail(model: Any, sites: str, batch: Batch) -> Any:
        raise RuntimeError("the reason\nand much more")

    names = {
        "absent": Peer(fail, {"linear": ""}, "no_such_module_of_qexp"),
        "failing": Peer(fail, {"linear": ""}),
        "elsewhere": Peer(fail, {"qdqbert": ""}),
        "torch hooks": PEERS["torch hooks"],
    }
    found = prepare(family, "linear", batch, names)
    assert list(found.models) == ["torch hooks"]
    assert found.skipped == {
        **NOT_COMPARABLE,
        "absent": "no_such_module_of_qexp is not installed: pip install qexp[bench]",
        "failing": "RuntimeError: the reason",
        "elsewhere": "does not quantize the sites of linear",
    }


def test_the_report_says_what_is_quantized_and_what_is_left_out(
    family: Family, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(family, "linear", batch, {"torch hooks": PEERS["torch hooks"]}).show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  torch hooks: linear layers; moves logits by ")
    assert lines[1].startswith("  left out: neural-compressor: ")


def test_an_attempt_without_a_message_still_has_a_reason() -> None:
    def fail() -> None:
        raise KeyError

    assert attempt(fail) == (None, "KeyError: ")
    assert attempt(lambda: 3) == (3, None)


def test_quiet_keeps_remarks_off_the_screen_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("advice")
        warnings.warn("advice", UserWarning, stacklevel=1)
    print("result")
    assert capsys.readouterr().out == "result\n"
    with pytest.raises(UserWarning, match="again"):
        warnings.warn("again", UserWarning, stacklevel=1)


FOREIGN = [(name, sites) for name, peer in PEERS.items() if peer.module for sites in peer.sites]


@pytest.mark.parametrize(("name", "sites"), FOREIGN)
@pytest.mark.filterwarnings("default")  # peers warn at their import, of versions and of each other
def test_an_installed_peer_trains(family: Family, batch: Batch, name: str, sites: str) -> None:
    """A gradient reaches the shared weights, with the quantizers in between."""
    pytest.importorskip(str(PEERS[name].module))
    found = prepare(family, sites, batch, {name: PEERS[name]})
    assert name not in found.skipped, found.skipped[name]
    assert 0.0005 < found.drift[name] < 0.3
    model = found.models[name].train()
    model(**batch).loss.backward()
    shared = {tensor.data_ptr() for tensor in family.weights.values()}
    trained = [p for p in model.parameters() if p.requires_grad and p.data_ptr() in shared]
    assert len(trained) == len(family.weights)
    assert all(p.grad is not None for p in trained)
