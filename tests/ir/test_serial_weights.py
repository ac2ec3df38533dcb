"""Torch weights in safetensors files: exactly what was written, small on disk, and no file of others is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from prunec.ir.arrays import as_torch
from prunec.ir.errors import ModelError
from prunec.ir.packing import Packing, Palette, Pattern
from prunec.ir.packing.description import KEY
from prunec.ir.serial_weights import Tensors, Written, read, written

from .test_packing import subjects

DTYPES = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16]
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def back(file: Written, tmp_path: Path) -> Tensors:
    (tmp_path / "w.safetensors").write_bytes(file.data)
    return read(tmp_path / "w.safetensors").tensors


def assert_same(found: Tensors, tensors: Tensors) -> None:
    """Bit by bit."""
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        words = WORDS.get(tensor.itemsize, tensor.dtype)
        assert torch.equal(found[name].contiguous().view(words), tensor.contiguous().view(words)), name


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_form_of_every_dtype(dtype: Any, tmp_path: Path) -> None:
    arrays, forms, packing = subjects(dtype)
    tensors = {name: as_torch(array) + 0.0 for name, array in arrays.items()}
    file = written(tensors, packing)
    assert file.forms == {form: list(forms.values()).count(form) for form in forms.values()} | {"dense": 1}
    rest = sum(t.nbytes for n, t in tensors.items() if n not in forms)
    assert len(file.data) - rest < 0.4 * (sum(t.nbytes for t in tensors.values()) - rest)
    assert_same(back(file, tmp_path), tensors)
    again = read(tmp_path / "w.safetensors").packing()
    assert again is not None
    assert written(tensors, again).data == file.data, "a file says how it may be packed again"


def test_indices_are_as_small_as_they_can_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few, pattern = rng.choice(rng.standard_normal(16), (64, 96)), Pattern(1, 4)
    tensors = {"few": as_torch(few), "nm": as_torch(np.where(pattern.best(np.abs(few)), rng.random((64, 96)), 0))}
    (tmp_path / "w.safetensors").write_bytes(written(tensors, Packing((pattern,))).data)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        sizes = {name: (file.get_tensor(name).dtype, file.get_tensor(name).nbytes) for name in file.keys()}  # noqa: SIM118
        told = json.loads(file.metadata()[KEY])
    assert sizes["few.codes"] == (torch.uint8, 64 * 96 // 2)
    assert sizes["nm.places"] == (torch.uint8, 64 * 96 // 4 // 4)
    assert sizes["nm.values"] == (torch.float64, 64 * 96 // 4 * 8)
    assert told["version"] == 1 and told["tensors"]["nm"]["pattern"] == [1, 4, 1]
    assert told["tensors"]["few"]["shape"] == [64, 96] and told["tensors"]["few"]["form"] == "palette"


def test_zeros_lose_their_sign_and_what_is_no_number_stays(tmp_path: Path) -> None:
    """Training with a mask leaves -0.0: were that kept, no trained weight would become smaller."""
    weight = torch.randn(64, 64) * (torch.rand(64, 64) < 0.1)
    assert (weight.view(torch.int32) == -(2**31)).any()
    odd = weight.clone()
    odd[0, 0] = torch.nan
    file = written({"weight": weight, "odd": odd, "few": torch.randn(64, 64).sign() * 0.0}, Packing())
    assert file.forms == {"bitmask": 1, "dense": 1, "palette": 1}
    found = back(file, tmp_path)
    assert_same(found, {"weight": weight + 0.0, "odd": odd, "few": torch.zeros(64, 64)})


def test_names_and_memory(tmp_path: Path) -> None:
    """Tied tensors are one, views are themselves, and an entry takes no other tensor's name."""
    few = torch.randn(4)[torch.randint(4, (64, 64))]
    whole = torch.randn(128, 64)
    tensors = {
        "a.weight": few, "b.weight": few, "half": whole[:64], "turned": whole.T, "flat": whole.view(-1), "whole": whole,
        "c": few.clone(), "c.codes": torch.ones(3), "small": few[0, :3], "count": torch.tensor(7), "empty": few[:0],
        "last": few.clone().expand(2, 64, 64).unsqueeze(3), "also_empty": few[:0], "flags": torch.ones(9000) > 0,
        "float8": torch.randn(9000).to(torch.float8_e4m3fn),
    }  # fmt: skip
    file = written(tensors, Packing())
    assert file.forms["palette"] == 2
    found = back(file, tmp_path)
    for name, tensor in tensors.items():
        assert found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float(), tensor.float()), name
    assert found["a.weight"] is found["b.weight"]


def test_without_a_packing_everything_is_dense(tmp_path: Path) -> None:
    tensors = {"few": torch.ones(64, 64)}
    file = written(tensors, None)
    assert file.forms == {"dense": 1} and len(file.data) > 64 * 64 * 4
    assert_same(back(file, tmp_path), tensors)
    assert read(tmp_path / "w.safetensors").packing() is None


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.sampled_from([(1, 2, 1), (2, 4, 1), (1, 4, 2), (3, 8, 4)]),
    st.sampled_from(["sparse", "nm", "few", "vectors", "scaled", "sparse_few", "nm_few", "dense"]),
    st.sampled_from(DTYPES),
    st.integers(0, 1000),
)
def test_any_shape(tmp_path_factory: Any, sizes: list[int], pattern: Any, kind: str, dtype: Any, seed: int) -> None:
    n, m, v = pattern
    rng = np.random.default_rng(seed)
    shape = (sizes[0] * 16 * v, *(k * m if at == 0 else k for at, k in enumerate(sizes[1:])))
    array = rng.standard_normal(shape)
    packing = Packing((Pattern(n, m, v),))
    if "few" in kind:
        array = rng.choice(rng.standard_normal(rng.integers(1, 40)), shape)
    if kind in ("vectors", "scaled"):
        scale = rng.random((shape[0], *[1] * (len(shape) - 1))).astype(np.promote_types(dtype, np.float32))
        chosen = rng.integers(0, 11, (v, array.size // 4 // v))
        table = rng.standard_normal((v, 11, 4)).astype(dtype)
        known = Palette.of(shape, chosen, table, scale if kind == "scaled" else None)
        array, packing = known.dense(), Packing((), (known,))
    if "sparse" in kind:
        array = array * (rng.random(shape) < 0.2)
    if "nm" in kind and packing.patterns[0].fits(shape):
        array = array * packing.patterns[0].best(np.abs(array))
    tensors = {"weight": as_torch(array.astype(dtype) + np.zeros(1, dtype))}
    file = written(tensors, packing)
    assert len(file.data) < tensors["weight"].nbytes + 300
    assert_same(back(file, tmp_path_factory.mktemp("w")), tensors)


# ---------------------------------------------------------------------- files of others

Change = Callable[[dict[str, Any], Tensors], Any]


@cache
def good() -> Written:
    """A file with every form."""
    rng = np.random.default_rng(0)
    few, pattern = rng.standard_normal(13), Pattern(1, 4, 2)
    dense = rng.standard_normal((16, 32, 3, 3)).astype(np.float32)
    known = Palette.of(
        (64, 128), rng.integers(0, 13, (4, 1024)), rng.standard_normal((4, 13, 2)).astype(np.float32),
        rng.random((64, 1)).astype(np.float32),
    )  # fmt: skip
    arrays = {
        "bits": dense * (rng.random(dense.shape) < 0.1),
        "nm": dense * pattern.best(np.abs(dense)),
        "few": rng.choice(few, (64, 128)).astype(np.float32),
        "known": known.dense(),
        "dense": dense,
    }
    tensors = {name: as_torch(array) for name, array in arrays.items()}
    return written({**tensors, "tied": tensors["dense"]}, Packing((pattern,), (known,)))


def changed(change: Change, tmp_path: Path) -> Path:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(good().data)
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()[KEY])
        entries = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    text = change(told, entries)
    save_file(entries, path, {KEY: text if isinstance(text, str) else json.dumps(told)})
    return path


def fact(name: str, key: str, value: Any) -> Change:
    return lambda told, entries: told["tensors"][name].update({key: value})


def entry(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda told, entries: entries.update({name: make(entries[name])})


HOSTILE: dict[str, tuple[Change, str]] = {
    "no JSON": (lambda told, entries: "{", "is no JSON"),
    "nested": (lambda told, entries: "[" * 100_000, "is no JSON"),
    "a list": (lambda told, entries: "[]", "does not describe tensors"),
    "no tensors": (lambda told, entries: told.update(tensors=3), "does not describe tensors"),
    "another version": (
        lambda told, entries: told.update(version=2),
        "version 2, this prunec reads 1",
    ),
    "another form": (fact("nm", "form", "zip"), "packed weight 'nm': it is in the form 'zip'"),
    "a form that is a list": (fact("nm", "form", ["nm"]), "it is in the form"),
    "no facts": (lambda told, entries: told["tensors"].update(nm=None), "it is not described"),
    "no entries": (fact("nm", "entries", None), "its entries, or whether it is transposed, are not said"),
    "half the entries": (fact("nm", "entries", ["places"]), "the array is missing"),
    "an entry too many": (
        lambda told, entries: told["tensors"].update(few={**told["tensors"]["few"], "entries": [*_scaled(entries)]}),
        "it has the entries",
    ),
    "an entry that is not told": (
        lambda told, entries: entries.update({"few.scale": torch.ones(64, 1)}),
        "the entry 'few.scale' is none of the packed weight 'few'",
    ),
    "a missing entry": (lambda told, entries: _without(entries, "few.codes"), "the entry 'codes' is missing"),
    "twice": (lambda told, entries: entries.update(few=torch.ones(3)), "the entry 'few' is none of the packed weight"),
    "shape of text": (fact("few", "shape", "64"), "shape is '64', not a list of counts"),
    "negative shape": (fact("few", "shape", [-64, -128]), "not a list of counts"),
    "shape of booleans": (fact("few", "shape", [True, 128]), "not a list of counts"),
    "a huge shape": (fact("few", "shape", [1 << 40, 128]), "'codes' has shape [4096]"),
    "a shape beyond counting": (fact("few", "shape", [1 << 70]), "not a list of counts"),
    "another shape of bits": (fact("bits", "shape", [16, 32, 3, 4]), "'mask' has shape"),
    "bits that are too many": (entry("bits.mask", lambda t: t | 128), "there are values of shape"),
    "a mask of floats": (entry("bits.mask", lambda t: t.float()), "'mask' is of float32, not of uint8"),
    "values of bytes": (entry("bits.values", lambda t: t.byte()), "the array is of uint8, not of float"),
    "values of integers": (entry("bits.values", lambda t: t.int()), "the entry 'values' is missing"),
    "no zero in front": (entry("bits.values", lambda t: t + 1), "is not zero"),
    "values in no form": (fact("bits", "values", {"form": "nm"}), "values are in the form 'nm'"),
    "values that are not described": (fact("bits", "values", 7), "values is not described"),
    "values of another shape": (entry("nm.values", lambda t: t[:-1]), "the array has shape"),
    "no pattern": (fact("nm", "pattern", [4, 4, 1]), "[4, 4, 1] is no pattern"),
    "half a pattern": (fact("nm", "pattern", [4]), "[4] is no pattern"),
    "a pattern of no rows": (fact("nm", "pattern", [1, 4, 0]), "[1, 4, 0] is no pattern"),
    "a pattern that does not divide": (fact("nm", "pattern", [1, 5, 1]), "the pattern 1:5 does not divide"),
    "another pattern": (fact("nm", "pattern", [2, 4, 2]), "'places' has shape"),
    "a pattern of other rows": (fact("nm", "pattern", [1, 4, 1]), "'places' has shape"),
    "places beyond the block": (lambda told, entries: told["tensors"].update(three=_three(entries)), "block of 3 that"),
    "an index beyond the table": (entry("few.codes", lambda t: t | 15), "index 15 of a table of 13"),
    "too few indices": (entry("few.codes", lambda t: t[:-1]), "'codes' has shape [4095], not [4096]"),
    "a table of nothing": (entry("few.table", lambda t: t[:, :0]), "is none for"),
    "a table of numbers": (entry("few.table", lambda t: t.flatten()), "is none for"),
    "a large table": (entry("few.table", lambda t: torch.ones(1, 257, 1)), "is none for"),
    "wide vectors": (entry("few.table", lambda t: torch.ones(1, 13, 512)), "is none for"),
    "vectors that do not divide": (entry("few.table", lambda t: torch.ones(1, 13, 3)), "cannot make a tensor of shape"),
    "other groups": (fact("known", "groups", [2]), "is none for 2 runs"),
    "no groups": (fact("known", "groups", [0]), "is none for [0] runs"),
    "groups of text": (fact("known", "groups", "4"), "not a list of counts"),
    "no scale": (fact("known", "scaled", False), "it has the entries"),
    "a scale that is not said": (fact("known", "scaled", None), "it is not said whether rows are scaled"),
    "a scale of another shape": (entry("known.scale", lambda t: t[:3]), "'scale' has shape [3, 1], not [64, 1]"),
    "a scale of another dtype": (entry("known.scale", lambda t: t.double()), "'scale' is of float64, not of float32"),
    "transposed images": (fact("nm", "transposed", True), "is said to be transposed"),
    "transposed perhaps": (fact("nm", "transposed", 1), "are not said"),
    "tied to nothing": (lambda told, entries: told["tied"].update(other="none"), "'other' is said to be 'none'"),
    "tied to a list": (lambda told, entries: told["tied"].update(other=[]), "'other' is said to be"),
    "tied over another": (lambda told, entries: told["tied"].update(few="nm"), "'few' is said to be 'nm'"),
}


def _three(entries: Tensors) -> dict[str, Any]:
    """A tensor in the pattern 1:3 whose places say 3."""
    entries["three.places"] = torch.full((12,), 255, dtype=torch.uint8)
    entries["three.values"] = torch.ones(16, 3, 1, 1)
    return {
        "form": "nm", "shape": [16, 9], "pattern": [1, 3, 1], "entries": ["places", "values"], "transposed": False,
        "values": {"form": "dense", "shape": [16, 3, 1, 1]},
    }  # fmt: skip


def _scaled(entries: Tensors) -> list[str]:
    """The entries of a palette, and a scale that it does not have."""
    entries["few.scale"] = torch.ones(64, 1)
    return ["codes", "table", "scale"]


def _without(entries: Tensors, name: str) -> None:
    del entries[name]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_contradicts_itself_is_refused(name: str, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    path = changed(change, tmp_path)
    with pytest.raises(ModelError) as caught:
        read(path)
    assert caught.value.message.startswith(f"reading {path}: ") and message in caught.value.message
    assert caught.value.hint


def test_the_file_that_is_not_changed_is_read(tmp_path: Path) -> None:
    found = read(changed(lambda told, entries: None, tmp_path))
    assert found.packed.keys() == {"bits", "nm", "few", "known"}
    assert found.tensors["tied"] is found.tensors["dense"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 50) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_lie_is_refused_or_harmless(tmp_path_factory: Any, data: Any) -> None:
    """One fact is another: the file is refused, or gives tensors all the same; nothing else is raised."""

    def lie(told: dict[str, Any], entries: Tensors) -> None:
        at: Any = told["tensors"][data.draw(st.sampled_from(sorted(told["tensors"])))]
        key = data.draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and data.draw(st.booleans()):
            at, key = at[key], data.draw(st.sampled_from(sorted(at[key])))
        at[key] = data.draw(JSON)

    path = changed(lie, tmp_path_factory.mktemp("lie"))
    with suppress(ModelError):
        assert read(path).tensors.keys() >= {"bits", "nm", "few", "known"}


@pytest.mark.parametrize("kind", ["absent", "empty", "text", "cut"])
def test_what_is_no_safetensors_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    data = {"empty": b"", "text": b"no weights at all", "cut": good().data[:-1]}
    if kind in data:
        path.write_bytes(data[kind])
    with pytest.raises(ModelError) as caught:
        read(path)
    what = "there is no such file" if kind == "absent" else "it is no safetensors file"
    assert caught.value.message.startswith(f"reading {path}: {what}") and "prunec.pack" in caught.value.hint
