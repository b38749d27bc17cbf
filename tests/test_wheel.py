"""Wheel and source distribution contain everything that the program needs, and run from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BACKEND = "hatchling>=1.27"
BUILD = "import sys; from hatchling.build import build_{kind} as build; print(build(sys.argv[1]))"
pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the contents of the source distribution, and with ``site``: those of a wheel made of it."""
    folder = tmp_path_factory.mktemp("built")
    install = ["-m", "pip", "install", "--quiet", "--target", str(folder / "backend"), BACKEND]
    fetched = _run(install, ROOT)
    if fetched.returncode != 0:
        pytest.skip(f"no build backend without a package index: {fetched.stderr.strip().splitlines()[-1]}")
    source = folder / _build("sdist", ROOT, folder)
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.glob("qexp-*/")
    wheel = folder / _build("wheel", tree, folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree / "site")
    return tree


def _run(
    arguments: list[str], folder: Path, site: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": str(site)} if site else {}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **path, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def _build(kind: str, tree: Path, folder: Path) -> str:
    """Build a distribution of a tree, and return the name of its file."""
    done = _run(["-c", BUILD.format(kind=kind), str(folder)], tree, folder / "backend")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is no checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_the_wheel_brings_its_configuration_along(unpacked: Path, elsewhere: Path) -> None:
    code = "import qexp.cli.run; print(qexp.cli.run.conf_folder()); qexp.cli.run.main()"
    words = ["task=stsb", "quant=w4a8", "--cfg", "job"]
    done = _run(["-c", code, *words], elsewhere, unpacked / "site")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(unpacked / "site" / "qexp" / "conf")
    assert "name: stsb" in done.stdout


def test_help_and_own_options_need_no_checkout(unpacked: Path, elsewhere: Path) -> None:
    (elsewhere / "mine" / "task").mkdir(parents=True)
    (elsewhere / "mine" / "task" / "tickets.yaml").write_text("name: tickets\nkind: regression\n")
    words = ["-m", "qexp", "--config-dir", "mine", "task=tickets", "--cfg", "job"]
    done = _run(words, elsewhere, unpacked / "site")
    assert done.returncode == 0, done.stderr
    assert "name: tickets" in done.stdout
    done = _run(["-m", "qexp", "--config-dir", "mine", "--help"], elsewhere, unpacked / "site")
    assert done.returncode == 0, done.stderr
    assert "tickets" in done.stdout


def test_sweeps_are_found_without_a_checkout(unpacked: Path, elsewhere: Path) -> None:
    words = ["-m", "qexp", "plan", "--config-dir", "sweeps", "--config-name", "smoke", "data=sample"]
    done = _run(words, elsewhere, unpacked / "site", QEXP_OUTPUTS=str(elsewhere / "outputs"))
    assert done.returncode == 0, done.stderr
    assert "9-latency" in done.stdout


def test_the_wheel_has_all_files_that_are_not_python(unpacked: Path) -> None:
    for folder in ("reporting/published", "reporting/assets", "quant/kernels"):
        ours = {file.name for file in (ROOT / "qexp" / folder).iterdir() if file.suffix not in ("", ".pyc")}
        theirs = {file.name for file in (unpacked / "site" / "qexp" / folder).iterdir() if file.is_file()}
        assert ours == theirs


def test_the_licence_is_in_both(unpacked: Path) -> None:
    (metadata,) = (unpacked / "site").glob("qexp-*.dist-info")
    fields = HeaderParser().parsestr((metadata / "METADATA").read_text(encoding="utf-8"))
    assert fields["License-Expression"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_bytes()
    assert (metadata / "licenses" / "LICENSE").read_bytes() == licence
    assert (unpacked / "LICENSE").read_bytes() == licence


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_source_distribution_has_what_its_makefile_needs(unpacked: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    ignored = (".ci/", ".dockerignore", ".gitignore", ".pre-commit-config.yaml", "outputs/")
    missing = [name for name in listed.stdout.splitlines() if not (unpacked / name).is_file()]
    assert [name for name in missing if not name.startswith(ignored)] == []
