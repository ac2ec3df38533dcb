"""Which edges are whole: the choice is the fastest by the target's constants, and follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunec.passes import fastest as module
from prunec.passes.fastest import _Choice, fastest
from prunec.passes.groups import Groups, groups_of
from prunec.passes.soft_edges import SoftEdge, soft_edges
from prunec.passes.target import Target, find_target

from .test_layout import stream

TARGET = replace(find_target("generic"), ns_per_mac=0.02, ns_per_byte=0.05, ns_per_node=1.0)


def masked(seed: int) -> tuple[Groups, list[SoftEdge], np.ndarray]:
    """The stream with a random half of its units gone."""
    groups = groups_of(stream().graph, "unconstrained")
    units = np.random.default_rng(seed).permutation(groups.prunable)
    return groups, soft_edges(groups.analysis), groups.alive(units[: units.size // 2])


def times(choice: _Choice, count: int) -> list[float]:
    return [choice.time(np.array([bits >> k & 1 for k in range(count)], bool)) for bits in range(1 << count)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("byte", [0.0, 0.01, 0.05, 0.5, 50.0])
def test_no_other_choice_is_faster(seed: int, byte: float) -> None:
    groups, edges, alive = masked(seed)
    target = replace(TARGET, ns_per_byte=byte)
    found = fastest(edges, alive, groups, target)
    choice = _Choice(edges, alive, groups, target, {})
    time = choice.time(np.array([e in found for e in edges]))
    assert time == pytest.approx(min(times(choice, len(edges))))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("saved", [1e2, 1e6])
def test_what_picks_save_together_counts(seed: int, saved: float) -> None:
    groups, edges, alive = masked(seed)
    together = {tuple(e.name for e in edges[:3]): saved, (edges[-1].name, "of another pass"): saved}
    found = fastest(edges, alive, groups, TARGET, together)
    choice = _Choice(edges, alive, groups, TARGET, together)
    time = choice.time(np.array([e in found for e in edges]))
    assert time == pytest.approx(min(times(choice, len(edges))))
    assert saved < 1e6 or not set(found) & {*edges[:3], edges[-1]}


@pytest.mark.parametrize("seed", range(4))
def test_one_by_one_comes_close(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, edges, alive = masked(seed)
    monkeypatch.setattr(module, "_EXACT", 0)
    found = fastest(edges, alive, groups, TARGET)
    choice = _Choice(edges, alive, groups, TARGET, {})
    every = times(choice, len(edges))
    assert choice.time(np.array([e in found for e in edges])) <= min(every[0], every[-1])


def test_what_costs_nothing_is_copied_and_what_costs_much_is_not() -> None:
    groups, edges, alive = masked(0)
    free = replace(TARGET, ns_per_byte=0.0, ns_per_node=0.0)
    dear = replace(TARGET, ns_per_byte=1e6, ns_per_node=1e9)
    picked = [e for e in edges if e not in fastest(edges, alive, groups, free)]
    assert {e.name for e in edges if e.is_partial(groups.analysis, alive)} >= {e.name for e in picked} != set()
    stays = groups.held(alive, {e.name for e in fastest(edges, alive, groups, dear)})
    assert not any(e.is_partial(groups.analysis, stays) for e in edges)


def test_time_does_not_depend_on_the_way_to_a_choice() -> None:
    groups, edges, alive = masked(1)
    one, other = (_Choice(edges, alive, groups, TARGET, {}) for _ in range(2))
    every = times(one, len(edges))
    assert every == pytest.approx(times(one, len(edges)))
    last = np.ones(len(edges), bool)
    assert other.time(last) == pytest.approx(every[-1])


def test_nothing_to_choose() -> None:
    groups, _, alive = masked(0)
    assert fastest([], alive, groups, Target("none", 1, "")) == []


# ---------------------------------------------------------------------- what a target says


def test_outputs_come_in_sets_of_blocks() -> None:
    target = Target("sets", 8, "", blocks_at_once=4, idle_share=0.5)
    assert [target.in_sets(n) for n in (0, 1, 8, 16, 25, 32, 33, 64)] == [0, 20, 20, 24, 32, 32, 52, 64]
    assert target.in_sets(np.array([8, 33])).tolist() == [20, 52]
    assert [find_target("generic").in_sets(n) for n in (0, 1, 33)] == [0, 1, 33]


def test_slices_are_free_in_torch_alone() -> None:
    target, size = find_target("torch-cpu"), 1e6
    one, last = (target.reading(1, channels_last=c) for c in (False, True))
    assert one.slice_ns(size) == one.ns_per_node < one.pick_ns(size) == one.copy_ns(size)
    assert last.slice_ns(size) == last.copy_ns(size) < last.pick_ns(size)
    assert target.reading(2, channels_last=False).slice_ns(size) == target.copy_ns(size)
    runtime = find_target("ort-cpu").reading(1, channels_last=False)
    assert runtime.slice_ns(size) == runtime.pick_ns(size) > runtime.plain_ns(size) == runtime.copy_ns(size)
