"""A private SLURM on loopback: one machine that plays two nodes, with accounting; its state in one folder."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
PACKAGES = "slurm-wlm slurmdbd munge mariadb-server"
NODES = ("n1", "n2")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounting}
AccountingStoragePass={folder}/munge.sock
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
"""Credentials expire after 5 s, or requeued jobs wait two minutes; preempted jobs are told, and get 10 s."""
ACCOUNTING = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdPort={accounting}
CommunicationParameters=NoInAddrAny
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Slurm:
    """A running SLURM."""

    folder: Path
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> Mapping[str, str]:
        """For every program that talks to it."""
        return {
            **os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(self.folder / "database.sock"),
        }  # fmt: skip

    def ask(self, *words: str, check: bool = True) -> str:
        """What a program says."""
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State of each job by its name, such as ``12_0``; ended ones too."""
        lines = self.ask("sacct", "-X", "-n", "-P", "-o", "JobID,State").splitlines()
        return dict(line.split("|") for line in lines)

    def daemon(self, *words: str) -> None:
        """Start a program that stays."""
        with (self.folder / f"{words[0]}.out").open("ab") as log:
            process = subprocess.Popen(
                words, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)

    def stop(self) -> None:
        """Cancel all jobs and end all programs, the last one first."""
        self.ask("scancel", "--user", getpass.getuser(), check=False)
        time.sleep(1)
        for process in reversed(self._started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start one, and stop it."""
    cluster = Slurm(folder)
    try:
        _start(cluster)
        yield cluster
    finally:
        cluster.stop()


def _start(cluster: Slurm) -> None:
    folder, user = cluster.folder, getpass.getuser()
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "state").mkdir()
    _munge(cluster)
    _database(cluster, user)
    controller, accounting, *node_ports = _ports(2 + len(NODES))
    facts = {
        "folder": folder, "user": user, "host": socket.gethostname().split(".")[0],
        "controller": controller, "accounting": accounting, "nodes": _nodes(node_ports),
    }  # fmt: skip
    (folder / "slurm.conf").write_text(SLURM.format(**facts))
    (folder / "slurmdbd.conf").write_text(ACCOUNTING.format(**facts))
    (folder / "slurmdbd.conf").chmod(0o600)
    cluster.daemon("slurmdbd", "-D")
    _wait(lambda: "test" in _added(cluster), "slurmdbd")
    cluster.daemon("slurmctld", "-D", "-c")
    for node in NODES:
        (folder / f"spool-{node}").mkdir()
        cluster.daemon("slurmd", "-D", "-N", node)
    idle = ("sinfo", "-h", "-t", "idle", "-o", "%D", "-p", "debug")
    _wait(lambda: cluster.ask(*idle, check=False).strip() == str(len(NODES)), "slurmctld and slurmd")


def _added(cluster: Slurm) -> str:
    cluster.ask("sacctmgr", "-i", "add", "cluster", "test", check=False)
    return cluster.ask("sacctmgr", "-n", "-P", "list", "cluster", check=False)


def _munge(cluster: Slurm) -> None:
    key = cluster.folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    names = {"key-file": key, "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
    names |= {"seed-file": "munged.seed"}
    options = [f"--{name}={cluster.folder / value}" for name, value in names.items()]
    cluster.daemon("munged", "--foreground", "--force", "--num-threads=2", *options)
    _wait((cluster.folder / "munge.sock").exists, "munged")


def _database(cluster: Slurm, user: str) -> None:
    data, at = cluster.folder / "database", cluster.folder / "database.sock"
    cluster.ask(
        "mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}",
        "--auth-root-authentication-method=normal", "--skip-test-db",
    )  # fmt: skip
    cluster.daemon(
        "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}", f"--socket={at}",
        "--skip-networking", f"--pid-file={cluster.folder / 'mariadbd.pid'}",
    )  # fmt: skip
    _wait(at.exists, "mariadbd")


def _nodes(ports: list[int]) -> str:
    host = socket.gethostname().split(".")[0]
    return "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000"
        for name, port in zip(NODES, ports, strict=True)
    )


def _ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait(is_up: Callable[[], bool], name: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_up():
        if time.monotonic() > end:
            raise TimeoutError(f"{name} did not start in {seconds:.0f} s")
        time.sleep(0.2)
