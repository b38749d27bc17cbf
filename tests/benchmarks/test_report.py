"""The benchmark of the report runs on few Records and files its figures."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import report
from qexp.records.record import read_all, records_folder


def test_report(tmp_path: Path) -> None:
    words = ["--records", "60", "--curve", "20", "--ranges", "5", "--rounds", "1", "--json"]
    report.main([*words, str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert list(found["seconds"]) == ["read", "markdown", "csv"]
    assert found["settings"]["bytes"] > 60 * 1000


def test_its_records_are_records(tmp_path: Path) -> None:
    report.fill(records_folder(tmp_path), 60, curve=20, ranges=5)
    records, unreadable = read_all(records_folder(tmp_path))
    assert (len(records), unreadable) == (60, [])
    assert {record.status for record in records} == {"ok", "failed"}
    assert max(len(of_stage) for record in records for of_stage in record.ranges.values()) == 5
