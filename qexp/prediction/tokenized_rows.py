"""Tokenized rows of an input, with what computes their logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qexp.artifacts.types import Tokens
from qexp.data.batches import ArrayForwardFn

if TYPE_CHECKING:
    from qexp.tasks.base import Array, ForwardFn

Move = Callable[..., None]
Columns = dict[str, Any]
"""Columns by name, a value per row; predictions are null where a logit is not finite."""
BROKEN = "broken"
"""Name of the count of rows, or windows, with logits that are not finite."""


@dataclass(frozen=True)
class TokenizedRows:
    """Tokenized rows and the settings to predict them with."""

    tokens: Tokens
    split: str
    run: ForwardFn
    batch_size: int
    advance: Move
    facts: Counter[str]
    """Counter to which :data:`BROKEN` rows are added."""
    of_run: Tokens
    """Tokens of the run's own rows, or the folder of a published model, which has none."""
    embedded: dict[str, Array]
    """Vectors of the run's corpus by its name, once they are computed; shared by all parts of an input."""
    engine: ArrayForwardFn | None = None
    """Engine that takes the place of ``run`` and needs no torch; None without one."""
