"""The artifact store: cache keys, and that no incomplete or damaged artifact is used as a result."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.artifacts import BuildDir, Stage, Store, digest, identity
from qexp.artifacts.manifest import MANIFEST
from qexp.artifacts.types import Artifact
from qexp.config import Quant
from qexp.errors import StoreError


@dataclass
class Listener:
    said: list[str] = field(default_factory=list)
    waits: int = 0

    def waiting(self, stage: str) -> None:
        self.waits += 1

    def warn(self, message: str) -> None:
        self.said.append(message)


def _double(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
    work.write_facts({"double": 2 * number})
    (work.folder / "deep").mkdir()
    (work.folder / "deep" / "file.bin").write_bytes(b"x" * 1000)


KEYS = {"number": "number", "quant": "quant"}
STAGE = Stage("1-double", 1, Artifact, _double, KEYS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts", Listener())


def _walk(store: Store, number: int = 3, stage: Stage = STAGE) -> tuple[Artifact, bool]:
    inputs = stage.inputs(number=number, quant=Quant())
    key = stage.key(inputs)
    found = store.find(stage, key, inputs)
    if found is not None:
        return found, False
    return store.build(stage, key, inputs, lambda work: stage.run(work, None, number=number, quant=Quant()))


def test_second_call_loads_what_the_first_built(store: Store) -> None:
    first, built = _walk(store)
    second, again = _walk(store)
    assert (built, again) == (True, False)
    assert first.facts == second.facts == {"double": 6}
    assert first.folder == second.folder


def test_key_covers_name_version_and_every_input_but_not_rt() -> None:
    inputs = STAGE.inputs(number=3, quant=Quant())
    assert inputs == {"number": 3, "quant": Quant().model_dump(mode="json")}
    keys = {
        STAGE.key(inputs),
        STAGE.key(STAGE.inputs(number=4, quant=Quant())),
        STAGE.key(STAGE.inputs(number=3, quant=Quant(weight_bits=4))),
        Stage("1-double", 2, Artifact, _double, KEYS).key(inputs),
        Stage("2-double", 1, Artifact, _double, KEYS).key(inputs),
    }
    assert len(keys) == 5


def test_inputs_are_given_by_keyword_and_all_of_them() -> None:
    assert STAGE.inputs(quant=Quant(), number=3) == STAGE.inputs(number=3, quant=Quant())
    for wrong in ({"number": 3}, {"number": 3, "quant": Quant(), "more": 1}):
        with pytest.raises(TypeError, match="by keyword"):
            STAGE.inputs(**wrong)


def test_a_renamed_parameter_keeps_the_key() -> None:
    def renamed(work: BuildDir, ctx: object, *, count: int, quant: Quant) -> None:
        """As ``_double``."""

    stage = Stage("1-double", 1, Artifact, renamed, {"count": "number", "quant": "quant"})
    assert stage.key(stage.inputs(count=3, quant=Quant())) == STAGE.key(STAGE.inputs(number=3, quant=Quant()))


def test_identity_refuses_what_it_cannot_name() -> None:
    with pytest.raises(TypeError, match="fingerprint"):
        identity(object())


@given(
    st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
)
def test_digest_does_not_depend_on_order(tree: dict[str, object]) -> None:
    assert digest(tree) == digest(dict(reversed(tree.items())))


@pytest.mark.parametrize("file", ["facts.json", "deep/file.bin", MANIFEST])
@pytest.mark.parametrize("harm", ["truncate", "change", "delete"])
def test_damage_is_found_set_aside_and_rebuilt(store: Store, file: str, harm: str) -> None:
    artifact, _ = _walk(store)
    victim = artifact.folder / file
    if harm == "delete":
        victim.unlink()
    else:
        content = victim.read_bytes()
        victim.write_bytes(
            content[: len(content) // 2] if harm == "truncate" else b"{" + content[1:-1] + b"!"
        )
    rebuilt, built = _walk(store)
    assert built
    assert rebuilt.facts == {"double": 6}
    assert len(list(artifact.folder.parent.glob("*.broken-*"))) == 1
    assert "set aside" in store.watcher.said[0]  # type: ignore[attr-defined]


def test_shared_key_of_other_inputs_is_an_error_that_shows_the_difference(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.artifacts.stage.digest", lambda tree: "collision")
    _walk(store, 99)
    with pytest.raises(StoreError, match="number: 99 -> 3"):
        _walk(store, 3)


def test_folder_that_belongs_under_another_key_is_set_aside(store: Store) -> None:
    wrong, right = _walk(store, 99)[0], _walk(store, 3)[0]
    shutil.rmtree(right.folder)
    shutil.copytree(wrong.folder, right.folder)
    artifact, built = _walk(store, 3)
    assert built
    assert artifact.facts == {"double": 6}
    assert "belongs elsewhere" in store.watcher.said[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["notes.txt", "deep/file.bin.bak"])
def test_file_that_no_stage_wrote_sets_the_folder_aside(store: Store, name: str) -> None:
    artifact, _ = _walk(store)
    (artifact.folder / name).write_text("hello")
    again, built = _walk(store)
    assert built
    assert not (again.folder / name).exists()
    assert name in store.watcher.said[0]  # type: ignore[attr-defined]


def test_what_a_file_system_puts_anywhere_is_no_foreign_file(store: Store) -> None:
    artifact, _ = _walk(store)
    (artifact.folder / ".nfs0000000012").write_text("")
    assert not _walk(store)[1]


def test_failed_build_leaves_no_artifact_and_its_rest_is_not_reused(store: Store) -> None:
    def half(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
        (work.folder / "rest").write_text("half")
        (work.scratch / "checkpoint").write_text("kept")
        raise RuntimeError("cut off")

    stage = Stage("1-double", 1, Artifact, half, KEYS)
    with pytest.raises(RuntimeError, match="cut off"):
        _walk(store, stage=stage)
    seen: list[bool] = []

    def whole(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
        seen.append((work.scratch / "checkpoint").read_text() == "kept")
        work.write_facts({})

    artifact, built = _walk(store, stage=Stage("1-double", 1, Artifact, whole, KEYS))
    assert built
    assert seen == [True]
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["facts.json", MANIFEST]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_is_one_clear_error(store: Store, code: int) -> None:
    def full(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(StoreError, match="QEXP_OUTPUTS"):
        _walk(store, stage=Stage("1-double", 1, Artifact, full, KEYS))


def test_full_disk_is_recognised_by_its_words_from_native_libraries(store: Store) -> None:
    def full(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match="free space"):
        _walk(store, stage=Stage("1-double", 1, Artifact, full, KEYS))


def test_two_at_once_build_once(tmp_path: Path) -> None:
    built: list[int] = []
    results: list[bool] = []

    def slow(work: BuildDir, ctx: object, *, number: int, quant: Quant) -> None:
        built.append(1)
        time.sleep(0.3)
        work.write_facts({})

    stage = Stage("1-double", 1, Artifact, slow, KEYS)
    listeners = [Listener(), Listener()]

    def go(listener: Listener) -> None:
        results.append(_walk(Store(tmp_path, listener), stage=stage)[1])

    threads = [threading.Thread(target=go, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert sorted(results) == [False, True]
    assert sum(listener.waits for listener in listeners) == 1


_KILLED = """
import sys, time
from pathlib import Path
from qexp.artifacts.types import Artifact
from qexp.artifacts import Stage, Store
class Deaf:
    def waiting(self, stage): pass
    def warn(self, message): pass
def slow(work, ctx, *, number):
    work.write_facts({"double": 6})
    print("building", flush=True)
    time.sleep(60)
stage = Stage("1-double", 1, Artifact, slow, {"number": "number"})
inputs = stage.inputs(number=3)
store = Store(Path(sys.argv[1]), Deaf())
store.build(stage, stage.key(inputs), inputs, lambda work: slow(work, None, number=3))
"""


def test_killed_process_leaves_neither_artifact_nor_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        process.kill()

    def quick(work: BuildDir, ctx: object, *, number: int) -> None:
        work.write_facts({"double": 7})

    stage = Stage("1-double", 1, Artifact, quick, {"number": "number"})
    inputs = stage.inputs(number=3)
    store = Store(tmp_path, Listener())
    assert store.find(stage, stage.key(inputs), inputs) is None
    artifact, built = store.build(stage, stage.key(inputs), inputs, lambda work: quick(work, None, number=3))
    assert built
    assert artifact.facts == {"double": 7}


_ASLEEP = """
import os, signal, sys
from pathlib import Path
import qexp.artifacts.lease
from qexp.artifacts.types import Artifact
from qexp.errors import StoreError
from qexp.artifacts import Stage, Store
qexp.artifacts.lease.LEASE_SECONDS = 1.0
class Deaf:
    def waiting(self, stage): pass
    def warn(self, message): pass
def slow(work, ctx, *, number):
    (work.scratch / "last.ckpt").write_text("half")
    print("building", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    work.write_facts({"double": 0})
stage = Stage("1-double", 1, Artifact, slow, {"number": "number"})
inputs = stage.inputs(number=3)
try:
    store = Store(Path(sys.argv[1]), Deaf())
    store.build(stage, stage.key(inputs), inputs, lambda work: slow(work, None, number=3))
except StoreError as error:
    print(error)
"""


def test_holder_that_sleeps_is_superseded_and_cannot_disturb_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.artifacts.lease.LEASE_SECONDS", 1.0)
    seen: list[str] = []

    def quick(work: BuildDir, ctx: object, *, number: int) -> None:
        seen.append((work.scratch / "last.ckpt").read_text())
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        seen.append(process.stdout.readline().decode())
        work.write_facts({"double": 6})

    with subprocess.Popen([sys.executable, "-c", _ASLEEP, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        stage = Stage("1-double", 1, Artifact, quick, {"number": "number"})
        inputs, store = stage.inputs(number=3), Store(tmp_path, Listener())
        artifact, built = store.build(
            stage, stage.key(inputs), inputs, lambda work: quick(work, None, number=3)
        )
    assert built
    assert artifact.facts == {"double": 6}
    assert seen[0] == "half"
    assert "lost the lease" in seen[1]
    assert store.find(stage, stage.key(inputs), inputs) is not None


def test_an_input_that_came_later_is_not_in_the_key_while_it_is_none() -> None:
    keys = {**KEYS, "more": "more"}
    extended: Stage[..., Artifact] = Stage("1-double", 1, Artifact, _double, keys, frozenset({"more"}))
    before = STAGE.inputs(number=3, quant=Quant())
    assert extended.inputs(number=3, quant=Quant(), more=None) == before
    assert extended.inputs(number=3, quant=Quant(), more=1) == {**before, "more": 1}
    with pytest.raises(TypeError):
        extended.inputs(number=3, quant=Quant())
