"""docs/images/frontier.svg is what its script makes of the measured numbers beside it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

from tests.support.docs_scripts import DOCS, script

IMAGES = DOCS / "images"


def test_the_picture_is_that_of_its_numbers() -> None:
    data = json.loads((IMAGES / "frontier.json").read_text(encoding="utf-8"))
    drawn = script("images/frontier.py").draw(data)
    assert (IMAGES / "frontier.svg").read_text(encoding="utf-8") == drawn
    marks = [each for each in ET.fromstring(drawn).iter() if each.tag.endswith("circle") and len(each)]
    in_both_plots = [point for point in data["points"] if point["runtime"] == "onnxruntime"]
    assert len(marks) == len(data["points"]) + len(in_both_plots)
