"""A portfolio that is open: every answer is its variant's, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunec.ir.errors import ModelError, UsageError
from prunec.runtime import portfolio as home
from prunec.runtime.manifest import Manifest
from prunec.runtime.opened import Opened
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.store import Entry, writing

from .onnx_models import layers
from .portfolios import WIDTHS, answers, made, question


def weighed(folder: Path) -> Manifest:
    """The same with memory as if it had been measured: 100, 50 and 10 bytes."""
    made(folder)
    taken = dict(zip(WIDTHS, (100, 50, 10)))
    with writing(folder) as store:
        store.revise(
            lambda m: replace(m, variants={n: replace(v, memory_bytes=taken[n]) for n, v in m.variants.items()})
        )
        return store.commit()


def test_each_variant_answers_as_it_would_alone(tmp_path: Path) -> None:
    made(tmp_path)
    portfolio, feeds = Portfolio.open(tmp_path), question()
    for name, wanted in answers(feeds).items():
        portfolio.switch(name)
        found = portfolio.run(feeds)
        assert found.variant == name == portfolio.active and found.seconds > 0
        np.testing.assert_allclose(found["y"], wanted, atol=1e-3)
        assert list(portfolio.run(feeds, ["y"])) == ["y"]


def test_the_most_accurate_answers_first(tmp_path: Path) -> None:
    made(tmp_path)
    assert Portfolio.open(tmp_path).active == "large"
    assert Portfolio.open(tmp_path, variant="small").active == "small"
    with pytest.raises(UsageError, match="no variant 'none'"):
        Portfolio.open(tmp_path, variant="none")


def test_resident_and_lazy(tmp_path: Path) -> None:
    made(tmp_path)
    assert set(Portfolio.open(tmp_path).resident) == set(WIDTHS)
    lazy = Portfolio.open(tmp_path, sessions="lazy")
    assert list(lazy.resident) == ["large"]
    lazy.run(question(), variant="small")
    assert list(lazy.resident) == ["large", "small"]
    assert lazy.active == "large"
    with pytest.raises(UsageError, match="sessions cannot be 'eager'"):
        Portfolio.open(tmp_path, sessions="eager")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"memory_bytes": -1}])
def test_options_that_make_no_sense(tmp_path: Path, wrong: dict[str, int]) -> None:
    made(tmp_path)
    with pytest.raises(UsageError, match="cannot be"):
        Portfolio.open(tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_switch_is_noted(tmp_path: Path) -> None:
    made(tmp_path)
    portfolio = Portfolio.open(tmp_path)
    portfolio.switch("small", why="the battery is low")
    portfolio.switch("small")
    portfolio.switch("large")
    assert [(s.before, s.after, s.why) for s in portfolio.switches] == [
        ("large", "small", "the battery is low"),
        ("small", "large", "asked for"),
    ]
    assert portfolio.switched == {("large", "small"): 1, ("small", "large"): 1}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((1, 16), np.float64)}, "is float64, and the model declares float32"),
        ({"x": np.zeros((1, 15), np.float32)}, r"has the shape \[1, 15\], and the model declares \[batch, 16\]"),
        ({"x": np.zeros(16, np.float32)}, r"has the shape \[16\]"),
        ({"x": np.zeros((1, 16), np.float32), "z": 1}, "has no input 'z'"),
        ((1, 2), "2 inputs were given, and the model has 1"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, given: object, found: str) -> None:
    made(tmp_path)
    with pytest.raises(UsageError, match=found):
        Portfolio.open(tmp_path).run(given)


def test_a_portfolio_that_was_closed(tmp_path: Path) -> None:
    made(tmp_path)
    with Portfolio.open(tmp_path) as portfolio:
        portfolio.run(question())
    with pytest.raises(UsageError, match="was closed"):
        portfolio.run(question())


def test_inputs_as_they_are_given(tmp_path: Path) -> None:
    made(tmp_path)
    portfolio, feeds = Portfolio.open(tmp_path), question()
    ways = [feeds, feeds["x"], (feeds["x"],), [feeds["x"]]]
    assert all(np.array_equal(portfolio.run(way)["y"], portfolio.run(feeds)["y"]) for way in ways)
    with pytest.raises(UsageError, match="no output 'z'"):
        portfolio.run(feeds, ["z"])


# ---------------------------------------------------------------------- memory


def test_a_budget_of_memory_closes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    weighed(tmp_path)
    portfolio = Portfolio.open(tmp_path, memory_bytes=115, variant="large", sessions="lazy")
    portfolio.run(question(), variant="small")
    assert portfolio.resident == ("large", "small")
    portfolio.switch("middle")  # 100 + 10 + 50 are too many: the active one has to go, once the other answers
    assert portfolio.active == "middle" and sum(map(portfolio.holds, portfolio.resident)) <= 115
    portfolio.switch("large")
    assert "large" in portfolio.resident and "middle" not in portfolio.resident


def test_what_was_switched_to_counts_as_used(tmp_path: Path) -> None:
    weighed(tmp_path)
    portfolio = Portfolio.open(tmp_path, memory_bytes=160)
    for name in ("small", "large", "middle"):
        portfolio.switch(name)
    assert list(portfolio.resident) == ["small", "large", "middle"]


def test_a_variant_that_cannot_be_loaded_leaves_the_other_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed(tmp_path)
    portfolio = Portfolio.open(tmp_path, memory_bytes=110, sessions="lazy")

    def broken(name: str, warm: bool) -> Opened:
        raise ModelError("it is damaged")

    monkeypatch.setattr(portfolio._residents, "_load", broken)
    with pytest.raises(ModelError, match="damaged"):
        portfolio.switch("middle")
    assert list(portfolio.resident) == ["large"] == [portfolio.active]
    assert portfolio.run(question()).variant == "large"


def test_a_run_beside_the_active_variant_keeps_the_budget(tmp_path: Path) -> None:
    weighed(tmp_path)
    portfolio = Portfolio.open(tmp_path, memory_bytes=110, sessions="lazy")
    with pytest.raises(UsageError, match="takes 50 bytes, and 10 are left beside large"):
        portfolio.run(question(), variant="middle")
    assert list(portfolio.resident) == ["large"] == [portfolio.active]
    assert portfolio.run(question(), variant="small").variant == "small"
    assert set(portfolio.resident) == {"large", "small"}


def test_what_nobody_measured_counts_whole(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    assert Portfolio.open(tmp_path).holds("small") == manifest["small"].size_bytes
    with pytest.raises(UsageError, match="1 are allowed"):
        Portfolio.open(tmp_path, memory_bytes=1)


def test_as_many_are_open_as_the_budget_allows(tmp_path: Path) -> None:
    weighed(tmp_path)
    assert set(Portfolio.open(tmp_path, memory_bytes=115).resident) == {"large", "small"}
    assert set(Portfolio.open(tmp_path, memory_bytes=160).resident) == {"large", "middle", "small"}
    with pytest.raises(UsageError, match="takes 100 bytes, and 60 are allowed"):
        Portfolio.open(tmp_path, memory_bytes=60, variant="large")
    assert Portfolio.open(tmp_path, memory_bytes=60).active == "middle"  # the best that fits


def test_closing_variants(tmp_path: Path) -> None:
    made(tmp_path)
    portfolio = Portfolio.open(tmp_path)
    assert portfolio.evict("small") and not portfolio.evict("small")
    assert not portfolio.evict("large"), "it answers"
    assert portfolio.resident == ("large", "middle") or set(portfolio.resident) == {"large", "middle"}


# ---------------------------------------------------------------------- threads


def test_a_thousand_switches_under_eight_clients(tmp_path: Path) -> None:
    """Every answer equals that of the variant it reports; none is lost.  Variants are opened and closed all along."""
    weighed(tmp_path)
    portfolio = Portfolio.open(tmp_path, memory_bytes=112, sessions="lazy")
    questions = [question(seed, batch=1 + seed % 3) for seed in range(12)]
    known = [answers(q) for q in questions]
    stop, found = threading.Event(), []

    def client(seed: int) -> int:
        draw, count = random.Random(seed), 0
        while not stop.is_set():
            k = draw.randrange(len(questions))
            pinned = draw.choice([None, None, "small"])  # another one may not fit beside the active one
            answer = portfolio.run(questions[k], variant=pinned)
            assert pinned in (None, answer.variant)
            np.testing.assert_allclose(answer["y"], known[k][answer.variant], atol=1e-3)
            found.append(answer.variant)
            count += 1
        return count

    draw = random.Random(0)
    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, seed) for seed in range(8)]
        for _ in range(1000):
            portfolio.switch(draw.choice(list(WIDTHS)))
            assert sum(map(portfolio.holds, {*portfolio.resident, portfolio.active})) <= 112 + 10
        stop.set()
        counts = [c.result(timeout=60) for c in clients]
    assert sum(counts) == len(found) > 0
    assert set(found) == set(WIDTHS)


def test_a_mixed_up_answer_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with a run that names the active variant instead of its own."""
    made(tmp_path)
    portfolio, feeds = Portfolio.open(tmp_path), question()
    known = answers(feeds)
    names = itertools.cycle(WIDTHS)
    runs = Opened.run

    def mixed(self: Opened, *args: object) -> object:
        answer = runs(self, *args)  # type: ignore[arg-type]
        answer.variant = next(names)
        return answer

    monkeypatch.setattr(Opened, "run", mixed)
    found = [portfolio.run(feeds) for _ in range(3)]
    assert not all(np.allclose(a["y"], known[a.variant], atol=1e-3) for a in found)


def test_a_run_ends_on_the_variant_that_it_began_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    portfolio, feeds = Portfolio.open(tmp_path), question()
    inside, go = threading.Event(), threading.Event()
    runs = Opened.run

    def slow(self: Opened, *args: object) -> object:
        inside.set()
        assert go.wait(30)
        return runs(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Opened, "run", slow)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(portfolio.run, feeds)
        assert inside.wait(30)
        portfolio.switch("small")
        assert portfolio.evict("large")
        go.set()
        assert answer.result().variant == "large"
    np.testing.assert_allclose(answer.result()["y"], answers(feeds)["large"], atol=1e-3)


# ---------------------------------------------------------------------- what changes on disk


def test_a_byte_that_flips_is_never_served(tmp_path: Path) -> None:
    """Before the portfolio is opened, and while its tensors are mapped."""
    manifest = made(tmp_path)
    portfolio = Portfolio.open(tmp_path)
    place = manifest.pack.places[home.chosen(manifest["large"]).tensors[0]]
    with manifest.pack.path.open("r+b") as file:
        file.seek(place.offset + place.length // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x40]))
    with pytest.raises(ModelError, match="not those that were stored"):
        portfolio.run(question())
    with pytest.raises(ModelError, match="not those that were stored"):
        portfolio.run(question())
    with pytest.raises(ModelError, match="not those that were stored"):
        Portfolio.open(tmp_path)
    with manifest.pack.path.open("r+b") as file:
        file.seek(place.offset + place.length // 2)
        file.write(byte)
    np.testing.assert_allclose(portfolio.run(question())["y"], answers(question())["large"], atol=1e-3)


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    with path.open("r+b") as file:
        file.write(data)


def test_a_pack_that_takes_the_place_of_another_is_not_read(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    portfolio = Portfolio.open(tmp_path, sessions="lazy")
    other = tmp_path / "other"
    other.write_bytes(manifest.pack.path.read_bytes())
    for place in manifest.pack.places.values():
        flipped(other, place.offset + 2)
    other.replace(manifest.pack.path)
    with pytest.raises(ModelError, match="another process replaced it"):
        portfolio.switch("small")
    assert portfolio.run(question()).variant == "large", "what is open reads the file that was checked"


def test_times_that_are_put_back_hide_nothing(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    portfolio = Portfolio.open(tmp_path)
    before = manifest.pack.path.stat()
    for place in manifest.pack.places.values():
        flipped(manifest.pack.path, place.offset + 2)
    os.utime(manifest.pack.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="not those that were stored"):
        portfolio.run(question())


def test_a_byte_that_flips_during_a_run_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = made(tmp_path)
    portfolio, runs = Portfolio.open(tmp_path), Opened.run

    def struck(self: Opened, *args: object) -> object:
        for place in manifest.pack.places.values():
            flipped(manifest.pack.path, place.offset + 2)
        return runs(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Opened, "run", struck)
    with pytest.raises(ModelError, match="not those that were stored"):
        portfolio.run(question())


def test_it_opens_while_another_process_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    loads, times = Portfolio._load, iter(range(3))

    def raced(self: Portfolio, name: str, warm: bool) -> Opened:
        if next(times, None) == 1:
            with writing(tmp_path) as store:
                store.repack()
                store.commit()
        return loads(self, name, warm)

    monkeypatch.setattr(Portfolio, "_load", raced)
    with Portfolio.open(tmp_path) as portfolio:
        assert len(portfolio.resident) == 3
        np.testing.assert_allclose(portfolio.run(question())["y"], answers(question())["large"], atol=1e-3)


def test_others_may_change_it_meanwhile(tmp_path: Path) -> None:
    made(tmp_path)
    portfolio, feeds = Portfolio.open(tmp_path, sessions="lazy"), question()
    with writing(tmp_path) as store:
        store.add([Entry("new", layers(16, 99, 4))])
        store.commit()
    for name, wanted in answers(feeds).items():
        portfolio.switch(name)
        np.testing.assert_allclose(portfolio.run(feeds)["y"], wanted, atol=1e-3)
    with writing(tmp_path) as store:
        store.remove("large")
        store.repack()
        store.commit()
    np.testing.assert_allclose(portfolio.run(feeds, variant="large")["y"], answers(feeds)["large"], atol=1e-3)
    assert portfolio.evict("large") or portfolio.active == "large"
    assert set(Portfolio.open(tmp_path).variants) == {"middle", "small", "new"}


def test_another_machine_prepares_it_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    other = "another-0123456789"
    for place in ("prepare", "store", "portfolio"):
        monkeypatch.setattr(f"prunec.runtime.{place}.machine", lambda: other)
    portfolio = Portfolio.open(tmp_path)
    assert any("prepared for another kind of machine" in note for note in portfolio.notes)
    assert other in Manifest.read(tmp_path)["small"].prepared
    assert not any("another kind" in note for note in Portfolio.open(tmp_path).notes)


def test_where_the_folder_cannot_be_written_the_stored_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    for place in ("prepare", "store", "portfolio"):
        monkeypatch.setattr(f"prunec.runtime.{place}.machine", lambda: "another-0123456789")

    def refused(folder: object) -> None:
        from prunec.ir.errors import EnvironmentProblem

        raise EnvironmentProblem("cannot write")

    monkeypatch.setattr(home, "writing", refused)
    portfolio, feeds = Portfolio.open(tmp_path), question()
    assert any("cannot be prepared" in note for note in portfolio.notes)
    for name, wanted in answers(feeds).items():
        np.testing.assert_allclose(portfolio.run(feeds, variant=name)["y"], wanted, atol=1e-3)
