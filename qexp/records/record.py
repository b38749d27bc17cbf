"""Records: what one run was asked, what it found, and how it ended, as one JSON file each.

A Record is the only source of tables and plots. It is written whole or not at all, keeps every
digit, and never holds NaN: a metric that is undefined is null. Reading asks for the form of the
Record only, not for an experiment that today's schema would accept, so old Records stay readable;
fields that are unknown here, of a newer version, are passed over.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from qexp.environment import OUTPUTS_VARIABLE as OUTPUTS_VARIABLE
from qexp.errors import StoreError
from qexp.records.checks import FORM, check_form, time_of
from qexp.records.schema import (  # fmt: skip
    ActivationRange,
    Curve,
    DataUsed,
    EngineFound,
    Failure,
    Git,
    Parity,
    Sites,
    StageRun,
    SweepJob,
    Timing,
)

RUNNING = "running"
"""Folder inside the outputs of what runs leave if they are killed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run; plain JSON values inside."""

    key: str
    """Run key; names the file."""
    status: Literal["ok", "failed"]
    """Whether every stage came to its end."""
    experiment: Mapping[str, Any]
    """The validated experiment as JSON (:class:`qexp.config.Experiment`, in the schema of its day)."""
    started: str
    """ISO 8601, UTC."""
    finished: str
    """ISO 8601, UTC."""
    recipe: str | None = None
    """Recipe that was asked for (``recipe=…``), whatever other words changed of it; null without one."""
    error: Failure | None = None
    """What stopped a failed run."""
    data: DataUsed | None = None
    """Rows that were used; null when the run failed before it had any."""
    model: Mapping[str, str] | None = None
    """Name and fingerprint of the checkpoint that the run started from."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Percent by stage (``fp32 control ptq qat onnx``) and metric; an undefined metric is null."""
    scoring: Mapping[str, Any] = field(default_factory=dict)
    """How scores were found, by stage and evaluation split, such as sacreBLEU's signature."""
    caveats: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Why scores say nothing of the model, by stage and metric: constant predictions, or no better than
    chance."""
    parity: Parity | None = None
    """Parity check of the exported graph."""
    latency: Mapping[str, Mapping[str, Timing]] | None = None
    """By graph (``fp32 int8``) and batch size."""
    host: Mapping[str, Any] | None = None
    """Processor, cores and threads of the machine that the latency was measured on, and its runtimes."""
    engines: Mapping[str, EngineFound] = field(default_factory=dict)
    """By runtime and precision, such as ``openvino/int8``; ``parity`` and ``latency`` are the first one's."""
    bytes: Mapping[str, int] | None = None
    """Size of the exported file by graph (``fp32 int8``)."""
    sites: Sites | None = None
    """What was quantized."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Loss by training (``fp32 control qat``)."""
    ranges: Mapping[str, Mapping[str, ActivationRange]] = field(default_factory=dict)
    """Activations by stage (``ptq qat``) and quantizer (``<module>:<site>``)."""
    sweep: SweepJob | None = None
    """Sweep that asked for the run last; null for a run of its own."""
    stages: list[StageRun] = field(default_factory=list)
    """Stages in the order in which they ran."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of what computed the numbers."""
    git: Git | None = None
    """Checkout, or null outside of one."""
    warnings: list[str] = field(default_factory=list)
    """What the user was warned of."""

    @property
    def finished_at(self) -> datetime:
        """``finished`` as a time that can be compared; UTC where it names no zone."""
        return time_of(self.finished)

    def to_json(self) -> str:
        """Record as JSON text, one line for each field, every digit kept.

        Raises:
            StoreError: a number is NaN or infinite; the message names its place.
        """
        tree = {each.name: getattr(self, each.name) for each in fields(self)}
        try:
            lines = (f" {json.dumps(name)}: {json.dumps(tree[name], allow_nan=False)}" for name in tree)
            return "{\n" + ",\n".join(lines) + "\n}\n"
        except ValueError:
            for path, value in _not_finite(tree):
                raise StoreError(
                    f"Record {self.key}: {path} is {value}, which JSON cannot hold; "
                    "write null for a metric that is undefined"
                ) from None
            raise

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Record from JSON text.

        Raises:
            StoreError: the text is cut off, no JSON, or not of a Record's form.
        """
        try:
            tree = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"not complete JSON ({error})") from None
        if not isinstance(tree, dict):
            raise StoreError(f"not a Record: expected a JSON object, found {type(tree).__name__}")
        known = {name: tree[name] for name in FORM if name in tree}
        check_form(known, [name for name, each in cls.__dataclass_fields__.items() if _required(each)])
        return cls(**known)


@dataclass(frozen=True)
class UnreadableRecord:
    """A file among the Records that could not be read."""

    path: Path
    reason: str


def outputs_root() -> Path:
    """Folder for everything a run writes: QEXP_OUTPUTS, else ``outputs`` in the current directory."""
    return Path(os.environ.get(OUTPUTS_VARIABLE) or "outputs").expanduser().absolute()


def records_folder(outputs: Path) -> Path:
    """Folder of the Records inside the outputs."""
    return outputs / "records"


def write(record: Record, folder: Path) -> Path:
    """Write ``<folder>/<key>.json``, whole or not at all; a Record of the same key is replaced.

    Raises:
        StoreError: the folder cannot be written (with the system's reason), or a number is NaN.
    """
    if not re.fullmatch(r"\w[\w.-]*", record.key, re.ASCII):
        raise ValueError(f"key {record.key!r} cannot name a file")
    path = folder / f"{record.key}.json"
    write_text(path, record.to_json())
    return path


def file_record(record: Record, folder: Path) -> Path:
    """Write a Record; that of a failed rerun goes beside the result of an earlier run, never over it.

    Raises:
        StoreError: as ``write``.
    """
    if record.status == "failed" and (folder / f"{record.key}.json").exists():
        with contextlib.suppress(StoreError):  # what cannot be read is no result that could be lost
            if read(folder / f"{record.key}.json").status == "ok":
                return write(replace(record, key=failure_key(record.key)), folder)
    return write(record, folder)


def failure_key(key: str) -> str:
    """Key under which a failed rerun lies beside the result of an earlier run."""
    return f"{key}-failed"


def forget_failure(key: str, folder: Path) -> None:
    """Remove the Record of a failure that has been made good.

    A run that dies before it knows its rows is filed under another key than the one that goes through, and
    so is a failed rerun of one that had gone through.
    """
    file = folder / f"{key}.json"
    with contextlib.suppress(StoreError, FileNotFoundError):
        if read(file).status == "failed":
            file.unlink()


def made_good(failure: Record, folder: Path) -> bool:
    """Whether the same run has gone through since the failed one began.

    A process may be killed after its result is filed, or while another, which goes on, does the same. One
    that dies before it knows its rows has another key than the result: there the experiment tells.
    """
    began = time_of(failure.started)
    for file in folder.glob("*.json"):
        with contextlib.suppress(StoreError, FileNotFoundError):  # it tells of no result
            if file.stat().st_mtime < began.timestamp():
                continue
            result = read(file)
            same = result.key == failure.key or result.experiment == failure.experiment
            if same and result.status == "ok" and result.finished_at >= began:
                return True
    return False


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically: a reader finds the old text or the new, never a part.

    Raises:
        StoreError: naming the folder and the system's reason, such as a full disk.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path.name} in {path.parent}: {error.strerror or error}; "
            f"make room or allow writing there, or name another folder in {OUTPUTS_VARIABLE}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: Path) -> Record:
    """Read one Record.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    try:
        return Record.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except StoreError as error:
        reason = str(error)
    raise StoreError(f"{path}: {reason}")


def read_all(folder: Path) -> tuple[list[Record], list[UnreadableRecord]]:
    """Read every ``*.json`` of a folder, in the order of the names; hidden files are passed over.

    Raises:
        StoreError: the folder itself cannot be listed.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and name[0] != ".")
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from error
    records: list[Record] = []
    unreadable: list[UnreadableRecord] = []
    for name in names:
        path = folder / name
        try:
            records.append(read(path))
        except StoreError as error:
            unreadable.append(UnreadableRecord(path, str(error).removeprefix(f"{path}: ")))
    return records, unreadable


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for name, child in children:
        yield from _not_finite(child, f"{path}.{name}" if path else str(name))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING
