"""Benchmarks of several engines: alternation, refusals, pinning."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from qexp.deploy.benchmark import EngineBenchmark, pinned
from qexp.deploy.timing import TimingEffort
from tests.support.fake_engines import FakeEngine

MOVES: list[int] = []


def advance(n: int = 1) -> None:
    MOVES.append(n)


def batch(rows: int, length: int) -> dict[str, np.ndarray]:
    ids = np.zeros((rows, length), np.int64)
    return {"input_ids": ids, "attention_mask": ids}


def test_every_engine_gets_every_batch_as_often() -> None:
    engines = {"a": FakeEngine(), "b": FakeEngine(inputs=("input_ids", "attention_mask"))}
    bench = EngineBenchmark(engines, TimingEffort(4, 2), known=())
    bench.measure("2xreal", [batch(2, 5), batch(2, 9)], advance)
    trial = [(2, 9)]
    for engine in engines.values():
        assert engine.seen == trial + [(2, 5), (2, 9)] * 3
    assert bench.latency["a"]["2xreal"]["runs"] == 4
    assert bench.problems == {}


def test_a_shape_that_is_refused_is_told_and_the_others_go_on() -> None:
    small, large = FakeEngine(most=64), FakeEngine()
    bench = EngineBenchmark({"small": small, "large": large}, TimingEffort(3, 0), known=())
    for rows in (1, 32):
        bench.measure(f"{rows}x8", [batch(rows, 8)], advance)
    assert list(bench.latency["small"]) == ["1x8"]
    assert list(bench.latency["large"]) == ["1x8", "32x8"]
    assert bench.problems == {"small": {"32x8": "(32, 8): too large"}}


def test_energy_stands_where_the_machine_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qexp.deploy.energy.SECONDS", 0.0)
    monkeypatch.setattr("qexp.deploy.benchmark.joules", lambda call, known: 6.0)
    bench = EngineBenchmark({"a": FakeEngine()}, TimingEffort(3, 0), known=(lambda: 0.0,))
    bench.measure("3x8", [batch(3, 8)], advance)
    assert bench.latency["a"]["3x8"]["joules_per_row"] == 2.0


def test_rows_per_second_count_the_rows_of_a_batch() -> None:
    bench = EngineBenchmark({"a": FakeEngine()}, TimingEffort(5, 0), known=())
    bench.measure("7x8", [batch(7, 8)], advance)
    result = bench.latency["a"]["7x8"]
    assert result["samples_per_second"] == pytest.approx(7 / (result["p50_ms"] / 1e3))


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


@needs_affinity
def test_a_benchmark_stays_on_as_many_cores_as_it_has_threads(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    with pinned(1, pytest.fail, tmp_path):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@needs_affinity
def test_benchmarks_at_once_have_cores_of_their_own_while_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: chosen.append({*cores}))
    said: list[str] = []
    with pinned(2, said.append, tmp_path):
        assert not said
        with pinned(2, said.append, tmp_path):
            assert chosen == [{2, 5}, {7, 2}]
            assert len(said) == 1 and "of 2 cores 1 are free" in said[0]
    with pinned(3, pytest.fail, tmp_path):
        assert chosen[-1] == {2, 5, 7}
    assert not list(tmp_path.iterdir())


@needs_affinity
def test_a_temporary_folder_that_cannot_be_written_leaves_the_first_cores(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pinned(1, pytest.fail, tmp_path / "file"):
        assert os.sched_getaffinity(0) == {min(os.sched_getaffinity(0))}


def test_a_system_without_affinity_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1, pytest.fail, tmp_path):
        assert not list(tmp_path.iterdir())
