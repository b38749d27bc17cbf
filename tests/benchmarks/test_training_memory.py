"""Each variant takes its steps on the smallest shape and tells its memory and time."""

from __future__ import annotations

import json

import pytest

from benchmarks.training_memory import VARIANTS, main

SMALL = ("--model", "tiny", "--lengths", "16", "--batch", "2", "--steps", "2", "--threads", "1", "--no-peers")


@pytest.mark.parametrize("variant", [each for each in VARIANTS if each != "qat: modelopt"])
def test_a_variant_is_measured_in_its_process(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--only", variant, *SMALL])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["seconds"] > 0
    assert found["mib"] >= 0
