"""docs/extending.md changes lines that are in the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"`((?:qexp|conf|tests)/[\w/.]+)`[^`]*?```diff\n(.*?)```", re.DOTALL)


def test_every_diff_applies_to_the_file_that_it_names() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    for path, diff in blocks:
        code = (ROOT / path).read_text(encoding="utf-8").splitlines()
        starts = "\n".join(line.strip() for line in code)
        for line in diff.splitlines():
            if line[:1] in "- " and line[1:].strip():
                assert f"\n{line[1:].strip()}" in starts, f"{path}: {line[1:].strip()}"
