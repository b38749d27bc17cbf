"""Messages that docs/troubleshooting.md quotes are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.docs_scripts import DOCS

MESSAGE = re.compile(r"^\| `([^`]+)` \| .+ \| .+ \|$", re.MULTILINE)
QUOTED = MESSAGE.findall((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))


def _texts() -> Iterator[str]:
    """Yield the text of every literal of the code but docstrings; what it computes is an ellipsis."""
    for file in (DOCS.parent / "qexp").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in alone:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                )


TEXTS = sorted({*_texts()}, key=len)


def test_it_quotes_enough_messages() -> None:
    assert len({*QUOTED}) == len(QUOTED) >= 50


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_code(message: str) -> None:
    pieces = [re.escape(piece.strip()) for piece in message.split("…") if piece.strip(" ,;:.")]
    wanted = re.compile(".*".join(pieces), re.DOTALL)
    assert any(wanted.search(text) for text in TEXTS), f"no message of the code has: {message}"
