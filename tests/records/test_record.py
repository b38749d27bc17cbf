"""Records: round trip, rejection of NaN, atomic writes, and unreadable files."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.errors import StoreError
from qexp.records import record as records
from qexp.records.checks import FORM
from qexp.records.record import (
    Record,
    UnreadableRecord,
    delete_superseded_failure,
    outputs_root,
    read,
    read_all,
    write,
)
from tests.support.record_factory import deployed, experiment, failed, record

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    tree=st.dictionaries(st.text(), JSON, max_size=4),
    scores=st.dictionaries(st.text(), st.dictionaries(st.text(), st.none() | FINITE, max_size=3), max_size=3),
    warnings=st.lists(st.text(), max_size=3),
)
@settings(deadline=None, max_examples=80)
def test_every_digit_comes_back(tree: dict[str, Any], scores: dict[str, Any], warnings: list[str]) -> None:
    before = replace(record(), experiment=tree, scores=scores, warnings=warnings)
    after = Record.from_json(before.to_json())
    assert after == before
    assert repr(after.scores) == repr(before.scores)  # == takes -0.0 for 0.0


def test_whole_records_come_back_from_disk(tmp_path: Path) -> None:
    for before in (record(), deployed(experiment()), failed(experiment(seed=2))):
        assert read(write(before, tmp_path)) == before


def test_undecodable_bytes_of_a_message_come_back(tmp_path: Path) -> None:
    before = failed(experiment(), message="no file \udcff.bin")
    assert read(write(before, tmp_path)) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_never_written(tmp_path: Path, value: float) -> None:
    broken = record(scores={"fp32": {"f1": 1.0}, "qat": {"f1": value}})
    with pytest.raises(StoreError, match=r"scores\.qat\.f1 is -?(nan|inf).*write null"):
        write(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_the_same_key_is_replaced(tmp_path: Path) -> None:
    write(failed(experiment(), key="k"), tmp_path)
    path = write(record(key="k"), tmp_path)
    assert path == tmp_path / "k.json"
    assert read(path).status == "ok"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "a\n"])
def test_a_key_that_cannot_name_a_file_is_a_mistake(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        write(record(key=key), tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_record_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old = record(key="k")
    write(old, tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(records.os, step, refuse)
        with pytest.raises(StoreError) as caught:
            write(failed(experiment(), key="k"), tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]
    assert read(tmp_path / "k.json") == old


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"records: Not a directory"):
        write(record(), tmp_path / "file" / "records")


def test_others_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        mode = write(record(), tmp_path).stat().st_mode
    finally:
        os.umask(before)
    assert stat.S_IMODE(mode) == 0o644


@given(cut=st.integers(min_value=0, max_value=len(record().to_json()) - 3))
@settings(deadline=None, max_examples=40)
def test_a_text_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(StoreError, match="not complete JSON"):
        Record.from_json(record().to_json()[:cut])


def changed(**values: object) -> str:
    return json.dumps({**json.loads(deployed(experiment()).to_json()), **values})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "expected a JSON object, found list"),
        ("{}", "without key, status, experiment, started, finished"),
        ("[" * 100_000, "not complete JSON"),
        (changed().replace("12.0", "NaN"), "NaN is not a JSON number"),
        (changed(status="done"), 'status must be ok or failed, found "done"'),
        (changed(experiment=[1]), "experiment must be an object"),
        (changed(finished="yesterday"), "finished must be an ISO 8601 time"),
        (changed(scores={"fp32": 3}), "scores must be numbers or null by stage and metric"),
        (changed(scores={"fp32": {"f1": "good"}}), "scores must be numbers"),
        (changed(scores={"fp32": {"f1": True}}), "scores must be numbers"),
        (changed().replace("12.0", "1e999"), "latency must be"),
        (changed(parity={"agreement": 1.0}), "parity must be"),
        (changed(latency={"fp32": {"1": 3.0}}), "latency must be"),
        (changed(error={"type": 1}), "error must be"),
        (changed(data={"rows": {}}), "data must be"),
        (changed(outliers={"x": {"size": 384}}), "outliers must be"),
    ],
)
def test_foreign_files_are_named_with_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(StoreError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_form_covers_every_field() -> None:
    assert set(FORM) == {each.name for each in fields(Record)}


def test_records_of_other_days_are_readable() -> None:
    old = {name: json.loads(record().to_json())[name] for name in ("key", "status", "started", "finished")}
    old["experiment"] = {"task": {"name": "mrpc"}, "bits": 8}
    assert Record.from_json(json.dumps(old)).experiment == old["experiment"]
    assert Record.from_json(json.dumps(old)).outliers is None
    assert Record.from_json(json.dumps({**old, "field_of_tomorrow": 1})).scores == {}


def test_finish_times_compare_across_zones() -> None:
    early = record(finished="2026-03-01T10:00:00+02:00").finished_at
    assert (
        early
        < record(finished="2026-03-01T09:00:00").finished_at
        < record(finished="2026-03-01T09:00:01Z").finished_at
    )


def test_read_all_reads_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    good = [record(experiment(seed=seed), key=f"{seed}") for seed in (1, 2)]
    for each in good:
        write(each, tmp_path)
    (tmp_path / "3.json").write_text(good[0].to_json()[:100])
    (tmp_path / "4.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "5.json").mkdir()
    (tmp_path / ".1.json.abc.tmp").write_text("half")
    (tmp_path / "._1.json").write_bytes(b"\x00")
    (tmp_path / "notes.txt").write_text("mine")
    found, unreadable = read_all(tmp_path)
    assert found == good
    assert [each.path.name for each in unreadable] == ["3.json", "4.json", "5.json"]
    assert unreadable[1:] == [
        UnreadableRecord(tmp_path / "4.json", "not UTF-8 text"),
        UnreadableRecord(tmp_path / "5.json", "Is a directory"),
    ]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere: No such file or directory"):
        read_all(tmp_path / "nowhere")


def test_thousands_are_read(tmp_path: Path) -> None:
    text = deployed(experiment()).to_json()
    for number in range(2000):
        (tmp_path / f"{number}.json").write_text(text)
    start = time.perf_counter()
    found, unreadable = read_all(tmp_path)
    assert (len(found), unreadable) == (2000, [])
    assert time.perf_counter() - start < 10  # 0.4 s measured; a busy machine is no failure


def test_reading_needs_no_heavy_import() -> None:
    code = (
        "import sys, qexp.records.record, qexp.cli.report\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'transformers', 'datasets', 'matplotlib', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_outputs_are_the_variable_or_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QEXP_OUTPUTS", raising=False)
    assert outputs_root() == tmp_path / "outputs"
    monkeypatch.setenv("QEXP_OUTPUTS", "")
    assert outputs_root() == tmp_path / "outputs"
    monkeypatch.setenv("QEXP_OUTPUTS", "elsewhere")
    assert outputs_root() == tmp_path / "elsewhere"


def test_a_failure_made_good_goes_and_a_result_stays(tmp_path: Path) -> None:
    write(failed(experiment(), key="early"), tmp_path)
    write(record(experiment(), key="result"), tmp_path)
    for key in ("early", "result", "absent"):
        delete_superseded_failure(key, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
