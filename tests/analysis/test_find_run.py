"""What is said of a run without a result: one sentence for all commands that need one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qexp.analysis.find_run import subject_of, unfinished
from qexp.analysis.run_models import model_of, refuse_failed
from qexp.errors import QuantizationError, StoreError
from qexp.records.record import Record
from tests.support.record_factory import experiment, failed, interrupted, record

TYPED = ("task=mrpc", "quant=w8a8")
BROKEN = failed(experiment(), overrides=TYPED)
CUT = interrupted(experiment(), overrides=TYPED)


@pytest.mark.parametrize(
    ("run", "word"),
    [(CUT, "was interrupted"), (BROKEN, "failed"), (replace(BROKEN, error=None), "no error was recorded")],
    ids=["interrupted", "failed", "without an error"],
)
def test_every_command_says_the_same_of_a_run_without_a_result(
    run: Record, word: str, tmp_path: Path
) -> None:
    said = unfinished(run)
    assert said is not None and word in said and ("goes on" in said) is (run is CUT)
    assert said.endswith("\n  python -m qexp task=mrpc quant=w8a8")
    for refuse in (lambda: refuse_failed(run), lambda: model_of(run, tmp_path)):
        with pytest.raises(StoreError) as refused:
            refuse()
        assert str(refused.value) == said
    with pytest.raises(QuantizationError) as nothing:
        subject_of(run, tmp_path, None)
    assert str(nothing.value) == unfinished(run, " before anything was quantized")


def test_an_error_without_words_has_its_type() -> None:
    assert BROKEN.error is not None
    assert "(TrainingError)" in str(unfinished(replace(BROKEN, error={**BROKEN.error, "message": "\n"})))


def test_nothing_is_said_of_a_run_with_a_result() -> None:
    assert unfinished(record()) is None
    refuse_failed(record())
