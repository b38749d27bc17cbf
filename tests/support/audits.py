"""Sizes of the graph whose audit is tested."""

from __future__ import annotations

ROWS, TOKENS = 3, 5


WIDTH, INNER, OUTPUTS = 32, 64, 3


LINEARS = 4 * WIDTH * WIDTH + 2 * WIDTH * INNER
"""Multiply-accumulates of one token in the one layer of the tiny encoder."""


ATTENTION = ROWS * TOKENS * TOKENS * 2 * WIDTH


HEAD = ROWS * (WIDTH * WIDTH + WIDTH * OUTPUTS)


TOTAL = ROWS * TOKENS * LINEARS + ATTENTION + HEAD
