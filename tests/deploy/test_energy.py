"""Energy counters, with fake files and clocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qexp.deploy import energy


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "NVML", "no-such-library.so")
    energy._gpu.cache_clear()
    return tmp_path


def counter(folder: Path, name: str, microjoules: int) -> Path:
    (folder / name).mkdir()
    file = folder / name / "energy_uj"
    file.write_text(f"{microjoules}\n")
    return file


def test_packages_count_and_their_parts_do_not(powercap: Path) -> None:
    counter(powercap, "intel-rapl:0", 5_000_000)
    counter(powercap, "intel-rapl:1", 7_000_000)
    counter(powercap, "intel-rapl:0:0", 1)
    assert [meter() for meter in energy.meters()] == [5.0, 7.0]


def test_a_machine_that_does_not_tell_has_no_meter(powercap: Path) -> None:
    assert energy.meters() == ()


def test_what_may_not_be_read_is_passed_over(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter(powercap, "intel-rapl:0", 1)

    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert energy.meters() == ()


def test_joules_are_the_mean_over_all_calls(powercap: Path) -> None:
    file = counter(powercap, "intel-rapl:0", 0)
    used, times = [0], iter_seconds()

    def call() -> None:
        used[0] += 3_000_000
        file.write_text(str(used[0]))

    assert energy.joules(call, energy.meters(), lambda: next(times)) == 3.0
    assert used[0] > 3_000_000


def iter_seconds() -> Iterator[float]:
    second = 0.0
    while True:
        yield second
        second += 0.3
