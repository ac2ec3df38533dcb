"""Each method builds levels that are as small as was asked, proved, and trained from where it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.fx
from onnx import numpy_helper

import prunec
import prunec.portfolios.methods
from prunec.ir.errors import ModelError
from prunec.ir.modules import load_module
from prunec.portfolios import Built, Job, build_levels
from prunec.portfolios.executor import InProcess
from prunec.portfolios.functions import function_at
from prunec.portfolios.job import Of
from prunec.portfolios.masks import masked_weights
from prunec.portfolios.method import METHODS
from prunec.portfolios.resolve import resolved
from prunec.portfolios.step import Files, facts_of
from prunec.portfolios.surroundings import surroundings
from prunec.portfolios.tensors import State, read

from .nets import Net

NETS = Path(__file__).with_name("nets.py")
SOURCE = f"{NETS}:net"
Seen = list[tuple[int, list[State]]]


class Run:
    """A build, with what each training saw."""

    def __init__(self, work: Path, densities: tuple[float, ...], **options: Any) -> None:
        seen: Seen = load_module(str(NETS)).SEEN
        seen.clear()
        self.work = work
        self.found = build_levels(Job(SOURCE, densities, **options), work, InProcess())
        self.seen = list(seen)

    def state(self, step: str, file: str = "state") -> State:
        return read((self.work / step / f"{file}.safetensors").read_bytes())

    def facts(self, step: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / step / "facts.json").read_text())
        return found


def checked(found: list[Built], densities: tuple[float, ...]) -> None:
    """What holds for the variants of every method."""
    assert [b.name for b in found] == ["dense", *(f"level-{k}" for k in range(1, len(densities) + 1))]
    assert found[0].density == 1.0
    for variant, density in zip(found[1:], densities, strict=True):
        assert 0.3 * density < variant.density <= 1.15 * density
    for variant in found:
        json.dumps(variant.facts)
        assert variant.facts["verify"]["max_rel_err"] < 1e-5 and variant.facts["verify"]["checked"] > 0
        assert variant.accuracy is not None and 0 <= variant.accuracy <= 1
        assert not any("nothing was pruned" in note for note in variant.facts["notes"])
        onnx.checker.check_model(onnx.load(variant.model))
    assert found[0].accuracy is not None and found[0].accuracy > 0.6, "it was not trained: this proves little"


def weights_of(path: Path) -> Mapping[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.fixture(scope="module")
def elements(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("elements"), (0.5, 0.1), method="imp", of="elements", rewind=3)


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("channels"), (0.5,), method="imp", rewind=3)


def test_elements_are_as_many_as_were_asked_for(elements: Run) -> None:
    checked(elements.found, (0.5, 0.1))
    total = sum(w.numel() for w in masked_weights(Net()).values())
    for level, density in (("level-1", 0.5), ("level-2", 0.1)):
        masks, state = elements.state(f"{level}-trained", "masks"), elements.state(f"{level}-trained")
        assert sum(int(m.sum()) for m in masks.values()) == round(density * total)
        assert all(not state[name][~mask].any() for name, mask in masks.items())


def test_each_level_prunes_the_smallest_of_what_the_last_one_trained(elements: Run) -> None:
    first, second = elements.state("level-1-trained", "masks"), elements.state("level-2-trained", "masks")
    trained = elements.state("level-1-trained")
    size = torch.cat([trained[name][mask].abs() for name, mask in first.items()])
    stays = torch.cat([second[name][mask] for name, mask in first.items()])
    assert all(not second[name][~mask].any() for name, mask in first.items())
    assert size[stays].min() >= size[~stays].max()


@pytest.mark.parametrize("level", [1, 2])
def test_survivors_go_back_to_the_step_as_the_training_had_it(elements: Run, level: int) -> None:
    """The user's function writes down what it sees; the state of step 3 is its own, not prunec's."""
    (_, dense), (start, states) = elements.seen[0], elements.seen[level]
    masks = elements.state(f"level-{level}-trained", "masks")
    assert start == 3 and elements.facts(f"level-{level}-trained")["rewound_to"] == 3
    for name, early in dense[3].items():
        wanted = early.masked_fill(~masks[name], 0) if name in masks else early
        assert torch.equal(states[0][name], wanted), name
    assert not torch.equal(dense[3]["a.weight"], dense[2]["a.weight"]), "any step would do: this proves nothing"


def test_masks_hold_at_each_step_of_the_training(elements: Run) -> None:
    masks = elements.state("level-2-trained", "masks")
    (_, states) = elements.seen[2]
    assert len(states) == 18  # from step 3 to 20, after each step
    assert all(not state[name][~mask].any() for state in states for name, mask in masks.items())


def test_the_dense_network_is_trained_once_and_to_its_end(elements: Run) -> None:
    assert [start for start, _ in elements.seen] == [0, 3, 3]
    assert elements.facts("dense-trained") == {"epochs": 4, "steps": 20, "rewound_to": 3}
    last = elements.seen[0][1][-1]
    assert all(torch.equal(tensor, last[name]) for name, tensor in elements.state("dense-trained").items())


def test_channels_are_cut_and_rewound(channels: Run) -> None:
    """Each channel that a level begins with is one of the dense network's at step 3, in all of its parameters."""
    checked(channels.found, (0.5,))
    (_, dense), *levels = channels.seen
    outer: list[torch.Tensor] = [torch.arange(12), torch.arange(16)]
    for start, states in levels:
        began = states[0]
        a, b = (_places(began[f"{n}.weight"], dense[3][f"{n}.weight"], k) for n, k in (("a", None), ("b", outer[0])))
        for name, early in dense[3].items():
            if name.startswith("norm") and early.ndim:
                assert torch.equal(began[name], early[a])
        assert torch.equal(began["b.weight"], dense[3]["b.weight"][b][:, a])
        assert torch.equal(began["head.weight"], dense[3]["head.weight"][:, b])
        assert start == 3 and len(a) + len(b) < 24
        outer = [a, b]


def _places(small: torch.Tensor, large: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
    """Where the rows of ``small`` stand in ``large``, by their sums where columns went as well."""
    if small.shape[1] == large.shape[1]:
        return torch.tensor([int((large == row).flatten(1).all(1).nonzero()) for row in small])
    assert columns is not None
    kept = {tuple(c.flatten().tolist()) for c in small[:, 0]}
    for k in columns.tolist():  # the first column that stays tells the rows
        rows = [tuple(r.flatten().tolist()) for r in large[:, k]]
        if kept <= set(rows):
            return torch.tensor([rows.index(tuple(r.flatten().tolist())) for r in small[:, 0]])
    raise AssertionError("no channel of the dense network")


def test_smaller_levels_have_smaller_files(channels: Run) -> None:
    sizes = [b.model.stat().st_size for b in channels.found]
    params = [b.params for b in channels.found]
    assert sizes == sorted(sizes, reverse=True) and params == sorted(params, reverse=True)
    assert params[0] == sum(p.numel() for p in Net().parameters())


def test_the_file_has_the_weights_that_were_trained(channels: Run) -> None:
    trained = read((channels.work / "level-1-trained/weights.safetensors").read_bytes())
    held = [w for w in weights_of(channels.found[1].model).values() if w.shape == tuple(trained["b.weight"].shape)]
    assert held and np.allclose(held[0], trained["b.weight"].numpy())
    assert torch.equal(trained["b.weight"], channels.seen[1][1][-1]["b.weight"])


def ran(job: Job, *names: str) -> dict[str, Files]:
    """The steps ``names`` of a job, one after another, without a work folder."""
    steps = {step.name: step for step in METHODS[job.method or ""].steps(job)}
    made: dict[str, Files] = {}
    for name in names:
        with surroundings(job):
            made[name] = steps[name].run(job, {before: made[before] for before in steps[name].after})
    return made


@pytest.mark.parametrize(
    ("method", "of"),
    [
        ("oneshot", "channels"),
        ("oneshot", "elements"),
        ("pdp", "channels"),
        ("pdp", "elements"),
        ("reconvene", "channels"),
    ],
)
def test_each_method_makes_a_level(method: str, of: Of) -> None:
    job = resolved(Job(SOURCE, (0.5,), method, of))
    facts = facts_of(ran(job, "dense-trained", "level-1-trained", "level-1")["level-1"])
    total = sum(p.numel() for p in Net().parameters())
    assert facts["verify"]["max_rel_err"] < 1e-5 and facts["method"] == method and facts["of"] == of
    assert facts["accuracy"] > 0.4 and facts["steps"] == 20
    if of == "channels":
        assert 0.2 * total < facts["params"] < 0.6 * total
    elif method == "oneshot":
        assert facts["nonzero"] == pytest.approx(0.5 * facts["elements"], abs=1)
    else:
        assert facts["nonzero"] == pytest.approx(0.5 * facts["elements"], rel=0.02)


def test_a_share_of_the_steps() -> None:
    job = resolved(Job(SOURCE, (0.5,), of="elements", rewind=0.25))
    facts = facts_of(ran(job, "dense-trained")["dense-trained"])
    assert facts == {"epochs": 4, "rewound_to": 5, "steps": 20}


def test_a_training_that_takes_no_keywords() -> None:
    """It is given the rewound network, and trains it in full."""
    job = resolved(Job(SOURCE, (0.5,), of="elements", rewind=2, train=f"{NETS}:fit_alone"))
    seen: Seen = load_module(str(NETS)).SEEN
    seen.clear()
    facts = facts_of(ran(job, "dense-trained", "level-1-trained")["level-1-trained"])
    assert [start for start, _ in seen] == [0, 0] and facts["steps"] == 20 and facts["rewound_to"] == 2


def test_a_network_that_nobody_can_train(tmp_path: Path) -> None:
    """An ONNX file: one-shot, and the function that measures gets a path."""
    torch.manual_seed(0)
    source = tmp_path / "net.onnx"
    onnx.save(prunec.compile(Net().eval(), (torch.randn(2, 1, 6, 6),), "fold,verify", measure=False).onnx, source)
    (tmp_path / "sizes.py").write_text("import os\ndef evaluate(path):\n    return os.path.getsize(path)\n")
    job = Job(str(source), (0.5,), evaluate=f"{tmp_path}/sizes.py:evaluate")
    for of in ("channels", "elements"):
        found = build_levels(replace(job, of=of), tmp_path / of, InProcess())
        assert found[1].facts["method"] == "oneshot" and found[1].density <= 0.5 + 1e-3
        assert [b.accuracy for b in found] == [b.model.stat().st_size for b in found]


def test_nested_levels_are_prefixes(tmp_path: Path) -> None:
    """Of the dense network's bytes: each bias is its beginning, each weight along both axes."""
    found = build_levels(Job(SOURCE, (0.5,), "oneshot", nested=True), tmp_path / "torch", InProcess())
    checked(found, (0.5,))
    _check_prefixes(found)


def test_nested_levels_of_an_onnx_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tmp_path / "net.onnx"
    onnx.save(prunec.compile(Net().eval(), (torch.randn(2, 1, 6, 6),), "verify", measure=False).onnx, source)
    _check_prefixes(build_levels(Job(str(source), (0.5,), nested=True), tmp_path / "work", InProcess()))


def _check_prefixes(found: list[Built]) -> None:
    dense = sorted(weights_of(found[0].model).values(), key=lambda w: (w.ndim, w.shape))
    for level in found[1:]:
        small = [w for w in weights_of(level.model).values() if w.dtype == np.float32]
        assert len(small) >= 5
        for weight in small:
            begins = [w[tuple(map(slice, weight.shape))] for w in dense if w.ndim == weight.ndim]
            assert any(np.array_equal(weight, w) for w in begins), weight.shape
        assert sum(w.size for w in small) < 0.6 * sum(w.size for w in dense)


def test_methods_are_one_file_each() -> None:
    folder = Path(prunec.portfolios.methods.__file__).parent
    own = {n: m for n, m in METHODS.items() if m.steps.__module__.startswith("prunec.portfolios.methods.")}
    assert sorted(own) == sorted(p.stem for p in folder.glob("[!_]*.py"))
    assert all(m.help for m in own.values())


def test_a_network_comes_in_training_mode() -> None:
    job = resolved(Job(SOURCE, (0.5,), of="elements", rewind=0, train=f"{NETS}:fit_as_it_is"))
    state = read(ran(job, "dense-trained")["dense-trained"]["state.safetensors"])
    assert state["norm.num_batches_tracked"] == 1


@pytest.mark.parametrize("source", ["HELD", "held"])
def test_a_source_that_is_an_object_is_left_as_it_is(source: str) -> None:
    job = resolved(Job(f"{NETS}:{source}", (0.5,), of="elements", rewind=0, train=f"{NETS}:fit_as_it_is"))
    first, second = (ran(job, "dense-trained")["dense-trained"]["state.safetensors"] for _ in range(2))
    assert first == second


def test_a_state_that_is_no_tensor_is_named() -> None:
    job = resolved(Job(f"{NETS}:wordy", (0.5,), of="elements", rewind=0))
    with pytest.raises(ModelError, match="_extra_state is a dict, no tensor") as caught:
        ran(job, "dense-trained")
    assert "get_extra_state" in caught.value.hint


def test_a_state_that_the_source_does_not_take() -> None:
    job = resolved(Job(SOURCE, (0.5,), of="elements", rewind=0, train=f"{NETS}:fit_grows"))
    with pytest.raises(ModelError, match=r"loading the trained state into .*nets\.py:net anew") as caught:
        ran(job, "dense-trained", "dense")
    assert "adds no parameters" in caught.value.hint


def test_a_compact_network_has_no_methods_of_its_class() -> None:
    compact = torch.fx.symbolic_trace(Net())
    with pytest.raises(ModelError, match="fit_by_loss failed: AttributeError") as caught:
        function_at(f"{NETS}:fit_by_loss", "--train")(compact)
    assert "write the loss outside of the class" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        function_at(f"{NETS}:fit_by_loss", "--train")(Net())
    assert "what is finished is kept" in caught.value.hint


def test_steps_leave_each_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function changes the folder, the other one turns gradients off; the work folder is a relative one."""
    monkeypatch.chdir(tmp_path)
    options = {"train": f"{NETS}:fit_elsewhere", "evaluate": f"{NETS}:evaluate_without_gradients"}
    found = build_levels(Job(SOURCE, (0.5,), "oneshot", "elements", **options), Path("work"), InProcess())  # type: ignore[arg-type]
    assert [b.model.is_file() for b in found] == [True, True] and Path.cwd() == tmp_path and torch.is_grad_enabled()
    assert found[0].model == tmp_path / "work/dense/model.onnx"
