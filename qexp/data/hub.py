"""Access to the Hugging Face hub: reachability, data sets and snapshots of checkpoints.

The local caches of ``datasets`` and ``huggingface_hub`` come first. Without network and cache an error
follows within seconds, because nothing is requested before the hub has answered once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.sources.tables import flat
from qexp.errors import DataError, ModelError

GLUE = "nyu-mll/glue"
"""GLUE data set on the hub; each task is one of its configurations."""

SETS: Mapping[str, tuple[str, str]] = {
    "squad": ("rajpurkar/squad", "plain_text"),
    "squad_retrieval": ("rajpurkar/squad", "plain_text"),
    "squad_v2": ("rajpurkar/squad_v2", "squad_v2"),
    "stsb_embedding": (GLUE, "stsb"),
    "wmt14_en_de": ("wmt/wmt14", "de-en"),
}
"""Data set and configuration of tasks outside GLUE."""

ANSWER_SECONDS = 3.0
"""Time limit for the hub's first answer, name resolution included."""


def obstacle(seconds: float = ANSWER_SECONDS) -> str | None:
    """Return why the hub is out of reach, or None if it answers within ``seconds``."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    results: list[str | None] = []

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=seconds).status_code
            results.append(f"{constants.ENDPOINT} answers {status}" if status >= 500 else None)
        except Exception as error:  # any failure here is the reason that obstacle() returns
            results.append(f"{constants.ENDPOINT}: {type(error).__name__}: {error}")

    # In a thread, because timeouts of HTTP clients do not bound name resolution.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else f"{constants.ENDPOINT}: no answer within {seconds:g} s"


def place(task: str) -> tuple[str, str]:
    """Return the data set and the configuration of a task on the hub."""
    return SETS.get(task, (GLUE, task))


def tables(task: str, splits: Sequence[str]) -> dict[str, pa.Table]:
    """Return the tables of a task by split, from the local cache of ``datasets`` or from the hub.

    Raises:
        DataError: The data set is not cached, and the hub is out of reach or refuses the request.
    """
    name, config = place(task)
    cached = _cached(name, config, splits)
    if cached is not None:
        return cached
    reason = obstacle()
    if reason:
        raise DataError(f"{name} is out of reach and {config} is not in the local cache: {reason}")
    import datasets

    try:
        loaded = datasets.load_dataset(name, config, split=list(splits))
    except Exception as error:  # datasets, huggingface_hub and fsspec share no base class
        raise DataError(f"{name}, {config}: {type(error).__name__}: {error}") from error
    return {split: _table(rows) for split, rows in zip(splits, loaded, strict=True)}


def _cached(name: str, config: str, splits: Sequence[str]) -> dict[str, pa.Table] | None:
    """Return what ``load_dataset`` would take from its cache when offline, without requests to the hub."""
    from datasets.packaged_modules.cache.cache import Cache

    try:
        last = name.rsplit("/")[-1]
        builder = Cache(dataset_name=last, repo_id=name, config_name=config, version="auto", hash="auto")
        return {split: _table(builder.as_dataset(split=split)) for split in splits}
    except (ValueError, OSError):  # raised by datasets if the cache has nothing, or only a part
        return None


def _table(rows: object) -> pa.Table:
    import datasets

    assert isinstance(rows, datasets.Dataset)
    return flat(rows.with_format("arrow")[:])


def snapshot(name: str, revision: str | None, files: Iterable[str], *, online: bool) -> Path | None:
    """Return the folder with these files of a model repository.

    With ``online`` false, the folder holds whatever the local hub cache has, possibly a part of the files;
    None if it has nothing.

    Raises:
        ModelError: The name is invalid, the hub is out of reach, or it refuses the request.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    reason = obstacle() if online else None
    if reason:
        raise ModelError(f"the hub is out of reach: {reason}")
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(files), local_files_only=not online
        )
    except LocalEntryNotFoundError as error:
        if not online:
            part = getattr(error, "snapshot_path", None)
            return Path(part) if part else None
        raise ModelError(f"the hub does not answer: {error}") from error
    except HFValidationError as error:
        raise ModelError(f"model.name={name}: neither a folder nor a name on the hub: {error}") from error
    except Exception as error:  # huggingface_hub does not wrap the errors of its HTTP client
        raise ModelError(f"hub, revision {revision}: {type(error).__name__}: {error}") from error
    return Path(folder)
