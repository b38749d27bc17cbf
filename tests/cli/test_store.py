"""``qexp store``: lists, verifies and cleans the artifact store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.lease import claimed
from qexp.artifacts.manifest import MANIFEST
from qexp.artifacts.types import Artifact
from qexp.cli.store import main
from qexp.context import RunContext
from qexp.execution.crash_records import pending_record
from qexp.records.record import records_folder, write
from qexp.records.store_usage import Item, items
from tests.support.record_factory import record


def _double(work: BuildDir, ctx: object, *, number: int) -> None:
    work.write_facts({"double": 2 * number})
    (work.folder / "deep").mkdir()
    (work.folder / "deep" / "file.bin").write_bytes(b"x" * 2**20)


STAGE = Stage("1-double", 1, Artifact, _double, {"number": "number"})
LEASE = """
import sys, time
from pathlib import Path
from qexp.artifacts.lease import claimed
with claimed(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def build(runtime: RunContext) -> Callable[[int], Artifact]:
    """Builds an artifact, or finds it."""
    return lambda number: runtime.run_stage(STAGE, number=number)


def _names(outputs: Path) -> list[str]:
    return sorted(path.name for path in (outputs / "artifacts").glob("*/*"))


def _name_in_record(*artifacts: Artifact, outputs: Path) -> Path:
    stages = [
        {"stage": each.folder.parent.name, "key": each.folder.name, "state": "built", "seconds": 1.0}
        for each in artifacts
    ]
    return write(record(stages=stages), records_folder(outputs))


def _workplace(artifact: Artifact, key: str = "0" * 32, ending: str = ".work-1a2b") -> Path:
    """What a killed process left."""
    folder = artifact.folder.with_name(key + ending)
    (folder / "scratch").mkdir(parents=True)
    (folder / "scratch" / "last.ckpt").write_bytes(b"x" * 2**19)
    return folder


def _dead_lease(path: Path) -> None:
    """A lease whose process was killed."""
    with subprocess.Popen([sys.executable, "-c", LEASE, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    assert path.exists()


@contextmanager
def _in_use(path: Path) -> Iterator[None]:
    with claimed(path, lambda: None):
        yield


def test_ls_has_a_line_for_each_stage(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = build(1), build(2)
    _workplace(first)
    _name_in_record(first, outputs=outputs)
    capsys.readouterr()
    assert main(["ls"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "1-double" in line)
    artifacts, unused, left = ["2", "2.0"], ["1", "1.0"], ["1", "0.5"]
    assert [cell.strip() for cell in line.strip("| ").split("|")] == ["1-double", *artifacts, *unused, *left]


def test_ls_long_has_a_line_for_each_folder(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = build(1), build(2)
    (second.folder / MANIFEST).write_text("{")
    left = _workplace(first)
    _name_in_record(first, outputs=outputs)
    capsys.readouterr()
    assert main(["ls", "--long"]) == 0
    lines = {line.split("|")[2].strip(): line for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert {first.folder.name, second.folder.name, left.name} <= set(lines)
    assert lines[first.folder.name].rstrip("| ").endswith("1")
    assert "damaged" in lines[second.folder.name]
    assert "0.50" in lines[left.name]


def test_verify_of_a_sound_store_is_well(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _workplace(build(1))
    capsys.readouterr()
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "1 artifacts, 0 damaged\n"


def _number(folder: Path, number: str) -> None:
    """Change what a list says of the only input."""
    text = (folder / MANIFEST).read_text()
    assert '"number": 1' in text
    (folder / MANIFEST).write_text(text.replace('"number": 1', f'"number": {number}'))


HARMS: dict[str, Callable[[Path], object]] = {
    "changed": lambda folder: (folder / "deep" / "file.bin").write_bytes(b"y" * 2**20),
    "truncated": lambda folder: (folder / "facts.json").write_text("{"),
    "absent": lambda folder: (folder / "facts.json").unlink(),
    "foreign": lambda folder: (folder / "notes.txt").write_text("hello"),
    "no list": lambda folder: (folder / MANIFEST).unlink(),
    "half a list": lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40]),
    "a foreign list": lambda folder: (folder / MANIFEST).write_text('{"files": [], "inputs": {}}'),
    "no number": lambda folder: _number(folder, "NaN"),
    "other inputs": lambda folder: _number(folder, "3"),
    "bytes": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_verify_names_what_is_damaged_and_the_next_run_builds_it_anew(
    harm: str, build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, sound = build(1), build(2)
    HARMS[harm](victim.folder)
    capsys.readouterr()
    assert main(["verify"]) == 1
    said = capsys.readouterr().out
    assert f"1-double/{victim.folder.name}" in said
    assert sound.folder.name not in said
    assert "2 artifacts, 1 damaged" in said
    assert victim.folder.exists()
    assert main(["verify", "--set-aside"]) == 1
    assert not victim.folder.exists()
    assert main(["verify"]) == 0
    assert build(1).facts == {"double": 2}
    assert main(["verify"]) == 0


def test_gc_of_a_sound_store_removes_nothing(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(1)
    before = _names(outputs)
    capsys.readouterr()
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "removed nothing: 0.0 MiB\n"
    assert _names(outputs) == before


def test_gc_removes_what_killed_processes_and_damage_left(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = build(1)
    for ending in (".work-1a2b", ".work", ".broken-12"):
        _workplace(artifact, ending=ending)
    _dead_lease(artifact.folder.with_name("1" * 32 + ".lease"))
    (artifact.folder.parent / "notes.txt").write_text("not of the store")
    before = _names(outputs)
    capsys.readouterr()
    assert main(["gc", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert [name for name in _names(outputs) if "lease" not in name] == [
        name for name in before if "lease" not in name
    ]
    _dead_lease(artifact.folder.with_name("1" * 32 + ".lease"))  # a look ends the claim of a dead process
    assert said.splitlines()[-1] == "would remove 1 broken, 1 lease, 2 work: 1.5 MiB"
    assert len(said.splitlines()) == 5
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "removed 1 broken, 1 lease, 2 work: 1.5 MiB\n"
    assert _names(outputs) == [artifact.folder.name, "notes.txt"]


@pytest.mark.parametrize("options", [[], ["--unused"]])
def test_gc_never_removes_what_a_process_has_claimed(
    options: list[str], build: Callable[[int], Artifact], outputs: Path
) -> None:
    artifact = build(1)
    left = _workplace(artifact, key=artifact.folder.name)
    with _in_use(artifact.folder.with_name(f"{artifact.folder.name}.lease")):
        assert main(["gc", *options]) == 0
        assert artifact.folder.exists()
        assert left.exists()
    assert main(["gc", *options]) == 0
    assert not left.exists()


def test_a_process_that_claims_a_key_while_gc_looks_keeps_its_folder(
    build: Callable[[int], Artifact], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the removal."""
    left = _workplace(build(1))
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with _in_use(left.with_name(f"{'0' * 32}.lease")):
            inside.set()
            done.wait(20)

    worker = threading.Thread(target=work)
    plain = Item.remove

    def late(item: Item) -> bool:
        worker.start()
        assert inside.wait(20)
        return plain(item)

    monkeypatch.setattr(Item, "remove", late)
    try:
        assert main(["gc"]) == 0
        assert left.exists()
    finally:
        done.set()
        worker.join()


def test_unused_is_what_no_record_names(build: Callable[[int], Artifact], outputs: Path) -> None:
    named, unnamed = build(1), build(2)
    _name_in_record(named, outputs=outputs)
    assert main(["gc"]) == 0
    assert unnamed.folder.exists()
    assert main(["gc", "--unused"]) == 0
    assert named.folder.exists()
    assert not unnamed.folder.exists()


def test_young_things_may_be_kept(build: Callable[[int], Artifact], outputs: Path) -> None:
    left = _workplace(build(1))
    assert main(["gc", "--unused", "--older-than", "1"]) == 0
    assert left.exists()
    assert build(1).folder.exists()


def test_unused_is_refused_while_runs_go_on(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may need what no Record names yet."""
    artifact = build(1)
    with pending_record(outputs, None) as words:
        words.write(record(status="failed"), [])
        assert main(["gc", "--unused"]) == 2
        assert "1 runs go on" in capsys.readouterr().err
        assert main(["gc", "--unused", "--dry-run"]) == 0
        assert main(["gc"]) == 0
        assert artifact.folder.exists()
    assert main(["gc", "--unused"]) == 0
    assert not artifact.folder.exists()


def test_a_record_that_cannot_be_read_keeps_everything_that_it_may_name(
    build: Callable[[int], Artifact], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = build(1)
    left = _workplace(artifact)
    path = _name_in_record(artifact, outputs=outputs)
    path.write_text(path.read_text()[:100])
    assert main(["gc", "--unused"]) == 1
    assert f"{path}: not complete JSON" in capsys.readouterr().err
    assert artifact.folder.exists()
    assert left.exists()
    assert main(["gc"]) == 0
    assert not left.exists()


def test_records_of_other_versions_name_what_they_can(
    build: Callable[[int], Artifact], outputs: Path
) -> None:
    """With fields that are not known here, and stages that say less."""
    artifact = build(1)
    path = _name_in_record(artifact, outputs=outputs)
    tree = json.loads(path.read_text())
    tree["stages"] = [{**tree["stages"][0], "host": "a"}, {"stage": "0-new"}]
    path.write_text(json.dumps({**tree, "energy": 3.5}))
    assert main(["gc", "--unused"]) == 0
    assert artifact.folder.exists()


def test_other_outputs_can_be_named(
    build: Callable[[int], Artifact], outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build(1)
    monkeypatch.setenv("QEXP_OUTPUTS", str(tmp_path / "none"))
    assert main(["--outputs", str(outputs), "verify"]) == 0


def test_no_store_is_one_clear_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 2
    said = capsys.readouterr().err
    assert str(outputs) in said
    assert "--outputs" in said
    assert not outputs.exists()


def test_the_module_is_a_command(build: Callable[[int], Artifact], outputs: Path) -> None:
    victim = build(1)
    (victim.folder / "facts.json").write_text("{")
    done = subprocess.run([sys.executable, "-m", "qexp", "store", "verify"], capture_output=True, text=True)
    assert done.returncode == 1
    assert victim.folder.name in done.stdout
    assert done.stderr == ""


def test_items_are_what_stages_left_and_nothing_else(build: Callable[[int], Artifact], outputs: Path) -> None:
    artifact = build(1)
    home = artifact.folder.parent
    for name in (".clock-12", "notes", "0" * 31, "0" * 32 + ".tmp", "0" * 32 + ".lock"):
        (home / name).write_text("")
    found = {item.path.name: item.kind for item in items(outputs / "artifacts")}
    assert found == {artifact.folder.name: "artifact", "0" * 32 + ".lock": "lease"}


def test_what_vanishes_while_it_is_looked_at_is_empty(tmp_path: Path) -> None:
    item = Item(tmp_path / ("0" * 32 + ".lease"), "lease", "0" * 32)
    assert item.bytes == 0
    assert item.days == 0
