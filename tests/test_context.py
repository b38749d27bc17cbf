"""Cores that a process may use: of its affinity, of a scheduler, of a container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qexp import context


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups of a container, and a machine of 16 cores without a scheduler."""
    monkeypatch.setattr(context, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(16)}, raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000\n", 16), ("400000 100000\n", 4), ("250000 100000", 2), ("10000 100000", 1), ("", 16),
     ("6400000 100000", 16), ("100000 0", 16)],
)  # fmt: skip
def test_a_quota_of_a_container_is_a_limit(content: str, cores: int, groups: Path) -> None:
    (groups / "cpu.max").write_text(content)
    assert context.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", 16), ("300000\n", 3)])
def test_a_quota_of_the_first_version_is_one(quota: str, cores: int, groups: Path) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert context.cores() == cores


def test_the_smallest_limit_counts(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context.cores() == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert context.cores() == 8
    (groups / "cpu.max").write_text("300000 100000")
    assert context.cores() == 3


def test_without_affinity_all_cores_count(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert context.cores() == 10
