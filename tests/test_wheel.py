"""The wheel contains everything that the program needs, and runs from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_brings_its_configuration_along(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip(f"no wheel without a package index: {built.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("qexp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import qexp.cli.run; print(qexp.cli.run.conf_folder()); qexp.cli.run.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "task=stsb", "quant=w4a8", "--cfg", "job"],
        cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "site" / "qexp" / "conf")
    assert "name: stsb" in done.stdout
    (elsewhere / "mine" / "task").mkdir(parents=True)
    (elsewhere / "mine" / "task" / "tickets.yaml").write_text("name: tickets\nkind: regression\n")
    done = subprocess.run(
        [sys.executable, "-m", "qexp", "--config-dir", "mine", "task=tickets", "--cfg", "job"],
        cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "name: tickets" in done.stdout
    assert (tmp_path / "site" / "qexp" / "sweeps" / "smoke.yaml").exists()
    published = {file.name for file in (ROOT / "qexp" / "reporting" / "published").glob("*.yaml")}
    assert published
    assert {
        file.name for file in (tmp_path / "site" / "qexp" / "reporting" / "published").iterdir()
    } == published
    folder = Path("qexp") / "quant" / "kernels"
    kernels = {file.name for file in (ROOT / folder).glob("*.c")}
    assert kernels
    assert {file.name for file in (tmp_path / "site" / folder).glob("*.c")} == kernels
    assets = {file.name for file in (tmp_path / "site" / "qexp" / "reporting" / "assets").iterdir()}
    assert assets == {"page.html", "parts.html", "page.css", "page.js"}
