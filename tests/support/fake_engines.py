"""Engines whose speed and moods a test decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.deploy.engine import Audit, Batch, Info, check_names
from qexp.errors import DeployError


@dataclass
class FakeEngine:
    """Notes its batches; refuses those with more than ``most`` tokens in all."""

    most: int = 10**9
    inputs: tuple[str, ...] = ("input_ids",)
    info: Info = field(default_factory=lambda: Info("fake", "1", "none", "int8", 1, 0.0))
    seen: list[tuple[int, ...]] = field(default_factory=list)
    tick: Callable[[], Any] = lambda: None

    def run(self, batch: Batch) -> NDArray[np.float32]:
        check_names(self.inputs, batch)
        shape = batch["input_ids"].shape
        if np.prod(shape) > self.most:
            raise DeployError(f"{shape}: too large\nsecond line")
        self.seen.append(shape)
        self.tick()
        return np.zeros((shape[0], 2), np.float32)

    def audit(self, batch: Batch) -> Audit | None:
        return None
