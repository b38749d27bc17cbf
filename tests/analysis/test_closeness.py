"""Tests of the measures of closeness: which differences count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qexp.analysis.closeness import Closeness, closeness

SHAPE = (8, 50, 128)


@pytest.fixture
def torch() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_the_same_and_the_nearly_same_agree(torch: np.ndarray[Any, Any]) -> None:
    assert closeness(torch, torch) == Closeness(0.0, 0.0)
    assert not closeness(torch * np.float32(1 + 1e-5), torch).diverges


def test_rare_ties_agree(torch: np.ndarray[Any, Any]) -> None:
    ours = torch.copy()
    ours[2, :, 3] += 0.1  # a value that was rounded the other way, in all queries of a row
    ours[5, 7] += 0.1  # an input of a product, in all channels of a token
    assert not closeness(ours, torch).diverges


def test_one_channel_is_seen_at_its_own_size(torch: np.ndarray[Any, Any]) -> None:
    torch[..., 3] *= 0.1
    ours = torch.copy()
    ours[..., 3] *= 1.01
    result = closeness(ours, torch)
    assert result.diverges
    assert result.typical == pytest.approx(0.0067, rel=0.1)  # the median of |x| of a normal distribution
    assert str(result) == f"{result.typical:.2g}"


def test_a_channel_of_nearly_nothing_is_held_against_the_others(torch: np.ndarray[Any, Any]) -> None:
    torch[..., 3] = 0
    ours = torch.copy()
    ours[..., 3] = 1e-6
    assert closeness(ours, torch).typical == pytest.approx(1e-5, rel=0.05)


def test_one_position_is_seen(torch: np.ndarray[Any, Any]) -> None:
    ours = torch.copy()
    ours[:, 0] = 0
    result = closeness(ours, torch)
    assert result.typical == 0.0
    assert result.diverges
    assert str(result) == "more than 0.05 in 1.9 % of its values"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_departs(torch: np.ndarray[Any, Any], value: float) -> None:
    ours = torch.copy()
    ours[0, 0, 0] = value
    assert closeness(ours, torch) == Closeness(float("inf"), 1.0)
    assert closeness(torch, ours).diverges


def test_another_shape_departs(torch: np.ndarray[Any, Any]) -> None:
    assert closeness(torch[:, :-1], torch).diverges


def test_zeros_agree_with_zeros_alone() -> None:
    zeros = np.zeros((4, 3), np.float32)
    assert not closeness(zeros, zeros).diverges
    assert closeness(zeros + 1e-9, zeros).diverges
