"""Exchange of operators in a trace, against torch's own decomposition of the same trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import SessionOptions
from torch import Tensor, nn
from torch.export import ExportedProgram

from qexp.deploy.onnx import export as exporting
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.export_translation import DECODER, ENCODER, export_translation
from qexp.deploy.runtimes.onnxruntime.session import new_session
from tests.support import graphs, sequence_models, tiny_translators
from tests.support.tiny_encoders import CONFIGS, EXAMPLE, batch, encoder, quantized


class Decompositions:
    """How often torch decomposed a trace, and a way to have it do so always."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.by_torch = 0
        self._patch = patch
        original = ExportedProgram.run_decompositions

        def count(program: ExportedProgram, *args: Any, **kwargs: Any) -> ExportedProgram:
            self.by_torch += 1
            return original(program, *args, **kwargs)

        patch.setattr(ExportedProgram, "run_decompositions", count)

    @contextmanager
    def always(self) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(exporting, "exchange_operators", lambda program: None)
            yield


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> Decompositions:
    return Decompositions(monkeypatch)


def _structure(path: Path) -> list[Any]:
    """Everything in a graph but the names that the exporter makes up for values."""
    graph = onnx.load(path).graph
    stored = {each.name: (each.data_type, *each.dims, each.raw_data) for each in graph.initializer}
    places: dict[str, int] = {}

    def place(name: str) -> Any:
        return stored.get(name) or places.setdefault(name, len(places))

    ends = [(value.SerializeToString(), place(value.name)) for value in (*graph.input, *graph.output)]
    nodes = [
        (node.op_type, *map(place, (*node.input, *node.output)), *sorted(map(str, node.attribute)))
        for node in graph.node
    ]
    return [*ends, *nodes, len(stored)]


def _both(
    decompositions: Decompositions, folder: Path, files: tuple[str, ...], write: Callable[[Path], Any]
) -> None:
    """Export by exchange and by torch, and compare."""
    for name in ("ours", "torch"):
        (folder / name).mkdir()
    write(folder / "ours")
    assert decompositions.by_torch == 0
    with decompositions.always():
        write(folder / "torch")
    assert decompositions.by_torch == len(files)
    for file in files:
        assert _structure(folder / "ours" / file) == _structure(folder / "torch" / file)


@pytest.mark.parametrize("bits", [pytest.param(None, marks=pytest.mark.slow), 8], ids=["float", "int8"])
@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=() if name == "bert" else pytest.mark.slow) for name in CONFIGS]
)
def test_encoders(
    tmp_path: Path, decompositions: Decompositions, architecture: str, bits: int | None
) -> None:
    model = encoder(architecture) if bits is None else quantized(encoder(architecture), bits, bits)
    _both(
        decompositions, tmp_path, ("model.onnx",),
        lambda folder: export_onnx(model, folder / "model.onnx", example=EXAMPLE),
    )  # fmt: skip


FEW = (("marian", "sdpa"), ("bart", "eager"), ("t5", "quantized"))
"""Translators that the slow tests look at, each with another attention; two exports each take a minute."""
QUANTIZED = [
    ("placement=neurst", "quant=w8a8"),
    ("placement=bondarenko", "quant=w4a4", "scheme=per_tensor"),
    ("placement=aimet", "quant=w8a16", "scheme=symmetric"),
    ("placement=qdqbert", "quant=w8a8", "scheme=embedding_groups"),
]


@pytest.mark.slow
@pytest.mark.parametrize("words", QUANTIZED, ids=" ".join)
def test_inserted_quantizers(tmp_path: Path, decompositions: Decompositions, words: tuple[str, ...]) -> None:
    _both(decompositions, tmp_path, ("model.onnx",), lambda folder: graphs.export_anew(folder, *words))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "attention"),
    [
        pytest.param(*case, marks=() if case in FEW else pytest.mark.exhaustive)
        for case in product(sequence_models.MODELS, ("eager", "sdpa", "quantized"))
    ],
)
def test_translators(
    tmp_path: Path, decompositions: Decompositions, architecture: str, attention: str
) -> None:
    if architecture == "t5" and attention == "sdpa":
        pytest.skip("T5 has no SDPA")
    kind = "sdpa" if attention == "sdpa" else "eager"

    def write(folder: Path) -> None:
        model = sequence_models.build(architecture, attention=kind)
        if attention == "quantized":
            tiny_translators.quantize(model).export_mode()
        export_translation(model, folder, example=sequence_models.batch())

    _both(decompositions, tmp_path, (ENCODER, DECODER), write)


class Overwriting(nn.Module):
    """Reads a tensor by another name after a write to it."""

    def forward(self, input_ids: Tensor) -> Tensor:
        values = input_ids.float() * 2
        view = values.view(-1, 1)
        values.add_(1)
        return view * 3


class Promoting(nn.Module):
    """Adds wider values in place, where a sum would be wider than its first operand."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return (input_ids.half() * 2).add_(input_ids.float() * 0.1).float()


class Untranslated(nn.Module):
    """Has an operator that only torch decomposes."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(input_ids.float(), input_ids.float() * 0.3, reduction="none")


class Alike(nn.Module):
    """Has an operator made of views, which is in no table of decompositions."""

    def forward(self, input_ids: Tensor) -> Tensor:
        values = input_ids.float() * 2
        return values.reshape(-1).reshape_as(input_ids)


class Scoped(nn.Module):
    """Has a subgraph."""

    def forward(self, input_ids: Tensor) -> Tensor:
        with torch.enable_grad():
            return input_ids.float() * 0.5


@pytest.mark.parametrize("module", [Overwriting, Promoting, Untranslated, Alike, Scoped])
def test_torch_decomposes_what_has_no_counterpart(
    tmp_path: Path, decompositions: Decompositions, module: type[nn.Module]
) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(module(), path, example=EXAMPLE)
    assert decompositions.by_torch == 1
    values = batch(("input_ids",), 5, 7)
    expected = module()(torch.from_numpy(values["input_ids"])).numpy()
    np.testing.assert_allclose(new_session(path, SessionOptions()).run(None, values)[0], expected, rtol=1e-6)
