"""Supervised launchers: every job gets a result, whatever the launcher does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import FAILED, OK, LaunchError
from qexp.execution.crash_records import KILLED, killed_failure, pending_record, running_folder
from qexp.execution.sweep import SupervisedLauncher
from qexp.execution.sweep_log import JobResult, SweepLog
from qexp.records.record import Record, read_all, records_folder, save_record
from qexp.reporting.comparison import compare
from tests.conftest import compose
from tests.support.record_factory import experiment, record

WORDS = [["seed=0"], ["seed=1"], ["seed=2"]]


@pytest.fixture
def sweep_log(tmp_path: Path) -> SweepLog:
    sweep_log = SweepLog(tmp_path / "attempt")
    sweep_log.begin("table", "01234567")
    return sweep_log


def _tree(words: Sequence[str]) -> dict[str, Any]:
    return compose("task=mrpc", *words)


@dataclass
class Launches:
    """Launches jobs that end well at once; what is special about one is what ``act`` does instead."""

    sweep_log: SweepLog
    outputs: Path
    act: Callable[[Launches, int], None] = lambda launches, job: launches.ends(job)
    launched: list[list[int]] = field(default_factory=list)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        jobs = [initial_job_idx + place for place in range(len(job_overrides))]
        self.launched.append([job for job in jobs if self.sweep_log.entry(job) is None])
        for job in self.launched[-1]:
            self.act(self, job)
        return jobs

    def ends(self, job: int) -> None:
        """A job that is well."""
        self.sweep_log.end(JobResult(job=job, words=WORDS[job], code=OK))

    def dies(self, *jobs: int) -> None:
        """Jobs that are killed while they run, which breaks the launcher's pool of workers."""
        for job in jobs:
            with suppress(SystemExit), self.runs(job):
                raise SystemExit(1)
        raise BrokenProcessPool("a worker was killed")

    @contextmanager
    def runs(self, job: int) -> Iterator[None]:
        """A job goes on in here."""
        sweep = {"name": "table", "id": "01234567", "job": job}
        told = record(
            experiment(seed=job), key=f"job{job}", status="failed", error=killed_failure("here"), sweep=sweep
        )
        with pending_record(self.outputs, self.sweep_log.folder) as words:
            words.write(told, WORDS[job])
            yield


class BasicLauncher(Launches):
    """One job after the other."""


class JoblibLauncher(Launches):
    """Jobs in worker processes."""


class SlurmLauncher(Launches):
    """Jobs that do not end with the driver."""


def _launch(launcher: Launches, words: Sequence[Sequence[str]] = WORDS) -> Sequence[Any]:
    return SupervisedLauncher(launcher, launcher.sweep_log, _tree).launch(words, 0)


def _failing(launcher: Launches, error: type[BaseException]) -> None:
    with pytest.raises(error):
        _launch(launcher)


def _codes(sweep_log: SweepLog) -> list[int]:
    return [sweep_log.entries[job].code for job in range(3)]


def _killed(outputs: Path) -> dict[int, Record]:
    """Records of jobs that say that they were killed."""
    found = {}
    for each in read_all(records_folder(outputs))[0] if records_folder(outputs).is_dir() else []:
        assert each.error is not None
        assert each.error["type"] == KILLED
        assert each.sweep is not None
        found[each.sweep["job"]] = each
    return found


def test_what_a_launcher_returns_is_handed_on(sweep_log: SweepLog, outputs: Path) -> None:
    assert _launch(BasicLauncher(sweep_log, outputs)) == [0, 1, 2]
    assert sweep_log.jobs == dict(enumerate(WORDS))
    assert sweep_log.exit_code == OK
    assert _killed(outputs) == {}


def test_jobs_that_a_launcher_loses_have_records(sweep_log: SweepLog, outputs: Path) -> None:
    def lose(launches: Launches, job: int) -> None:
        if job != 1:
            launches.ends(job)

    _launch(BasicLauncher(sweep_log, outputs, lose))
    assert _codes(sweep_log) == [OK, FAILED, OK]
    (told,) = _killed(outputs).values()
    assert told.sweep == {"name": "table", "id": "01234567", "job": 1}
    assert told.experiment["seed"] == 1
    assert told.error is not None
    assert str(sweep_log.folder) in told.error["message"]
    assert sweep_log.entries[1].key == told.key


def test_a_later_success_makes_up_for_a_job_that_never_started(sweep_log: SweepLog, outputs: Path) -> None:
    """Although its key is another one: no rows had been found."""
    _launch(BasicLauncher(sweep_log, outputs, lambda launches, job: None))
    assert len(_killed(outputs)) == 3
    failures = read_all(records_folder(outputs))[0]
    for each in failures:
        result = record(each.experiment, finished="9999-01-01T00:00:00+00:00", started=each.started)
        assert save_record(result, records_folder(outputs)).stem != each.key
    rows = [row for found in compare(read_all(records_folder(outputs))[0]) for row in found.rows]
    assert not any(attempts.failed for row in rows for attempts in row.by_seed.values())


def test_words_that_mean_nothing_have_a_record_all_the_same(sweep_log: SweepLog, outputs: Path) -> None:
    jobs = [["quant=fp32", "method=qat"]]
    _launch(BasicLauncher(sweep_log, outputs, lambda launches, job: None), jobs)
    assert _killed(outputs)[0].experiment["method"]["kind"] == "qat"


def test_a_launcher_that_breaks_down_is_an_error_in_words_and_jobs_are_accounted_for(
    sweep_log: SweepLog, outputs: Path
) -> None:
    def breaks(launches: Launches, job: int) -> None:
        if job == 1:
            raise RuntimeError("sbatch: no such partition")
        launches.ends(job)

    launcher = BasicLauncher(sweep_log, outputs, breaks)
    with pytest.raises(LaunchError, match=r"BasicLauncher .* RuntimeError: sbatch: no such partition"):
        _launch(launcher)
    assert _codes(sweep_log) == [OK, FAILED, FAILED]
    assert set(_killed(outputs)) == {1, 2}
    assert launcher.launched == [[0, 1, 2]]


def test_jobs_that_go_on_when_their_launcher_breaks_down_are_not_taken_for_dead(
    sweep_log: SweepLog, outputs: Path
) -> None:
    launcher = SlurmLauncher(sweep_log, outputs, lambda launches, job: _raise(OSError("no route to host")))
    with launcher.runs(2):
        _failing(launcher, LaunchError)
        assert len(list(running_folder(outputs).glob("*.json"))) == 1


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(130)], ids=repr)
@pytest.mark.parametrize("kind", [BasicLauncher, JoblibLauncher, SlurmLauncher])
def test_an_interrupted_sweep_ends_at_once(
    kind: type[Launches], error: BaseException, sweep_log: SweepLog, outputs: Path
) -> None:
    """Nothing is started again, and jobs of a cluster go on."""
    launcher = kind(sweep_log, outputs, lambda launches, job: _raise(error))
    with launcher.runs(2):
        _failing(launcher, type(error))
        assert len(list(running_folder(outputs).glob("*.json"))) == 1
    assert len(launcher.launched) == 1
    assert sweep_log.entries == {}
    assert _killed(outputs) == {}


def test_jobs_beside_a_killed_worker_get_their_second_chance_alone(
    sweep_log: SweepLog, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def once(launches: Launches, job: int) -> None:
        if len(launches.launched) == 1:
            launches.dies(0, 1)
        launches.ends(job)

    launcher = JoblibLauncher(sweep_log, outputs, once)
    _launch(launcher)
    assert launcher.launched == [[0, 1, 2], [2], [0], [1]]
    assert _codes(sweep_log) == [OK, OK, OK]
    assert "a worker of the sweep was killed" in capsys.readouterr().err


def test_a_job_that_always_dies_takes_no_other_with_it(sweep_log: SweepLog, outputs: Path) -> None:
    def always(launches: Launches, job: int) -> None:
        if job == 1:
            launches.dies(*([1, 2] if len(launches.launched) == 1 else [1]))
        launches.ends(job)

    launcher = JoblibLauncher(sweep_log, outputs, always)
    _launch(launcher)
    assert _codes(sweep_log) == [OK, FAILED, OK]
    assert "killed here" in str(sweep_log.entries[1].error)
    assert set(_killed(outputs)) == {1, 2}
    assert launcher.launched[-2:] == [[1], [2]]


def test_jobs_that_all_die_end_all_the_same(sweep_log: SweepLog, outputs: Path) -> None:
    launcher = JoblibLauncher(sweep_log, outputs, lambda launches, job: launches.dies(job))
    _launch(launcher)
    assert _codes(sweep_log) == [FAILED] * 3
    assert set(_killed(outputs)) == {0, 1, 2}
    assert launcher.launched[-3:] == [[0], [1], [2]]


def test_a_worker_may_die_before_its_job_could_say_that_it_runs(sweep_log: SweepLog, outputs: Path) -> None:
    def early(launches: Launches, job: int) -> None:
        if len(launches.launched) == 1:
            launches.dies()
        launches.ends(job)

    _launch(JoblibLauncher(sweep_log, outputs, early))
    assert _codes(sweep_log) == [OK] * 3


def test_workers_that_cannot_even_start_are_an_error(sweep_log: SweepLog, outputs: Path) -> None:
    launcher = JoblibLauncher(sweep_log, outputs, lambda launches, job: launches.dies())
    with pytest.raises(LaunchError, match="BrokenProcessPool"):
        _launch(launcher)
    assert len(launcher.launched) == 2
    assert set(_killed(outputs)) == {0, 1, 2}


def test_what_is_no_death_is_not_tried_again(sweep_log: SweepLog, outputs: Path) -> None:
    launcher = JoblibLauncher(sweep_log, outputs, lambda launches, job: _raise(TypeError("cannot pickle")))
    with pytest.raises(LaunchError, match="cannot pickle"):
        _launch(launcher)
    assert len(launcher.launched) == 1


def test_dead_runs_of_another_sweep_are_not_this_ones(
    sweep_log: SweepLog, outputs: Path, tmp_path: Path
) -> None:
    earlier = SweepLog(tmp_path / "earlier")
    earlier.begin("table", "01234567")
    with suppress(BrokenProcessPool):
        JoblibLauncher(earlier, outputs).dies(0)

    def once(launches: Launches, job: int) -> None:
        if job == 1 and len(launches.launched) == 1:
            launches.dies(1)
        launches.ends(job)

    launcher = JoblibLauncher(sweep_log, outputs, once)
    _launch(launcher)
    assert launcher.launched == [[0, 1, 2], [2], [1]]
    assert earlier.entry(0) is not None
