"""Sweeps on a real SLURM: jobs that fail, are killed, are preempted and run out of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import FAILED, OK
from tests.support.slurm_cluster import PACKAGES, Slurm, missing, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORDS = (
    "-m", "task=mrpc", "quant=w8a8", "method=ptq", "data=sample", "deploy=none",
    "machine.checkpoint_seconds=1", "hydra/launcher=slurm_cpu",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if lacking := missing():
        pytest.skip(f"SLURM is not installed ({', '.join(lacking)}): apt-get install {PACKAGES}")
    with slurm(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


class Sweep:
    """A sweep that goes through SLURM, and what it left."""

    def __init__(self, cluster: Slurm, outputs: Path, words: Sequence[str]) -> None:
        self.cluster, self.outputs, self.before = cluster, outputs, set(cluster.jobs())
        environment = {**cluster.environment, "QEXP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
        given = {word.partition("=")[0] for word in words}
        defaults = [word for word in WORDS if word.partition("=")[0] not in given]
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "qexp", *defaults, *words], env=environment, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def wait(self) -> tuple[int, str]:
        """Its exit code and its news."""
        _, news = self.driver.communicate(timeout=400)
        return self.driver.returncode, news

    def job(self, number: int) -> str:
        """SLURM's name of a job."""
        (name,) = (name for name in set(self.cluster.jobs()) - self.before if name.endswith(f"_{number}"))
        return name

    @property
    def entries(self) -> dict[int, dict[str, Any]]:
        """How jobs of the last attempt ended."""
        attempts = sorted((self.outputs / "sweeps").glob("*/*"))
        files = list(attempts[-1].glob("[0-9]*.json")) if attempts else []
        return {int(file.stem): json.loads(file.read_text()) for file in files}

    def checkpoints_since(self, number: int) -> int:
        """Trainings that saved their state since a job ended."""
        (ended,) = (self.outputs / "sweeps").glob(f"*/*/{number}.json")
        saved = (self.outputs / "artifacts" / "2-fp32").glob("*.work-*/scratch/last.ckpt")
        return sum(file.stat().st_mtime > ended.stat().st_mtime for file in saved)

    def resumed_at(self, number: int) -> int:
        """Step from which the fine-tuning of a job went on when it was built."""
        (key,) = (stage["key"] for stage in self.entries[number]["stages"] if stage["stage"] == "2-fp32")
        facts = (self.outputs / "artifacts" / "2-fp32" / key / "facts.json").read_text()
        return int(json.loads(facts)["resumed_at"])

    def record(self, number: int) -> dict[str, Any]:
        """Record of a job."""
        record: dict[str, Any] = json.loads(
            (self.outputs / "records" / f"{self.entries[number]['key']}.json").read_text()
        )
        return record


def until(condition: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


def test_others_finish_when_jobs_fail_are_cancelled_and_are_preempted(
    cluster: Slurm, tiny_bert: Path, tmp_path: Path
) -> None:
    """Job 1 fails, 2 is cancelled; 0 and 3 are preempted, requeued and go on."""
    words = [
        "finetune.learning_rate=1e-5,1e30,2e-5,3e-5", "finetune.epochs=25", f"model.name={tiny_bert}",
        "hydra.launcher.timeout_min=12", "hydra.launcher.signal_delay_s=5",
    ]  # fmt: skip
    sweep = Sweep(cluster, tmp_path, words)
    until(lambda: 1 in sweep.entries)
    until(lambda: sweep.checkpoints_since(1) == 3)
    cluster.ask("scancel", sweep.job(2))
    until(lambda: cluster.jobs()[sweep.job(2)].startswith("CANCELLED"))
    urgent = cluster.ask(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap", "sleep 3"
    ).strip()
    code, news = sweep.wait()
    assert cluster.jobs()[urgent] == "COMPLETED"
    assert "preempted" in _log(sweep, 0) + _log(sweep, 3)
    assert code == FAILED
    assert "4 jobs, 2 ok, 2 not" in news
    entries = sweep.entries
    assert [entries[job]["code"] for job in range(4)] == [OK, FAILED, FAILED, OK]
    assert sweep.record(1)["error"]["type"] == "TrainingError"
    assert sweep.record(2)["error"]["type"] == "Killed"
    assert "CANCELLED" in sweep.record(2)["error"]["message"]
    again = Sweep(cluster, tmp_path, words)
    assert again.wait()[0] == FAILED  # job 1 fails again
    built = {
        job: [s["stage"] for s in entry["stages"] if s["state"] == "built"]
        for job, entry in again.entries.items()
    }
    assert [bool(built[job]) for job in range(4)] == [False, False, True, False]
    assert again.resumed_at(2) > 0
    assert again.resumed_at(0) + again.resumed_at(3) > 0


def _log(sweep: Sweep, job: int) -> str:
    (folder,) = (sweep.outputs / "sweeps").glob(f"*/*/.submitit/{sweep.job(job)}")
    return "".join(file.read_text() for file in folder.glob("*_log.*"))


def test_job_that_runs_out_of_time_says_so_and_leaves_the_other_alone(
    cluster: Slurm, tiny_bert: Path, tmp_path: Path
) -> None:
    """SLURM may tell a job up to a minute before it need; the short one must be done by then."""
    sweep = Sweep(
        cluster, tmp_path,
        [
            "finetune.epochs=0.1,2000", f"model.name={tiny_bert}", "hydra.launcher.timeout_min=2",
            "hydra.launcher.signal_delay_s=20", "hydra.launcher.max_num_timeout=0",
        ],
    )  # fmt: skip
    code, news = sweep.wait()
    assert code == FAILED
    assert "2 jobs, 1 ok, 1 not" in news
    assert sweep.entries[0]["code"] == OK
    assert "timed-out" in sweep.record(1)["error"]["message"]


def test_request_that_no_node_can_meet_is_an_error_in_words(
    cluster: Slurm, tiny_bert: Path, tmp_path: Path
) -> None:
    code, news = Sweep(cluster, tmp_path, [f"model.name={tiny_bert}", "hydra.launcher.mem_gb=900"]).wait()
    assert code == FAILED
    assert "sbatch" in news
    assert "Traceback" not in news
    assert os.listdir(tmp_path / "records")
