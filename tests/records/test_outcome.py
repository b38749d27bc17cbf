"""Words for how a run ended."""

from __future__ import annotations

import pytest

from qexp.records.outcome import GOES_ON, outcome, outcome_of_several, reason
from tests.support.record_factory import experiment, failed, interrupted, record


def test_an_interrupted_run_has_an_outcome_of_its_own() -> None:
    runs = [record(), failed(experiment()), interrupted(experiment())]
    assert [outcome(run) for run in runs] == ["ok", "failed", "interrupted"]
    assert outcome_of_several(runs[1:]) == "failed"
    assert outcome_of_several(runs[2:]) == "interrupted"
    assert outcome_of_several([]) == "failed"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("KeyboardInterrupt", GOES_ON),
        ("", GOES_ON),
        ("interrupted in fine-tune mrpc; from step 4\nmore", "interrupted in fine-tune mrpc; from step 4"),
    ],
)
def test_an_interruption_says_how_to_go_on(message: str, text: str) -> None:
    assert reason(interrupted(experiment(), message)) == text


def test_a_failure_is_named_with_its_type() -> None:
    assert reason(failed(experiment())) == "TrainingError: the loss is nan"
    assert reason(record()) == "no error was recorded"
