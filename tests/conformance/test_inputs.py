"""The golden files are of the values that are drawn today, and of the versions that are pinned."""

from __future__ import annotations

import pytest

from tests.conformance import inputs
from tests.conformance.environments import PROGRAMS, requirements
from tests.conformance.golden_files import FOLDER, golden


@pytest.mark.parametrize("program", PROGRAMS)
def test_inputs_are_those_of_the_golden_file(program: str) -> None:
    drawn = {name: inputs.check_sum(values) for name, values in inputs.tensors().items()}
    assert golden(program)["inputs"] == drawn


@pytest.mark.parametrize("program", PROGRAMS)
def test_versions_are_the_pinned_ones(program: str) -> None:
    lines = [line for file in requirements(program) for line in file.read_text("utf-8").splitlines()]
    pins = dict(line.split("==") for line in lines if "==" in line)
    versions = golden(program)["packages"]
    assert {name: version.partition("+")[0] for name, version in versions.items()} == {
        name: pins[name] for name in versions
    }


def test_golden_files_stay_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 300_000
