"""Latency that judges itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qexp.records.record import Record
from qexp.reporting.run_view import RunView
from qexp.reporting.verdict.speed import DRIFT, NOISY, SHARED, drifts_of, speed_of
from tests.support.record_factory import deployed, experiment, timing
from tests.support.verdict_records import engine, judged

INT8 = "onnxruntime/int8"


def test_two_steady_timings_have_a_ratio() -> None:
    speed = speed_of(RunView(judged()), INT8)
    assert (speed.kind, speed.shape, speed.spread) == ("measured", "1x128", pytest.approx(1.05))
    assert speed.ratio == pytest.approx(2.4)


@pytest.mark.parametrize("noisy", ["fp32", "int8"])
def test_one_unsteady_timing_takes_the_ratio_away(noisy: str) -> None:
    spreads = {"fp32": 1.05, "int8": 1.05, noisy: NOISY}
    engines = {f"onnxruntime/{name}": engine(10.0, spread=spread) for name, spread in spreads.items()}
    speed = speed_of(RunView(judged(engines=engines)), INT8)
    assert (speed.kind, speed.ratio, speed.spread) == ("noisy", None, NOISY)


def test_the_bound_is_where_a_fifth_could_be_noise() -> None:
    deviation = math.log(NOISY) / 1.2816
    factor = math.exp(1.96 * math.sqrt(2) * 1.2533 * deviation / math.sqrt(30))
    assert factor == pytest.approx(1.2, abs=0.03)


def test_simulated_widths_have_no_ratio_however_steady() -> None:
    speed = speed_of(RunView(judged(quant="w4a4")), INT8)
    assert (speed.kind, speed.ratio, speed.ms) == ("simulated", None, 5.0)


def test_a_run_timed_beside_others_has_no_ratio() -> None:
    run = judged(warnings=[f"{SHARED} of the sweep used this machine; time it alone"])
    assert speed_of(RunView(run), INT8).kind == "noisy"


def of_graph(ms: float, quant: str = "w8a8", processor: str = "Fast CPU") -> Record:
    engines = {"onnxruntime/fp32": engine(ms), INT8: engine(5.0)}
    return judged(quant=quant, engines=engines, host={"processor": processor, "threads": 2})


def test_the_same_graph_at_two_speeds_is_noisy_in_both_runs() -> None:
    runs = [RunView(of_graph(30.8)), RunView(of_graph(48.4, quant="w8a16"))]
    drifts = drifts_of(runs)
    assert [*drifts.values()] == [(30.8, 48.4)]
    speed = speed_of(runs[0], INT8, drifts)
    assert speed.kind == "noisy" and "30.8 ms in one run and 48.4" in speed.reason
    assert speed_of(runs[0], INT8).kind == "measured"


@pytest.mark.parametrize(
    "other",
    [of_graph(30.8 * (DRIFT - 0.01), "w8a16"), of_graph(48.4, "w8a16", processor="Other"),
     replace(of_graph(48.4, "w8a16"), stages=[])],
    ids=["close", "another machine", "no key"],
)  # fmt: skip
def test_close_or_incomparable_timings_are_no_drift(other: Record) -> None:
    assert not drifts_of([RunView(of_graph(30.8)), RunView(other)])


def test_missing_latencies_name_their_reason() -> None:
    engines = {"onnxruntime/fp32": engine(9.0), INT8: {"problems": {"1x128": "64 positions"}}}
    for run, reason in (
        (judged(engines=engines), "64 positions"),
        (judged(engines={}, sections={"deploy": {"kind": "none"}}), "nothing was exported (deploy=none)"),
        (judged(engines={INT8: engine(5.0)}), "no FP32 engine was timed beside it"),
    ):
        speed = speed_of(RunView(run), INT8)
        assert (speed.kind, speed.reason, speed.ratio) == ("missing", reason, None)


def test_records_without_engines_are_read_from_their_latency() -> None:
    old = deployed(experiment(), latency={"fp32": {"1": timing(12.0)}, "int8": {"1": timing(4.0)}})
    assert speed_of(RunView(old), INT8).ratio == pytest.approx(3.0)
