"""docs/images/pipeline.svg is what its script makes of the code."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def _script() -> Any:
    spec = spec_from_file_location("pipeline_picture", IMAGES / "pipeline.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_the_stages_as_they_are() -> None:
    assert (IMAGES / "pipeline.svg").read_text(encoding="utf-8") == _script().picture()
