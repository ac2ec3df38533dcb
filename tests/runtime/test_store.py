"""Portfolios on disk: variants come and go, each change is whole, and what is damaged is found."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import prunec
from prunec.ir.errors import EnvironmentProblem, ModelError, UsageError, VerificationError
from prunec.runtime import prepare, store
from prunec.runtime.manifest import MANIFEST, Manifest
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.session import Session
from prunec.runtime.store import Entry, damage, whole, writing

from .onnx_models import layers, linear
from .portfolios import answers, entries, made, models, nested, question


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = made(tmp_path / "pf")
    assert Manifest.read(tmp_path / "pf") == manifest
    assert list(manifest.variants) == ["large", "middle", "small"] and manifest.name == "pf"
    assert manifest["small"].accuracy == 0.6 and manifest["small"].facts == {"width": 48}


def test_the_stored_model_is_the_one_that_was_given(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    for name, model in models().items():
        found = whole(manifest, name)
        onnx.checker.check_model(found, full_check=True)
        given = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert all(np.array_equal(numpy_helper.to_array(t), given[t.name]) for t in found.graph.initializer)


def test_the_files_run_in_onnxruntime_alone(tmp_path: Path) -> None:
    """A stored variant is an ordinary ONNX file with external data."""
    manifest, feeds = made(tmp_path), question()
    for name, wanted in answers(feeds).items():
        found = Session(tmp_path / manifest[name].stored.file).run(feeds)["y"]
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_nested_variants_share_their_tensors(tmp_path: Path) -> None:
    found = nested(512, 256, 64)
    with writing(tmp_path) as opened:
        opened.add([Entry(name, model) for name, model in found.items()])
        manifest = opened.commit()
    places = manifest.pack.places
    first = {n: min(places[t].offset for t in v.stored.tensors) for n, v in manifest.variants.items()}
    assert first["w512"] == first["w256"] == first["w64"]  # the weight of the first layer, longer and shorter
    alone = sum(m.ByteSize() for m in found.values())
    assert manifest.pack.end < 0.85 * alone


def test_an_unlike_variant_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    with writing(tmp_path) as opened, pytest.raises(UsageError, match=r"variant other has x float32\[batch x 8\]"):
        opened.add([Entry("other", layers(8, 32, 4))])


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "a b"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with writing(tmp_path) as opened, pytest.raises(UsageError, match="cannot be the name"):
        opened.add([Entry(name, layers(16, 48, 4))])


def test_a_variant_is_replaced_and_removed(tmp_path: Path) -> None:
    made(tmp_path)
    with writing(tmp_path) as opened:
        opened.add([Entry("small", layers(16, 64, 64, 4), 0.7)])
        opened.remove("middle")
        manifest = opened.commit()
    assert list(manifest.variants) == ["large", "small"] and manifest["small"].accuracy == 0.7
    there = {p.name for p in tmp_path.glob("*.onnx")}
    assert there == {s.file for v in manifest.variants.values() for s in v.files}
    with writing(tmp_path) as opened:
        opened.remove("small")
        with pytest.raises(UsageError, match="last variant"):
            opened.remove("large")
        with pytest.raises(UsageError, match="no variant 'none'"):
            opened.remove("none")


def test_repacking_frees_what_nobody_needs(tmp_path: Path) -> None:
    before = made(tmp_path)
    with writing(tmp_path) as opened:
        opened.remove("large")
        opened.commit()
    with writing(tmp_path) as opened:
        opened.repack()
        after = opened.commit()
    assert after.pack.path.name == "pack-2.bin" and not before.pack.path.exists()
    assert after.pack.end < 0.5 * before.pack.end
    assert damage(tmp_path) == []
    feeds = question()
    portfolio = Portfolio.open(tmp_path)
    for name in ("middle", "small"):
        np.testing.assert_allclose(portfolio.run(feeds, variant=name)["y"], answers(feeds)[name], atol=1e-3)


def test_repacking_puts_beginnings_into_what_is_longer(tmp_path: Path) -> None:
    with writing(tmp_path) as opened:
        for name, model in reversed(nested(512, 64).items()):  # the short one first: it cannot be shared yet
            opened.add([Entry(name, model)])
        before = opened.commit()
    with writing(tmp_path) as opened:
        opened.repack()
        after = opened.commit()
    assert after.pack.end < before.pack.end and damage(tmp_path) == []


def test_models_for_other_machines_are_dropped_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    monkeypatch.setattr(store, "machine", lambda: "another-0123456789")
    with writing(tmp_path) as opened:
        opened.prepare()
        assert len(opened.commit()["large"].prepared) == 2
    monkeypatch.undo()
    with writing(tmp_path) as opened:
        opened.repack()
        assert len(opened.commit()["large"].prepared) == 2
    with writing(tmp_path) as opened:
        opened.repack(others=False)
        assert list(opened.commit()["large"].prepared) == [prepare.machine()]


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.*[nj][xs]*")}
    with pytest.raises(KeyboardInterrupt):
        _broken_off(tmp_path, [Entry("new", layers(16, 99, 4))])
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*[nj][xs]*")} == before
    assert damage(tmp_path) == [] and "new" not in Manifest.read(tmp_path).variants


def _broken_off(folder: Path, added: list[Entry], *, tidies: bool = True) -> None:
    """Begin to add variants; ``tidies=False``: and be gone at once."""
    with writing(folder) as opened:
        opened.add(added)
        if not tidies:
            opened._new.clear()
        raise KeyboardInterrupt


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Also those that have names like ours; what a change of ours left is taken away."""
    theirs = ["notes.onnx", "pack-7.bin", "pack-1.bin.txt", "mine-0123456789ab.onnx", ".p.svg.0123456789ab.tmp"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    left = f"old-{hashlib.sha256(b'left').hexdigest()[:12]}.onnx"
    (tmp_path / left).write_bytes(b"left")
    (tmp_path / ".manifest.json.0123456789ab.tmp").write_text("left")
    made(tmp_path)
    there = {p.name for p in tmp_path.iterdir()}
    assert set(theirs) <= there
    assert not {left, ".manifest.json.0123456789ab.tmp"} & there


def test_an_interrupt_after_the_manifest_stands_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Manifest.write

    def interrupted(self: Manifest, folder: Path) -> None:
        writes(self, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(Manifest, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path)
    assert damage(tmp_path) == [] and len(Portfolio.open(tmp_path).variants) == 3


def test_a_change_that_fails_gives_its_bytes_back(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _broken_off(tmp_path, [Entry("new", layers(16, 999, 4))])
    assert manifest.pack.path.stat().st_size == manifest.pack.end


@pytest.mark.parametrize("name", ["pack-1.bin", "large"])
def test_a_link_is_not_followed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a portfolio writes nowhere, and has nothing read, outside of it."""
    manifest = made(tmp_path / "pf")
    stored = tmp_path / "pf" / (name if name.endswith("bin") else manifest[name].stored.file)
    outside = tmp_path / "outside"
    stored.rename(outside)
    stored.symlink_to(outside)
    before = outside.read_bytes()
    for place in ("prepare", "store", "portfolio"):
        monkeypatch.setattr(f"prunec.runtime.{place}.machine", lambda: "another-0123456789")
    with pytest.raises((ModelError, EnvironmentProblem)):
        Portfolio.open(tmp_path / "pf")
    assert outside.read_bytes() == before


def test_a_lock_that_is_none(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot lock"), writing(tmp_path):
        pass


def test_an_accuracy_that_is_no_number(tmp_path: Path) -> None:
    with writing(tmp_path) as opened, pytest.raises(UsageError, match="accuracy of large cannot be nan"):
        opened.add([Entry("large", layers(16, 32, 4), float("nan"))])


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    monkeypatch.setattr(store, "_LOCK_S", 0.05)
    with writing(tmp_path), pytest.raises(EnvironmentProblem, match="another process is changing"), writing(tmp_path):
        pass


def test_a_prepared_model_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that what ONNX Runtime writes is the model can fail."""
    loads = onnx.load_model

    def wrong(path: str, *args: object, **options: object) -> onnx.ModelProto:
        model: onnx.ModelProto = loads(path)
        if path.endswith("prepared.onnx"):
            tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
            tensor.raw_data = bytes(len(tensor.raw_data))
        return model

    monkeypatch.setattr(onnx, "load_model", wrong)
    with writing(tmp_path) as opened, pytest.raises(VerificationError, match="optimised model is off"):
        opened.add(entries())


# ---------------------------------------------------------------------- damage


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_flipped_byte_is_found_anywhere(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    places = sorted({(p.offset, p.length) for p in manifest.pack.places.values()})
    for offset, length in places:
        for at in (offset, offset + length - 1):
            flip(manifest.pack.path, at)
            assert damage(tmp_path), at
            flip(manifest.pack.path, at)
    for name in sorted(manifest.files - {manifest.pack.path.name}):
        flip(tmp_path / name, 20)
        assert any(name in text for text in damage(tmp_path))
        flip(tmp_path / name, 20)
    assert damage(tmp_path) == []


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    made(tmp_path)
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace('"accuracy": 0.6', '"accuracy": 0.9'))
    with pytest.raises(ModelError, match="was changed since it was written"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 99}', "[" * 10_000, "\x00"])
def test_manifests_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ModelError):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["variants"][0]["stored"].update(file="../../etc/passwd"),
        lambda m: m["pack"].update(file="/etc/passwd"),
        lambda m: m["variants"][0].update(name="../up"),
        lambda m: m["variants"][0]["stored"].update(tensors=["0" * 64]),
        lambda m: m["pack"]["tensors"].update({"0" * 64: [-1, 10]}),
        lambda m: m.pop("inputs"),
        lambda m: m["variants"][0].update(surprise=1),
        lambda m: m["inputs"][0].update(dtype="nonsense"),
        lambda m: m["inputs"][0].update(shape=[-1, 16]),
        lambda m: m["pack"].update(file="pack-a.bin"),
        lambda m: m["pack"]["tensors"].update({"0" * 64: [0, float("inf")]}),
        lambda m: m["pack"]["tensors"].update({"0" * 64: [10**30, 10]}),
        lambda m: m.update(variants=[]),
        lambda m: m["variants"].append(m["variants"][0]),
        lambda m: m["variants"][0].update(accuracy="high"),
        lambda m: m["variants"][0].update(memory_bytes=-5),
        lambda m: m["variants"][0].update(latency_ms=float("nan")),
        lambda m: m.update(example={"x": [10**12]}),
        lambda m: m.update(facts=[1]),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, change: object) -> None:
    """Also one whose own SHA-256 fits: whoever made it can reckon too."""
    from prunec.runtime import manifest as home

    made(tmp_path)
    found = json.loads((tmp_path / MANIFEST).read_text())
    found.pop("sha256")
    change(found)  # type: ignore[operator]
    (tmp_path / MANIFEST).write_text(json.dumps({**found, "sha256": home._digest(found)}))
    with pytest.raises((ModelError, UsageError)):
        Manifest.read(tmp_path)


def test_no_portfolio_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no manifest\.json"):
        Portfolio.open(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match="it is a file"), writing(tmp_path / "file"):
        pass


# ---------------------------------------------------------------------- killed in the middle

_ADDS = """
import sys
from pathlib import Path
from tests.runtime.onnx_models import layers
from prunec.runtime.store import Entry, writing
print("ready", flush=True)
for width in range(40, 400, 8):
    with writing(Path(sys.argv[1])) as store:
        store.add([Entry(f"w{width}", layers(16, width, width, 4)), Entry("turns", layers(16, width, 4))])
        if width % 24 == 0:
            store.repack()
        store.commit()
"""


@pytest.mark.parametrize("after_s", [0.02, 0.08, 0.15, 0.25, 0.4, 0.6])
def test_a_process_killed_while_it_adds(tmp_path: Path, after_s: float) -> None:
    """Wherever it is killed: the portfolio opens, has what it had, every byte is right, and can be changed again."""
    made(tmp_path)
    root = Path(prunec.__file__).parent
    path = os.pathsep.join([str(root.parent), str(root), *filter(None, sys.path)])
    child = subprocess.Popen(
        [sys.executable, "-c", _ADDS, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert damage(tmp_path) == []
    portfolio, feeds = Portfolio.open(tmp_path), question()
    for name, wanted in answers(feeds).items():
        np.testing.assert_allclose(portfolio.run(feeds, variant=name)["y"], wanted, atol=1e-3)
    with writing(tmp_path) as opened:
        opened.add([Entry("after", layers(16, 77, 4))])
        opened.repack()
        manifest = opened.commit()
    assert "after" in manifest.variants and damage(tmp_path) == []
    assert {p.name for p in tmp_path.iterdir()} - {".lock", MANIFEST} == manifest.files


def test_killed_before_anything_stands(tmp_path: Path) -> None:
    """What is left of a first build is no portfolio, and is no obstacle."""
    with pytest.raises(KeyboardInterrupt):
        _broken_off(tmp_path / "pf", entries(), tidies=False)
    with pytest.raises(ModelError, match="no portfolio"):
        Portfolio.open(tmp_path / "pf")
    manifest = made(tmp_path / "pf")
    assert {p.name for p in (tmp_path / "pf").iterdir()} - {".lock", MANIFEST} == manifest.files


def test_a_fixed_batch_is_no_obstacle(tmp_path: Path) -> None:
    with writing(tmp_path) as opened:
        opened.add([Entry("one", linear(32, 2, batch=5))])
        opened.commit()
    portfolio = Portfolio.open(tmp_path)
    assert portfolio.run(np.zeros((5, 32), np.float32))["y"].shape == (5, 32)


def test_the_manifest_is_as_its_schema_says(tmp_path: Path) -> None:
    import jsonschema

    from prunec.runtime import manifest as home

    schema = json.loads(Path(home.__file__).with_name("manifest_schema.json").read_text())
    made(tmp_path)
    found = json.loads((tmp_path / MANIFEST).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    assert set(found["variants"][0]) == set(schema["properties"]["variants"]["items"]["properties"])
    found["variants"][0]["stored"]["file"] = "../up"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)
