"""Selection of the runs that are worth an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qexp.reporting.best_runs import best, candidates, caveat_of, final_score, pareto
from qexp.reporting.run_view import RunView
from tests.support.record_factory import experiment, failed, record


def run(score: float | None, megabytes: int, key: str, **words: Any) -> RunView:
    tree = experiment(words.pop("task", "cola"), method={"kind": "qat"}, **words)
    scores = {"fp32": {"matthews": 60.0}, "ptq": {"matthews": 1.0}, "qat": {"matthews": score}}
    sites = {"quantizers": 1, "sites": {}, "cost": {"tokens": 128, "macs": 1, "bops": 1, "bytes": megabytes}}
    return RunView(record(tree, key=key, scores=scores, sites=sites))


def keys(runs: list[RunView]) -> list[str]:
    return [each.record.key for each in runs]


def test_the_best_score_wins_and_of_two_alike_the_smaller() -> None:
    runs = [run(55.0, 30, "a"), run(57.0, 30, "b"), run(57.0, 20, "c")]
    assert keys(best(runs)) == ["c"]


def test_the_front_has_what_nothing_beats_in_both() -> None:
    runs = [run(57.0, 30, "big"), run(56.0, 10, "small"), run(55.0, 20, "beaten"), run(10.0, 5, "tiny")]
    assert keys(pareto(runs)) == ["tiny", "small", "big"]


def test_candidates_are_quantized_runs_with_a_score() -> None:
    good = run(50.0, 1, "good")
    plain = RunView(record(experiment("cola", quant="fp32", method={"kind": "none"}), key="plain"))
    broken = RunView(failed(experiment("cola")))
    assert candidates([plain, broken, run(None, 1, "undefined"), good], ()) == {"cola": [good]}


def test_sample_and_smoke_runs_stand_back_behind_real_ones() -> None:
    smoke = run(99.0, 1, "smoke", budget={"name": "smoke"})
    real = run(50.0, 1, "real")
    assert candidates([smoke, real], ()) == {"cola": [real]}
    assert candidates([smoke], ()) == {"cola": [smoke]}


def test_tasks_can_be_chosen() -> None:
    tree = experiment("mrpc", method={"kind": "ptq"})
    other = RunView(record(tree, key="mrpc"))
    assert list(candidates([other, run(50.0, 1, "a")], ["mrpc"])) == ["mrpc"]
    assert final_score(other) == other.record.scores["ptq"]["f1"]


def test_a_score_that_says_nothing_is_the_best_only_where_there_is_no_other() -> None:
    caveat = {"qat": {"matthews": "predicts 'yes' for all 5 rows"}}
    constant = run(80.0, 1, "constant")
    constant = RunView(replace(constant.record, caveats=caveat))
    sound = run(50.0, 1, "sound")
    assert keys(best([constant, sound])) == ["sound"]
    assert keys(best([constant])) == ["constant"]
    assert caveat_of(constant) == "predicts 'yes' for all 5 rows"
    assert caveat_of(sound) is None
