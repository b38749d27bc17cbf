"""Folder for the hub: float and integer weights, quantizer ranges, tokenizer, ONNX graphs and model card."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qexp.analysis.run_models import StoredModel, graph_of, model_of
from qexp.artifacts.types import Graph
from qexp.config import BiEncoderTask, TranslationTask
from qexp.context import RunContext
from qexp.models.integer_files import CONFIG, WEIGHTS, publish_integers, read_summary
from qexp.models.published import INTEGERS, QUANTIZATION, RANGES, TASK, task_file
from qexp.publishing.model_card import CardContent, card
from qexp.publishing.new_folder import new_folder
from qexp.publishing.sentence_transformers import with_hidden_states, write_modules

GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
"""Path of each graph, by precision: the names that transformers.js and Optimum expect."""
CARD = "README.md"


@dataclass(frozen=True)
class Publication:
    """A model to publish, and its license."""

    model: StoredModel
    license: str | None
    """Identifier of a license on the hub; None leaves a comment in the card to fill in before the upload."""


def publish(publication: Publication, folder: Path, outputs: Path, ctx: RunContext) -> None:
    """Write the folder atomically: either complete or not at all.

    Raises:
        StoreError: The folder exists and is not empty, it cannot be written, or an artifact of the run is
            missing.
        DeployError: A graph cannot be exported.
    """
    with new_folder(folder) as work:
        _fill(work, publication, outputs=outputs, ctx=ctx, name=folder.name)


def _fill(work: Path, publication: Publication, outputs: Path, ctx: RunContext, name: str) -> None:
    model = publication.model
    _copy_all(model.tokens.tokenizer, work)
    _copy_all(model.encoder.model, work)
    graphs = {} if isinstance(model.task, TranslationTask) else _graphs(model, outputs, ctx)
    for precision, graph in graphs.items():
        target = work / GRAPHS[precision]
        target.parent.mkdir(exist_ok=True)
        _copy_graph(graph.file, target)
    if isinstance(model.task, BiEncoderTask):
        from transformers import AutoConfig

        write_modules(model.task, AutoConfig.from_pretrained(model.encoder.model).hidden_size, work)
    (work / TASK).write_text(task_file(model.title, model.task, model.tokens.pad_id), encoding="utf-8")
    facts = None
    if model.quant_config is not None:
        assert model.ranges is not None
        with _integers(model, graphs.get("int8"), ctx) as saved:
            facts = _facts(model, read_summary(saved)["sites"])
            shutil.copyfile(model.ranges.file, work / RANGES)
            (work / QUANTIZATION).write_text(json.dumps(facts, indent=1), encoding="utf-8")
            facts[INTEGERS] = _write_integers(model, saved, work)
    files = {file.relative_to(work).as_posix(): file.stat().st_size for file in _files(work)}
    text = card(CardContent(model, name, license=publication.license, facts=facts, files=files))
    (work / CARD).write_text(text, encoding="utf-8")


def _graphs(model: StoredModel, outputs: Path, ctx: RunContext) -> dict[str, Graph]:
    """Return the graphs by precision: the float model of the run, and the quantized one if published."""
    if model.quant_config is None:
        return {"fp32": graph_of(model, ctx)}
    plain = model_of(model.record, outputs, "fp32")
    return {"fp32": graph_of(plain, ctx), "int8": graph_of(model, ctx)}


@contextmanager
def _integers(model: StoredModel, graph: Graph | None, ctx: RunContext) -> Iterator[Path]:
    """Yield the folder of the saved integers: that of the graph, or one that torch makes now."""
    if graph is not None and graph.integers.is_dir():
        yield graph.integers
        return
    from qexp.models.inference import load_quantized
    from qexp.models.integer_checkpoint import save_integers

    _, quantization = load_quantized(model.encoder, model.quant_config, model.ranges, ctx)
    assert quantization is not None
    with TemporaryDirectory(prefix="qexp-publish-") as folder:
        save_integers(quantization, Path(folder) / INTEGERS)
        yield Path(folder) / INTEGERS


def _copy_graph(source: Path, target: Path) -> None:
    """Copy a graph so that a plain session computes exact products with the options of the card's example.

    Hidden states that are pooled become an output, as sentence-transformers pools them itself.
    """
    import onnx

    from qexp.deploy.onnx.io import read, write
    from qexp.deploy.onnx.uint8 import shift_shared_weights

    graph = read(source)
    shifted, opened = shift_shared_weights(graph), with_hidden_states(graph)
    if shifted or opened:
        onnx.checker.check_model(graph, full_check=True)
        write(graph, target)
    else:
        shutil.copyfile(source, target)


def _write_integers(model: StoredModel, saved: Path, work: Path) -> dict[str, Any]:
    """Write the integer checkpoint, which is complete in its folder, and return what it holds."""
    folder = work / INTEGERS
    folder.mkdir()
    _copy_all(model.tokens.tokenizer, folder)
    for name in (RANGES, QUANTIZATION, TASK):
        shutil.copyfile(work / name, folder / name)
    for file in _files(model.encoder.model):
        if file.name != WEIGHTS:
            shutil.copyfile(file, folder / file.name)
    config = json.loads((model.encoder.model / CONFIG).read_text(encoding="utf-8"))
    return publish_integers(saved, config, folder)


def _facts(model: StoredModel, sites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is quantized and how: sections of the experiment, and each site with its bits."""
    assert model.quant_config is not None
    kinds = Counter((site["kind"], site["bits"]) for site in sites)
    return {
        "stage": model.name,
        **model.quant_config.model_dump(mode="json", exclude_none=True),
        "kinds": [{"kind": kind, "bits": width, "sites": count} for (kind, width), count in kinds.items()],
        "sites": list(sites),
    }


def _copy_all(source: Path, target: Path) -> None:
    for file in _files(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
