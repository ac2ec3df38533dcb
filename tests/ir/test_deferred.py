"""Mapped arrays: what is made of them equals what is made in memory, and is not held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.ir import arrays
from prunec.ir.deferred import Deferred, forget, is_deferrable
from prunec.ir.errors import ModelError

ROWS = np.array([0, 3, 4, 60], np.int64)
COLUMNS = np.arange(0, 96, 3)


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap:
    np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32).tofile(tmp_path / "data")
    return np.memmap(tmp_path / "data", np.float32, "r", 0, (64, 96))


@pytest.mark.parametrize("kept", [(ROWS, None), (None, COLUMNS), (ROWS, COLUMNS)])
def test_slices_and_masks_are_those_of_an_array_in_memory(mapped: np.memmap, kept: tuple[Any, ...]) -> None:
    held = np.array(mapped)
    for change in (arrays.keep, arrays.masked):
        found, expected = change(mapped, kept), change(held, kept)
        assert isinstance(found, Deferred)
        assert (found.shape, found.dtype, found.nbytes) == (expected.shape, expected.dtype, expected.nbytes)
        np.testing.assert_array_equal(np.asarray(found), expected)
        np.testing.assert_array_equal(np.asarray(found), expected)  # each time anew
    np.testing.assert_array_equal(mapped, held)


def test_changes_of_changes(mapped: np.memmap) -> None:
    half = arrays.keep(mapped, (np.arange(50), None))
    found = arrays.changed(arrays.masked(half, (None, COLUMNS)), lambda held: held * 2)
    expected = 2 * np.array(mapped)[:50]
    expected[:, np.setdiff1d(np.arange(96), COLUMNS)] = 0
    np.testing.assert_array_equal(np.asarray(found), expected)
    assert found.dtype == np.float32


def test_what_is_whole_is_the_same_object_and_what_is_small_is_made_at_once(mapped: np.memmap) -> None:
    assert arrays.keep(mapped, (None, None)) is mapped
    assert arrays.masked(mapped, (None, None)) is mapped
    assert is_deferrable(mapped)
    assert not is_deferrable(mapped[:4])
    assert not isinstance(arrays.keep(mapped[:4], (None, COLUMNS)), Deferred)


def test_what_is_forgotten_can_be_read_again(mapped: np.memmap) -> None:
    before = np.array(mapped)
    forget(mapped)
    forget(before)
    np.testing.assert_array_equal(mapped, before)
    private = np.memmap(str(mapped.filename), np.float32, "c", 0, mapped.shape)
    private[:] = 1
    forget(private)
    assert (private == 1).all()


def test_blocks_are_the_rows_in_order(monkeypatch: pytest.MonkeyPatch, mapped: np.memmap) -> None:
    monkeypatch.setattr(arrays, "_BLOCK", 96 * 10)
    tensor = torch.from_numpy(np.array(mapped))
    for data in (mapped, np.array(mapped), tensor, arrays.keep(mapped, (np.arange(64), None))):
        found = list(arrays.blocks(data))
        assert [start for start, _ in found] == [0, 10, 20, 30, 40, 50, 60]
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in found]), np.asarray(data))
    assert [rows.shape for _, rows in arrays.blocks(np.zeros((0, 3)))] == [(0, 3)]
    assert [rows.shape for _, rows in arrays.blocks(np.float32(3))] == [()]


def test_extremes_and_finiteness_look_at_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK", 4)
    data = np.arange(24.0).reshape(6, 4)
    assert arrays.extremes(data) == (0, 23)
    assert arrays.is_finite(data)
    data[5, 3] = np.nan
    assert not arrays.is_finite(data)


def test_a_tensor_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match=r"weights are on the meta device: one of shape \[2, 3\]"):
        arrays.to_numpy(torch.zeros(2, 3, device="meta"))
