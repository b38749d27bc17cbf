"""Costs of a run by graph."""

from __future__ import annotations

import pytest

from qexp.reporting.costs import costs_of, session_numbers
from qexp.reporting.run_view import Quantity, RunView
from tests.support.record_factory import deployed, experiment

SESSION = {"memory_bytes": 2**20, "load_seconds": 0.5}


def test_memory_and_load_time_of_a_run_are_those_of_its_first_runtime() -> None:
    engines = {
        "openvino/int8": {"session": {"memory_bytes": 1, "load_seconds": 1.0}},
        "onnxruntime/int8": {"session": SESSION},
        "onnxruntime/fp32": {"session": {**SESSION, "memory_bytes": None, "reason": "no /proc"}},
    }
    measured = RunView(deployed(experiment(), engines=engines)).measured
    found = {name: value for name, value in measured.items() if name.name in ("memory", "load_time")}
    assert found == {
        Quantity("memory", "int8"): 2**20, Quantity("load_time", "int8"): 0.5,
        Quantity("load_time", "fp32"): 0.5,
    }  # fmt: skip
    assert [name.unit for name in found] == ["s", "bytes", "s"]


NOT_MEASURED = {"session": {"memory_bytes": None, "load_seconds": None, "reason": "x"}}


@pytest.mark.parametrize("found", [{}, NOT_MEASURED])
def test_an_engine_without_them_has_no_numbers(found: dict[str, object]) -> None:
    assert session_numbers(found) == {}
    engines = {"onnxruntime/int8": found}
    names = {names[0] for names, _ in costs_of(deployed(experiment(), engines=engines), "onnxruntime")}
    assert names == {"size", "latency"}
