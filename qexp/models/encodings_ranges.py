"""Ranges of AIMET encodings: files of versions 0.6.1 to 2.1.0 beside an ONNX graph, or keyed by modules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qexp.errors import QuantizationError
from qexp.quant.calibration.imported import ImportedRange

PARTS = ("activation_encodings", "param_encodings")
MODULES = "torch"
"""Stands for files whose activations are keyed by modules, whatever version they say."""


def encodings_ranges(file: Path, graph: Path | None) -> list[ImportedRange]:
    """Return the ranges of an encodings file; the sites of tensors that are none are empty.

    Args:
        file: Encodings.
        graph: ONNX file whose tensors they name; None for the only one beside the encodings.

    Raises:
        QuantizationError: The file is damaged, of another version, or needs a graph that is not there.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        ranges = list(_READERS[_version(content)](content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuantizationError(
            f"{file}: cannot be read as AIMET encodings ({type(error).__name__}: {error}); allowed are "
            "versions 0.6.1, 1.0.0, 2.0.0 and 2.1.0, with one range for each tensor or channel: export "
            "it again"
        ) from error
    if _version(content) == MODULES:
        return ranges
    return _with_sites(ranges, _graph_of(file, graph))


def _version(content: Mapping[str, Any]) -> str:
    """Return the form of a file, which is not always what it says."""
    activations = content.get(PARTS[0])
    if isinstance(activations, dict):
        nested = any(isinstance(entry, dict) for entry in activations.values())
        return MODULES if nested else "0.6.1"
    return "2" if "encodings" in content else str(content["version"])


def _graph_of(file: Path, graph: Path | None) -> Path:
    if graph is not None:
        return graph
    beside = sorted(file.parent.glob("*.onnx"))
    if len(beside) != 1:
        raise QuantizationError(
            f"{file}: it names tensors of an ONNX graph, and there are {len(beside)} beside it; name it "
            "with --onnx"
        )
    return beside[0]


def _with_sites(ranges: list[ImportedRange], graph: Path) -> list[ImportedRange]:
    """Give each range the sites that its tensor is the nearest encoded one of."""
    from qexp.deploy.onnx.io import read
    from qexp.deploy.onnx.tensor_sites import tensor_sites

    known = {each.name for each in ranges}
    sites: dict[str, list[str]] = {}
    for site, chain in tensor_sites(read(graph)).items():
        if (name := next((name for name in chain if name in known), None)) is not None:
            sites.setdefault(name, []).append(site)
    return [replace(each, sites=tuple(sites.get(each.name, ()))) for each in ranges]


def _of_modules(content: Mapping[str, Any]) -> Iterator[ImportedRange]:
    for module, sides in content[PARTS[0]].items():
        for side, encodings in sides.items():
            for index, entry in encodings.items():
                for found in _of_entries(
                    f"{module}.{side}.{index}", [entry] if isinstance(entry, dict) else entry
                ):
                    yield replace(found, sites=_module_sites(module, side, index))
    for name, entries in content[PARTS[1]].items():
        module, _, parameter = name.rpartition(".")
        kinds = ("linear.weight", "embedding.weight", "layernorm.weight") if parameter == "weight" else ()
        for found in _of_entries(name, entries):
            yield replace(found, sites=tuple(f"{module}:{kind}" for kind in kinds))


def _module_sites(module: str, side: str, index: str) -> tuple[str, ...]:
    """Return the sites of an input or output of a module, which may be of any kind that has such sites."""
    if index != "0":
        return ()
    kinds = {
        "input": ("linear.input", "layernorm.input", "residual.sum", "attention.context"),
        "output": (
            "linear.output",
            "layernorm.output",
            "embedding.output",
            "activation.output",
            "attention.output",
        ),
    }
    return tuple(f"{module}:{kind}" for kind in kinds[side])


def _of_dicts(content: Mapping[str, Any]) -> Iterator[ImportedRange]:
    for part in PARTS:
        for name, entries in content[part].items():
            yield from _of_entries(name, entries)


def _of_entries(name: str, entries: list[Mapping[str, Any]]) -> Iterator[ImportedRange]:
    """Yield the range of a tensor from an entry for each channel; none of a tensor in floating point."""
    if all(entry["dtype"] == "int" for entry in entries):
        (bits,) = {int(entry["bitwidth"]) for entry in entries}
        scales = [float(entry["scale"]) for entry in entries]
        yield ImportedRange.of_integers(name, bits, scales, [-int(entry["offset"]) for entry in entries])


def _of_lists(content: Mapping[str, Any]) -> Iterator[ImportedRange]:
    for entry in (each for part in PARTS for each in content[part]):
        if entry["enc_type"] not in ("PER_TENSOR", "PER_CHANNEL"):
            raise ValueError(f"{entry['name']}: enc_type {entry['enc_type']}")
        if entry["dtype"].upper() == "INT":
            zeros = [-int(offset) for offset in entry["offset"]]
            yield ImportedRange.of_integers(
                entry["name"], int(entry["bw"]), map(float, entry["scale"]), zeros
            )


def _of_onnx(content: Mapping[str, Any]) -> Iterator[ImportedRange]:
    for entry in content["encodings"]:
        kind = entry["output_dtype"]
        if not kind.removeprefix("u").startswith("int") or kind == "int32":
            continue  # floating point, or a bias
        bits = int(kind.removeprefix("u").removeprefix("int"))
        half = 0 if kind.startswith("u") else 2 ** (bits - 1)
        scales, zeros = _listed(entry["y_scale"]), _listed(entry.get("y_zero_point", 0))
        if any(isinstance(each, list) for each in scales):
            raise ValueError(f"{entry['name']}: a range for each block")
        zeros = zeros * len(scales) if len(zeros) == 1 else zeros
        yield ImportedRange.of_integers(entry["name"], bits, scales, [int(zero) + half for zero in zeros])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_READERS = {"0.6.1": _of_dicts, "1.0.0": _of_lists, "2": _of_onnx, MODULES: _of_modules}
