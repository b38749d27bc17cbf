"""Records: configuration, results and outcome of one run, each in a JSON file.

A Record is the only source of tables and plots. It is written atomically, keeps every digit, and never
contains NaN: an undefined metric is null. Reading checks the structure of a Record only, not whether the
current schema accepts its experiment, so that old Records stay readable. Unknown fields, of a newer version,
are ignored.
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
from qexp.records.schema import (
    ActivationRange,
    Curve,
    DataUsed,
    EngineFound,
    Failure,
    Git,
    KeptWeights,
    OutlierDimensions,
    ParityResult,
    ScoreInterval,
    Sites,
    StageRun,
    SweepJob,
    Timing,
)

RUNNING = "running"
"""Name of the outputs' folder for the pending Records of active runs, which remain if a run is killed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result of one run as plain JSON values."""

    key: str
    """Key of the run, and stem of the file name."""
    status: Literal["ok", "failed"]
    """Whether every stage was completed."""
    experiment: Mapping[str, Any]
    """Validated experiment as JSON (:class:`qexp.config.Experiment`), in the schema of the run's version."""
    started: str
    """Start time, ISO 8601 in UTC."""
    finished: str
    """End time, ISO 8601 in UTC."""
    recipe: str | None = None
    """Requested recipe (``recipe=…``), even if other overrides changed parts of it; null without one."""
    overrides: list[str] | None = None
    """Overrides as they were typed, or as the sweep gave them to the job; null if a configuration file of the
    user's says more, and in Records before version 0.2."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Names of the run in tables (:attr:`qexp.config.Experiment.labels`); empty in Records before 0.2."""
    error: Failure | None = None
    """Error that stopped a failed run."""
    data: DataUsed | None = None
    """Rows that were used; null if the run failed before they were loaded."""
    model: Mapping[str, str] | None = None
    """Name and fingerprint of the checkpoint that the run started from."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Percent by stage (``fp32 control ptq qat onnx``) and metric; an undefined metric is null."""
    scoring: Mapping[str, Any] = field(default_factory=dict)
    """How the scores were computed, by stage and evaluation split, such as sacreBLEU's signature."""
    shifts: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """How far the scores of a reranker are from those of the FP32 model, by stage or engine (``ptq qat
    onnxruntime/int8``) and evaluation split (:mod:`qexp.data.metrics.score_shift`)."""
    intervals: Mapping[str, Mapping[str, ScoreInterval]] = field(default_factory=dict)
    """Intervals of differences to the FP32 score over the evaluation rows, by stage (``control ptq qat``) and
    metric; empty where there are no predictions, and in Records before they were computed."""
    caveats: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Reasons why a score is meaningless, by stage and metric: constant predictions, or no better than
    chance."""
    parity: ParityResult | None = None
    """Result of the gate for the exported graph."""
    latency: Mapping[str, Mapping[str, Timing]] | None = None
    """Timings by graph (``fp32 int8``) and batch size."""
    host: Mapping[str, Any] | None = None
    """Processor, cores, threads and runtimes of the machine that measured the latency."""
    engines: Mapping[str, EngineFound] = field(default_factory=dict)
    """Results by runtime and precision (``openvino/int8``); ``parity`` and ``latency`` are the first's."""
    bytes: Mapping[str, int] | None = None
    """Size in bytes of the exported graphs (``fp32 int8``)."""
    sites: Sites | None = None
    """Quantizers by kind of site, and cost of the quantized model."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Loss curves by training (``fp32 control qat``)."""
    selection: Mapping[str, KeptWeights] = field(default_factory=dict)
    """Which weights were kept, by training (``fp32``), where held-out rows or an average chose them."""
    ranges: Mapping[str, Mapping[str, ActivationRange]] = field(default_factory=dict)
    """Ranges of activations by stage (``ptq qat``) and quantizer (``<module>:<site>``)."""
    outliers: Mapping[str, OutlierDimensions] | None = None
    """Outlier dimensions by quantizer, of activations that have any; null where no range of a dimension was
    collected, and in Records from before."""
    sweep: SweepJob | None = None
    """Latest sweep that contained the run; null for a single run."""
    stages: list[StageRun] = field(default_factory=list)
    """Stages in the order of their execution."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python, qexp and the libraries that results depend on."""
    git: Git | None = None
    """State of the source checkout; null outside of one."""
    warnings: list[str] = field(default_factory=list)
    """Warnings that the user saw."""

    @property
    def finished_at(self) -> datetime:
        """``finished`` as a time with a zone, UTC by default."""
        return time_of(self.finished)

    def to_json(self) -> str:
        """Return the Record as JSON text with one line for each field and every digit.

        Raises:
            StoreError: A number is NaN or infinite; the message names its path.
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
        """Parse a Record from JSON text.

        Raises:
            StoreError: The text is truncated, not JSON, or not a Record.
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
    """File in the folder of Records that could not be read."""

    path: Path
    reason: str


def outputs_root() -> Path:
    """Return the folder for all outputs: QEXP_OUTPUTS, else ``outputs`` in the current directory."""
    return Path(os.environ.get(OUTPUTS_VARIABLE) or "outputs").expanduser().absolute()


def records_folder(outputs: Path) -> Path:
    """Return the folder of the Records within the outputs."""
    return outputs / "records"


def write(record: Record, folder: Path) -> Path:
    """Write ``<folder>/<key>.json`` atomically; a Record of the same key is replaced.

    Raises:
        StoreError: The folder cannot be written (with the system's reason), or a number is NaN.
        ValueError: The key cannot name a file.
    """
    if not re.fullmatch(r"\w[\w.-]*", record.key, re.ASCII):
        raise ValueError(f"key {record.key!r} cannot name a file")
    path = folder / f"{record.key}.json"
    write_text(path, record.to_json())
    return path


def save_record(record: Record, folder: Path) -> Path:
    """Write a Record; a failed rerun gets a key of its own and never overwrites an earlier result.

    Raises:
        StoreError: As in :func:`write`.
    """
    if record.status == "failed" and (folder / f"{record.key}.json").exists():
        with contextlib.suppress(StoreError):  # an unreadable file is no result that could be lost
            if read(folder / f"{record.key}.json").status == "ok":
                return write(replace(record, key=failure_key(record.key)), folder)
    return write(record, folder)


def failure_key(key: str) -> str:
    """Return the key for the Record of a failed rerun, next to the result of an earlier run."""
    return f"{key}-failed"


def delete_superseded_failure(key: str, folder: Path) -> None:
    """Delete the Record of a failure once the run has succeeded.

    The failure has another key than the result if the run failed before its rows were loaded, or if an
    earlier run had succeeded.
    """
    file = folder / f"{key}.json"
    with contextlib.suppress(StoreError, FileNotFoundError):
        if read(file).status == "failed":
            file.unlink()


def was_retried_successfully(failure: Record, folder: Path) -> bool:
    """Return whether the same run has succeeded since the failed one started.

    A process may be killed after its result was written, or while another process computes the same run. A
    run that is killed before its rows are loaded has another key than the result, so its experiment is
    compared.
    """
    began = time_of(failure.started)
    for file in folder.glob("*.json"):
        with contextlib.suppress(StoreError, FileNotFoundError):  # an unreadable file is no result
            if file.stat().st_mtime < began.timestamp():
                continue
            result = read(file)
            same = result.key == failure.key or result.experiment == failure.experiment
            if same and result.status == "ok" and result.finished_at >= began:
                return True
    return False


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically: readers see the old text or the new, never a part.

    Raises:
        StoreError: The file cannot be written; the message has the folder and the system's reason.
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
        StoreError: The file cannot be read or is not a Record; the message says why.
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
    """Read every ``*.json`` of a folder in the order of names, except hidden files.

    Raises:
        StoreError: The folder cannot be listed.
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
