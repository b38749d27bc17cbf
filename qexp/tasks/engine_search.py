"""Searches through engines, timed as engines: sentences in, translations out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qexp.config import BeamSearch
from qexp.deploy.engine import Audit, Batch, Engine, Info, check_names
from qexp.deploy.onnx.export_translation import DECODER, ENCODER
from qexp.tasks.engine_cache import TargetStates
from qexp.tasks.onnx_translation import EngineTranslator
from qexp.tasks.translation import before_end, searcher

INPUTS = ("input_ids", "attention_mask")


class SearchEngine:
    """Translator in an engine's place: one call translates a batch of sentences by one search."""

    inputs: tuple[str, ...] = INPUTS

    def __init__(self, translator: EngineTranslator, search: BeamSearch) -> None:
        """Combine a translator with a search.

        Raises:
            ConfigError: If translations may grow longer than the model has positions.
        """
        self.translator, self.search = translator, search
        encoder, decoder = translator.encoder.engine.info, translator.decoder_engine.info
        self.info: Info = replace(
            decoder,
            bytes=encoder.bytes + decoder.bytes,
            build_seconds=encoder.build_seconds + decoder.build_seconds,
            command=None,
        )
        """Description of both engines together; no tool of a runtime runs a search."""
        self._translate = searcher(translator, search)
        self._tokens = self._sentences = 0

    def run(self, batch: Batch) -> NDArray[Any]:
        """Return the token ids of translations, int64 [sentences, longest].

        Raises:
            DeployError: An input is missing or unknown, or the runtime refuses a value or a shape.
        """
        check_names(INPUTS, batch)
        words = self._translate({name: torch.from_numpy(batch[name]) for name in INPUTS})
        end = self.translator.generation_config.eos_token_id
        self._tokens += int(before_end(words, end).sum())
        self._sentences += len(words)
        return words.numpy()

    @property
    def tokens_per_sentence(self) -> float:
        """Mean number of target tokens, the end of each text included, of all translations so far."""
        return self._tokens / self._sentences

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work of one step of the decoder for these sentences: the first, of one token a beam.

        Raises:
            DeployError: As in ``run``.
        """
        source = self.translator.encoder(**{name: torch.from_numpy(batch[name]) for name in INPUTS}).states
        start = self.translator.generation_config.decoder_start_token_id
        tokens = np.full((len(source) * self.search.beams, 1), start, np.int64)
        decoder = self.translator.decoder_engine
        return decoder.audit(TargetStates().feed(decoder, source, tokens, np.array([0])))


def load_translator(folder: Path, load: Callable[[Path], Engine]) -> EngineTranslator:
    """Return the translator of an exported folder.

    Args:
        folder: Folder that ``export_translation`` wrote.
        load: Function that builds an engine from a file.

    Raises:
        DeployError: If the runtime refuses a file, or returns no cache.
    """
    return EngineTranslator(folder, load(folder / ENCODER), load(folder / DECODER))
