"""The pack: each tensor once, beginnings of others not at all, nothing that is there ever moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.ir.errors import ModelError
from prunec.runtime.pack import PAGE, Pack, Place


def packed(path: Path, *tensors: bytes, pack: Pack | None = None) -> tuple[Pack, list[str]]:
    with (pack or Pack(path, {})).writing() as writing:
        names = [writing.add(t) for t in tensors]
        return writing.pack, names


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    pack, names = packed(tmp_path / "p", b"abc" * 100, bytes(5000))
    assert [pack.read(n) for n in names] == [b"abc" * 100, bytes(5000)]
    pack.check()


def test_the_same_tensor_is_stored_once(tmp_path: Path) -> None:
    pack, names = packed(tmp_path / "p", b"abc" * 100, b"x" * 50, b"abc" * 100)
    assert names[0] == names[2] and len(pack.places) == 2


def test_the_beginning_of_a_tensor_is_not_stored_again(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).bytes(10_000)
    pack, names = packed(tmp_path / "p", whole, whole[:6000], whole[:100], whole[1:3000])
    assert pack.places[names[1]] == Place(pack.places[names[0]].offset, 6000)
    assert pack.places[names[2]].offset == pack.places[names[0]].offset
    assert pack.places[names[3]].offset != pack.places[names[0]].offset  # from the middle: not a beginning
    assert [pack.read(n) for n in names] == [whole, whole[:6000], whole[:100], whole[1:3000]]
    assert (tmp_path / "p").stat().st_size < 10_000 + 3000 + 2 * PAGE


def test_large_tensors_start_on_pages(tmp_path: Path) -> None:
    pack, names = packed(tmp_path / "p", b"a" * 10, b"b" * (PAGE + 1), b"c" * 10, b"d" * (PAGE + 1))
    assert [pack.places[n].offset % PAGE == 0 for n in names] == [True, True, False, True]


def test_what_a_process_left_in_the_middle_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "p"
    pack, (first,) = packed(path, b"first" * 300)
    packed(path, b"lost" * 5000, pack=pack)  # its index was never kept
    again, (second,) = packed(path, b"second" * 400, pack=pack)
    assert again.read(first) == b"first" * 300 and again.read(second) == b"second" * 400
    assert again.places[first] == pack.places[first]


@pytest.mark.parametrize("at", [0, 777, -1])
def test_a_flipped_byte_is_found(tmp_path: Path, at: int) -> None:
    path = tmp_path / "p"
    pack, names = packed(path, np.random.default_rng(0).bytes(3000))
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not those that were stored"):
        pack.check()
    with pytest.raises(ModelError, match="not those that were stored"):
        pack.read(names[0])


def test_a_pack_that_is_cut_off_is_found(tmp_path: Path) -> None:
    path = tmp_path / "p"
    pack, _ = packed(path, bytes(9000))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="shorter than its index"):
        pack.check()
    path.unlink()
    with pytest.raises(ModelError, match="cannot read"):
        pack.check()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9000)), max_size=12), st.integers(0, 12))
def test_any_tensors_come_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int]], cut: int
) -> None:
    """Beginnings of four streams in any order, in two goes."""
    path = tmp_path_factory.mktemp("pack") / "p"
    streams = [np.random.default_rng(k).bytes(9000) for k in range(3)] + [bytes(9000)]
    tensors = [streams[k][:n] for k, n in drawn]
    first, names = packed(path, *tensors[:cut])
    second, more = packed(path, *tensors[cut:], pack=first)
    assert [second.read(n) for n in [*names, *more]] == tensors
    second.check()
    assert all(second.places[n] == first.places[n] for n in names)
