"""Finished runs of tiny models whose predictions differ from row to row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qexp.execution.job import OK, Job
from qexp.records.record import Record, read, records_folder
from tests.conftest import compose, save_tokenizer, tiny_config


def lively_bert(folder: Path) -> Path:
    """A tiny encoder with weights so large that every row has logits of its own."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    config = tiny_config("bert", save_tokenizer(folder), initializer_range=0.3)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


COMMON = ("data=sample", "budget=smoke", "machine.progress=false", "machine.threads=1")
"""Overrides of every run."""


def run(outputs: Path, *overrides: str) -> Record:
    """Run a job on generated rows, and return its Record."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEXP_OUTPUTS", str(outputs))
        job = Job(compose(*COMMON, *overrides), sweep=False)
        assert job.run() == OK
    assert job.experiment is not None
    return read(records_folder(outputs) / f"{job.results.key(job.experiment)}.json")


class TinyRuns:
    """Outputs of finished runs, each made once in a session; whoever writes into them makes a copy.

    A call takes one or several runs, each as its overrides, which share a folder.
    """

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._made: dict[tuple[tuple[str, ...], ...], Path] = {}

    def __call__(self, *runs: tuple[str, ...]) -> Path:
        if runs not in self._made:
            outputs = self._folder("outputs")
            for overrides in runs:
                run(outputs, *overrides)
            self._made[runs] = outputs
        return self._made[runs]


def artifacts(record: Record, outputs: Path, stage: str) -> list[Path]:
    """Folders of what a stage left to a run, in the order of the line."""
    keys = [visit["key"] for visit in record.stages if visit["stage"] == stage]
    return [outputs / "artifacts" / stage / key for key in keys]
