"""docs/fields.md, options.md and commands.md are what their script makes of the code and of conf/."""

from __future__ import annotations

import pytest

from tests.support.docs_scripts import DOCS, script

PAGES = script("reference.py").PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed.split() == PAGES[name]().split(), "run make docs"


def test_every_field_has_a_meaning() -> None:
    rows = [line for line in PAGES["fields.md"]().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []
