"""What stages leave behind: one frozen class for each kind of folder in the store.

An artifact is a folder and the key that it is filed under. Its numbers are in ``facts.json``; large
arrays stay on disk until somebody asks. Nothing here imports torch, so that a run that finds all its
artifacts never pays for it.
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
    """A finished folder of the store."""

    folder: Path
    key: str

    @property
    def fingerprint(self) -> str:
        """What a later stage's key is made of: the key already covers all that was read."""
        return self.key

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Small results of the stage, as plain JSON values."""
        facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        return facts


class Tokens(Artifact):
    """Token ids of all splits, and the tokenizer that made them."""

    def split(self, name: str) -> Path:
        """Folder of one split."""
        return self.folder / "splits" / name

    @property
    def pad_id(self) -> int:
        """Token id that fills the short rows of a batch."""
        return int(self.facts["pad_id"])

    @property
    def tokenizer(self) -> Path:
        """Folder with the tokenizer's files."""
        return self.folder / "tokenizer"


class Encoder(Artifact):
    """Float weights with a head for the task, as transformers saves them."""

    @property
    def model(self) -> Path:
        """Folder that ``from_pretrained`` loads."""
        return self.folder / "model"


class Statistics(Artifact):
    """What calibration saw at each quantizer; serves every calibrator and bit-width."""

    @property
    def file(self) -> Path:
        """Histograms and batch extremes."""
        return self.folder / "statistics.safetensors"


class Moments(Artifact):
    """Moments of what linear layers of a float model read; second ones where they were asked for."""

    @property
    def file(self) -> Path:
        """Means, largest magnitudes, and means of products."""
        return self.folder / "moments.safetensors"


class Ranges(Artifact):
    """Scales and zero points of every quantizer."""

    @property
    def file(self) -> Path:
        """One scale and one zero point for each quantizer."""
        return self.folder / "ranges.safetensors"


class Trained(Encoder, Ranges):
    """Weights trained with quantization in the loop, and the ranges they ended with."""


class Scores(Artifact):
    """Metrics, and a parquet file of predictions for each evaluation split."""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Every metric in percent; null where it is undefined."""
        return dict(self.facts["metrics"])

    @property
    def notes(self) -> dict[str, Any]:
        """How the scores were found, such as a metric's signature, by the splits' short names."""
        return dict(self.facts["notes"])

    def predictions(self, split: str) -> Path:
        """Columns ``id``, ``prediction``, ``label``, ``logit_0`` and so on, and maybe ``margin``, by row."""
        return self.folder / f"predictions-{split}.parquet"


class Graph(Artifact):
    """An ONNX file; of a translator two, and its configuration."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them; inputs and outputs are dynamic in batch and length."""
        return tuple(self.folder / name for name in self.facts["files"])

    @property
    def file(self) -> Path:
        """The only one, of a model without a decoder."""
        return self.folder / "model.onnx"

    @property
    def vocabulary(self) -> int:
        """Token ids that the graph takes, from 0."""
        return int(self.facts["vocabulary"])

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)


class NoiseFloor(Scores):
    """Scores of the same model in another arithmetic: what rounding noise alone changes."""

    @property
    def steps(self) -> Scores:
        """Predictions of the first rows with every result a little off: what steps of grids change."""
        return Scores(self.folder / "steps", self.key)


class Parity(Scores):
    """Scores of an exported graph, and how far it is from torch: ``facts["parity"]``."""


class Latency(Artifact):
    """Engines side by side: times by shape, audits, and what each engine is."""
