"""Folder for AIMET, Qualcomm's converters and Qualcomm AI Hub: a float ONNX file beside its encodings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from qexp.analysis.run_models import StoredModel
from qexp.config import TranslationTask
from qexp.context import RunContext
from qexp.deploy.onnx.encodings import EncodedGraph, write_encoded
from qexp.deploy.onnx.encodings_file import document
from qexp.errors import ConfigError, DeployError, QuantizationError
from qexp.models.inference import load_quantized
from qexp.naming import EncodingsVersion
from qexp.publishing.new_folder import new_folder
from qexp.quant.grid import Grid
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.sites import joined
from qexp.quant.messages import listed
from qexp.tasks import adapter_for

SUFFIX = ".aimet"
"""End of the folder's name, by which AI Hub knows what is in it."""


def check_suffix(folder: Path) -> None:
    """Check that AI Hub would take a folder of this name.

    Raises:
        ConfigError: The name does not end with ``.aimet``, or is nothing else.
    """
    if folder.suffix != SUFFIX:
        raise ConfigError(
            f"--output {folder}: Qualcomm AI Hub takes folders that end with {SUFFIX}; name it "
            f"{folder.name.rstrip('.') or 'model'}{SUFFIX}"
        )


def export_encodings(
    model: StoredModel, folder: Path, version: EncodingsVersion, ctx: RunContext
) -> tuple[str, ...]:
    """Write ``NAME.onnx`` and ``NAME.encodings`` into the folder ``NAME.aimet``, both or nothing.

    Weights in the file have the values of their grids, in floating point.

    Returns:
        Sentences on what the files hold, and on what they cannot.

    Raises:
        StoreError: The folder exists and is not empty, or cannot be written.
        QuantizationError: The model is in floating point.
        DeployError: The model is a translator, cannot be exported, or has a grid that no encoding can hold.
    """
    check_suffix(folder)
    quantization, network = _quantized(model, ctx)
    task, adapter = model.task, adapter_for(model.task)
    split = adapter.split(model.tokens.split(task.train))
    example = adapter.collate(split, np.arange(2), model.tokens.pad_id)
    bits = quantization.bits
    weights = [site for site in quantization.sites if site.is_weight]
    weight_bits = {joined(site.module, site.parameter): bits[site.quantizer] for site in weights}
    quantization.export_mode()
    with new_folder(folder) as work:
        encoded = write_encoded(
            network.cpu(), work / f"{folder.stem}.onnx", example=example, weight_bits=weight_bits
        )
        activations = {str(value.name): encoding for value, encoding in encoded.activations}
        parameters = {str(value.name): encoding for value, encoding in encoded.weights}
        content = json.dumps(document(version, activations, parameters), indent=1)
        (work / f"{folder.stem}.encodings").write_text(content, encoding="utf-8")
    return tuple(_account(encoded, version))


def _quantized(model: StoredModel, ctx: RunContext) -> tuple[QuantizedModel, nn.Module]:
    """Return the quantizers and the model, if encodings can say what the quantizers do."""
    if isinstance(model.task, TranslationTask):
        raise DeployError(
            f"{model.title}: translation models are two graphs, and a folder of encodings holds one; use "
            "publish"
        )
    network, quantization = load_quantized(model.encoder, model.quant_config, model.ranges, ctx)
    if quantization is None:
        raise QuantizationError(
            f"{model.title}: nothing is quantized in it; choose --stage ptq or qat of a run that has one"
        )
    floats = {each.grid.name for each in quantization.quantizers.values() if not isinstance(each.grid, Grid)}
    if floats:
        raise DeployError(
            f"{model.title}: its grids are of floats ({', '.join(sorted(floats))}), and encodings "
            "hold integer grids; use publish, or a run with a quant of integers"
        )
    dynamic = [name for name, each in quantization.quantizers.items() if each.grid.dynamic]
    if dynamic:
        raise DeployError(
            f"{model.title}: {len(dynamic)} activations have ranges that are found at run time "
            f"({listed(dynamic)}); encodings hold fixed ranges: run it with scheme.activation.dynamic=null"
        )
    return quantization, network


def _account(encoded: EncodedGraph, version: EncodingsVersion) -> Iterator[str]:
    yield (
        f"encodings {version} of {len(encoded.activations)} activations and {len(encoded.weights)} weights"
    )
    if encoded.copied:
        names = listed([str(value.name) for value in encoded.copied])
        yield (
            f"{len(encoded.copied)} of the activations are a product with one that was added, since their "
            f"values are also read as they are, or moved from a tensor on another grid: {names}"
        )
    if encoded.without:
        names = listed([str(value.name) for value in encoded.without])
        yield (
            f"{len(encoded.without)} tables have no encoding, since they have a range for each row and AIMET "
            f"takes one for a table: {names}. Their values in the file are quantized, but a converter may "
            "choose another grid; scheme.weight.granularity=per_tensor gives them an encoding"
        )
