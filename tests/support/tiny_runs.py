"""Finished runs of tiny models whose predictions differ from row to row."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.execution.job import OK, Job
from qexp.records.record import Record, read_all, records_folder
from tests.conftest import compose, save_tokenizer, tiny_config


def lively_bert(folder: Path) -> Path:
    """A tiny encoder with weights so large that every row has logits of its own."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    config = tiny_config("bert", save_tokenizer(folder), initializer_range=0.3)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def run(outputs: Path, *words: str) -> Record:
    """The Record of a small run, on generated rows."""
    common = ("data=sample", "budget=smoke", "machine.progress=false", "machine.threads=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEXP_OUTPUTS", str(outputs))
        assert Job(compose(*common, *words), sweep=False).run() == OK
    (record,) = read_all(records_folder(outputs))[0]
    return record


def artifacts(record: Record, outputs: Path, stage: str) -> list[Path]:
    """Folders of what a stage left to a run, in the order of the line."""
    keys = [visit["key"] for visit in record.stages if visit["stage"] == stage]
    return [outputs / "artifacts" / stage / key for key in keys]
