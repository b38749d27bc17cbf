"""Artifact types: one frozen class for each kind of folder in the store.

An artifact is a folder and its cache key. Its numbers are in ``facts.json``; large arrays stay on disk until
they are read. This module does not import torch, so that a run that finds all its artifacts starts fast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FACTS = "facts.json"


@dataclass(frozen=True)
class Artifact:
    """Finished folder of the store."""

    folder: Path
    key: str

    @property
    def fingerprint(self) -> str:
        """Identity in the cache key of a later stage; the key already covers everything that was read."""
        return self.key

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Small results of the stage as plain JSON values."""
        facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        return facts


class Tokens(Artifact):
    """Token ids of all splits, and their tokenizer."""

    def split(self, name: str) -> Path:
        """Return the folder of one split."""
        return self.folder / "splits" / name

    @property
    def pad_id(self) -> int:
        """Token id that pads the shorter rows of a batch."""
        return int(self.facts["pad_id"])

    @property
    def tokenizer(self) -> Path:
        """Folder with the tokenizer's files."""
        return self.folder / "tokenizer"


class ModelArtifact(Artifact):
    """Float weights with a head for the task, in the format of transformers."""

    @property
    def model(self) -> Path:
        """Folder that ``from_pretrained`` loads."""
        return self.folder / "model"


class Statistics(Artifact):
    """Observer statistics of each quantizer, which serve every calibrator and bit-width."""

    @property
    def file(self) -> Path:
        """File with the histograms and the extremes of each batch."""
        return self.folder / "statistics.safetensors"


class Moments(Artifact):
    """Moments of the inputs of a float model's linear layers; second moments if they were requested."""

    @property
    def file(self) -> Path:
        """File with means, largest magnitudes, and means of products."""
        return self.folder / "moments.safetensors"


class Ranges(Artifact):
    """Qparams of every quantizer."""

    @property
    def file(self) -> Path:
        """File with the scales and zero points of each quantizer."""
        return self.folder / "ranges.safetensors"


class QatArtifact(ModelArtifact, Ranges):
    """Weights after quantization-aware training, and the final ranges."""


class Scores(Artifact):
    """Metrics, and a Parquet file of predictions for each evaluation split."""

    @property
    def metrics(self) -> dict[str, float | None]:
        """All metrics in percent; None where a metric is undefined."""
        return dict(self.facts["metrics"])

    @property
    def notes(self) -> dict[str, Any]:
        """How the scores were computed, such as a metric's signature, by short name of the split."""
        return dict(self.facts["notes"])

    @property
    def thresholds(self) -> list[float] | None:
        """Thresholds that were chosen for the labels of the model; None if none were."""
        return self.facts.get("thresholds")

    def predictions(self, split: str) -> Path:
        """Return the Parquet file of a split: one line for each row.

        Columns are ``id``, ``prediction``, ``label``, ``logit_0`` and so on, and for some tasks ``margin``.
        """
        return self.folder / f"predictions-{split}.parquet"


class Graph(Artifact):
    """Exported ONNX model: one file, or two and a configuration for a translation model."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All ONNX files; their inputs and outputs are dynamic in batch and length."""
        return tuple(self.folder / name for name in self.facts["files"])

    @property
    def file(self) -> Path:
        """ONNX file of a model without a decoder."""
        return self.folder / "model.onnx"

    @property
    def integers(self) -> Path:
        """Folder with the integers of a quantized model for its publication; older artifacts lack it."""
        return self.folder / "integers"

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the graph accepts, from 0."""
        return int(self.facts["vocabulary"])

    @property
    def bytes(self) -> int:
        """Size of all ONNX files in bytes."""
        return sum(file.stat().st_size for file in self.files)


class NoiseFloor(Scores):
    """Scores of the same model in another arithmetic, which differ by rounding noise alone."""

    @property
    def steps(self) -> Scores:
        """Predictions of the first rows with perturbed results, which show the effect of grid steps."""
        return Scores(self.folder / "steps", self.key)


class Parity(Scores):
    """Scores of an exported graph, and its distance to torch in ``facts["parity"]``."""


class Latency(Artifact):
    """Benchmark of several engines: latency by shape, audits, and properties of each engine."""
