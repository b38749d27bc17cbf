"""A folder for the hub: float weights as trained, ranges beside them, the tokenizer, graphs and a card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qexp.analysis.run_models import Model, graph_of, model_of
from qexp.config import TranslationTask
from qexp.context import Runtime
from qexp.errors import StoreError
from qexp.models.inference import load_quantized
from qexp.publishing.model_card import Content, card

GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
"""Where graphs lie, by precision: names that transformers.js and Optimum know."""
RANGES, FACTS, CARD = "ranges.safetensors", "quantization.json", "README.md"
LARGEST_CARD_NAME = 96
"""Characters of the name of a folder on the hub."""


@dataclass(frozen=True)
class Publication:
    """What is published, and by whose leave."""

    model: Model
    license: str | None
    """Name of a license as the hub knows it; None leaves it to whoever uploads."""


def check_free(folder: Path) -> None:
    """See that nothing is overwritten.

    Raises:
        StoreError: there is something of that name, and it is no empty folder.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise StoreError(f"{folder}: is there and not empty; name a new folder, or remove what is in it")


def publish(publication: Publication, folder: Path, outputs: Path, rt: Runtime) -> None:
    """Write the folder, whole or not at all.

    Raises:
        StoreError: it is there, or cannot be written, or an artifact of the run is gone.
        DeployError: a graph cannot be exported.
    """
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:LARGEST_CARD_NAME]}.", dir=folder.parent))
        try:
            _fill(work, publication, outputs, rt, folder.name)
            work.chmod(0o777 & ~_umask())
            os.replace(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror or error}; make room, or name another folder"
        ) from error


def _fill(work: Path, publication: Publication, outputs: Path, rt: Runtime, name: str) -> None:
    model = publication.model
    _copy_all(model.tokens.tokenizer, work)
    _copy_all(model.encoder.model, work)
    graphs = {} if isinstance(model.task, TranslationTask) else _graphs(model, outputs, rt)
    for precision, file in graphs.items():
        target = work / GRAPHS[precision]
        target.parent.mkdir(exist_ok=True)
        _copy_graph(file, target)
    facts = _facts(model, rt)
    if facts is not None:
        assert model.ranges is not None
        shutil.copyfile(model.ranges.file, work / RANGES)
        (work / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    files = {file.relative_to(work).as_posix(): file.stat().st_size for file in _files(work)}
    text = card(Content(model, name, publication.license, facts, files))
    (work / CARD).write_text(text, encoding="utf-8")


def _graphs(model: Model, outputs: Path, rt: Runtime) -> dict[str, Path]:
    """ONNX files by precision: the float model of the run, and the quantized one where it is published."""
    if model.form is None:
        return {"fp32": graph_of(model, rt).file}
    plain = model_of(model.record, outputs, "fp32")
    return {"fp32": graph_of(plain, rt).file, "int8": graph_of(model, rt).file}


def _copy_graph(source: Path, target: Path) -> None:
    """Copy a graph that a plain session loads with exact products, as the card's example asks for them."""
    import onnx

    from qexp.deploy.onnx.io import read, write
    from qexp.deploy.runtimes.onnxruntime.uint8 import shift_shared_weights

    graph = read(source)
    if shift_shared_weights(graph):
        onnx.checker.check_model(graph, full_check=True)
        write(graph, target)
    else:
        shutil.copyfile(source, target)


def _facts(model: Model, rt: Runtime) -> dict[str, Any] | None:
    """What is quantized and how: the sections of the experiment, and each site with its bits."""
    if model.form is None:
        return None
    _, quantization = load_quantized(model.encoder, model.form, model.ranges, rt)
    assert quantization is not None
    bits = quantization.bits
    sites = [(site.kind, site.module, site.quantizer, bits[site.quantizer]) for site in quantization.sites]
    kinds = Counter((kind, width) for kind, _, _, width in sites)
    return {
        "stage": model.name,
        **model.form.model_dump(mode="json", exclude_none=True),
        "kinds": [{"kind": kind, "bits": width, "sites": count} for (kind, width), count in kinds.items()],
        "sites": [
            {"kind": kind, "module": module, "quantizer": quantizer, "bits": width}
            for kind, module, quantizer, width in sites
        ],
    }


def _copy_all(source: Path, target: Path) -> None:
    for file in _files(source):
        there = target / file.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
