"""docs/images/pipeline.svg is what its script makes of the code."""

from __future__ import annotations

from tests.support.docs_scripts import DOCS, script


def test_the_picture_shows_the_stages_as_they_are() -> None:
    drawn = script("images/pipeline.py").picture()
    assert (DOCS / "images" / "pipeline.svg").read_text(encoding="utf-8") == drawn
