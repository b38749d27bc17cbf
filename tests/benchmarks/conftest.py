"""Benchmarks on tiny shapes: one thread, short tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks import floors


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, rates from a few tries, and the threads of before at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(floors, "TRY_SECONDS", 0.004)
    monkeypatch.setattr(floors, "LARGE", 1 << 20)
    yield
    torch.set_num_threads(before)
