"""Criteria at initialisation on cases worked out by hand, and structured pruning of networks not yet trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunec
from prunec.ir.errors import BudgetError, ModelError, UsageError
from prunec.passes.initialise import _moments
from prunec.passes.plan.rectify import Rectify
from prunec.passes.score.grasp import TEMPERATURE
from prunec.passes.score.scoring import ELEMENTS, Scoring, find_criterion, find_elements

from ..models import oracle
from ..models.oracle import Subject
from .subjects import mlp, total, two_units, with_groups

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def elements(subject: Subject, method: str, masks: Any = None, **context: Any) -> dict[str, np.ndarray]:
    """Scores of the elements of each parameter."""
    state = with_groups(subject)
    state.context.update(context)
    return dict(find_elements(method)(Scoring(subject.groups, state, masks or {})))


def linear() -> Subject:
    """y = w · x, w = (3, -2), x = (1, 4)."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -2.0]]))
    return oracle.subject(layer.double().eval(), (torch.tensor([[1.0, 4.0]]).double(),))


def half_square(outputs: Tensor) -> Tensor:
    return outputs.square().mean() / 2


def test_snip_by_hand() -> None:
    # L = 11·12 - 4·2 twice: dL/dW2 = 2h = (22, 8), dL/dW1 = W2ᵀ·2x
    found = elements(two_units(), "snip", loss=total)
    np.testing.assert_allclose(found["1.weight"], [[12 * 22, 2 * 8]])
    np.testing.assert_allclose(found["0.weight"], np.abs([[3 * 24, 4 * 48], [0, 1 * -8]]))


def test_force_lets_the_masked_return() -> None:
    masks = {"weight": np.array([[True, False]])}
    # masked: y = 3, dL/dw = y·x = (3, 12)
    np.testing.assert_allclose(elements(linear(), "snip", masks, loss=half_square)["weight"], [[9, 0]])
    np.testing.assert_allclose(elements(linear(), "force", masks, loss=half_square)["weight"], [[9, 24]])


def test_grasp_on_a_quadratic() -> None:
    """L = (w·x / T)² / 2: g = (w·x) x / T², H = x xᵀ / T², the score w ⊙ H g."""
    x, w = np.array([1.0, 4.0]), np.array([3.0, -2.0])
    g = (w @ x) * x / TEMPERATURE**2
    expected = w * (np.outer(x, x) / TEMPERATURE**2 @ g)
    np.testing.assert_allclose(elements(linear(), "grasp", loss=half_square)["weight"][0], expected, rtol=1e-6)


def test_prospr_on_a_quadratic() -> None:
    """d L(w3) / dm by differences, w3 after three steps of gradient descent with momentum from m ⊙ w."""
    x, w = np.array([1.0, 4.0]) / 4, np.array([3.0, -2.0])

    def trained(m: np.ndarray) -> float:
        weight, speed = m * w, np.zeros(2)
        for _ in range(3):
            speed = 0.9 * speed + (weight @ x) * x * m
            weight = weight - 0.5 * speed
        return float((weight @ x) ** 2 / 2)

    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([w]))
    subject = oracle.subject(layer.double().eval(), (torch.tensor([x]),))
    step = 1e-5
    expected = [abs(trained(np.ones(2) + step * e) - trained(np.ones(2) - step * e)) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(elements(subject, "prospr", loss=half_square)["weight"][0], expected, rtol=1e-4)


def test_ntk_sap_needs_no_data_and_repeats_itself() -> None:
    first, again = (elements(mlp(6, 8, 4), "ntk_sap") for _ in range(2))
    for name, scores in first.items():
        np.testing.assert_array_equal(scores, again[name])
        assert scores.any()


def test_synflow_is_conserved_layer_by_layer() -> None:
    """The paper's own invariant: the scores of each layer add up to the same flow."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 36, 10, bias=False), nn.ReLU(), nn.Linear(10, 4, bias=False),
    )  # fmt: skip
    subject = oracle.subject(model.double().eval(), (X.double(),))
    sums = [s.sum() for s in elements(subject, "synflow").values()]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-9)
    masks = {n: np.random.default_rng(0).random(s.shape) < 0.5 for n, s in elements(subject, "synflow").items()}
    found = elements(subject, "synflow", masks)
    np.testing.assert_allclose([s.sum() for s in found.values()], found["0.weight"].sum(), rtol=1e-9)
    assert all(not found[n][~m].any() for n, m in masks.items())


def chain(scale: float = 1) -> Subject:
    """Three layers without biases; the first is ``scale`` times as large, and so is the flow."""
    torch.manual_seed(1)
    first, second, third = nn.Linear(6, 32, bias=False), nn.Linear(32, 16, bias=False), nn.Linear(16, 4, bias=False)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    with torch.no_grad():
        first.weight.mul_(scale)
    return oracle.subject(model.eval(), (torch.ones(1, 6),))


def in_single(subject: Subject, masks: Any = None, shared: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    shared = {} if shared is None else shared
    return dict(find_elements("synflow")(Scoring(subject.groups, with_groups(subject), masks or {}, shared, True)))


@pytest.mark.parametrize("scale", [1e-15, 1, 1e25])
def test_synflow_in_float32_is_the_same_but_for_a_power_of_two(scale: float) -> None:
    subject = chain(scale)
    double, single = elements(subject, "synflow"), in_single(subject)
    factor = 2.0 ** round(np.log2(single["0.weight"].sum(dtype=float) / double["0.weight"].sum()))
    for name, scores in single.items():
        assert scores.dtype == np.float32 and double[name].dtype == np.float64
        np.testing.assert_allclose(scores, factor * double[name], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_synflow_is_float64_where_float32_does_not_reach(scale: float) -> None:
    subject = chain(scale)
    with torch.no_grad():  # the second layer takes the flow over the end; every weight is a number of float32
        for constant in subject.graph.constants.values():
            if constant.name == "2.weight":
                constant.data.mul_(scale)
    double, single = elements(subject, "synflow"), in_single(subject)
    for name, scores in single.items():
        assert scores.any()
        np.testing.assert_array_equal(scores, double[name])


def test_what_one_step_masked_may_return_in_the_next() -> None:
    subject, shared = chain(), dict[str, Any]()
    masks = {"2.weight": np.random.default_rng(0).random((16, 32)) < 0.5}
    for given in (masks, {"2.weight": ~masks["2.weight"]}, {}):
        found, fresh = in_single(subject, given, shared), in_single(subject, given)
        for name, scores in found.items():
            np.testing.assert_array_equal(scores, fresh[name])


@pytest.mark.parametrize("method", sorted(set(ELEMENTS) - {"random", "lamp"}))
def test_units_score_the_sum_of_their_elements(method: str) -> None:
    subject = mlp(6, 8, 4)
    scoring = Scoring(subject.groups, with_groups(subject))
    found = find_elements(method)(scoring)
    np.testing.assert_allclose(find_criterion(method)(scoring), scoring.total(lambda p: found[p.name]), rtol=1e-6)


def test_data_of_the_caller() -> None:
    """Batches add up; the loss is of outputs and targets."""
    layer = linear()
    samples = [(torch.tensor([[1.0, 4.0]]),), (torch.tensor([[2.0, 0.0]]),)]
    targets = [torch.tensor([[1.0]]), torch.tensor([[2.0]])]

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs - target).square().sum() / 2

    # y = -5 and 6: dL/dw = -6·(1, 4) + 4·(2, 0)
    found = elements(layer, "snip", samples=samples, targets=targets, loss=loss)
    np.testing.assert_allclose(found["weight"], [[abs(3 * (-6 + 8)), abs(-2 * -24)]])
    with pytest.raises(UsageError, match="no targets for sample batch 2"):
        elements(layer, "snip", samples=samples, targets=targets[:1], loss=loss)
    with pytest.raises(UsageError, match="no scalar tensor"):
        elements(layer, "snip", loss=lambda outputs: 1.0)
    with pytest.raises(ModelError, match="the loss is nan"):
        elements(layer, "snip", loss=lambda outputs: outputs.sum() * math.nan)


def vgg() -> nn.Module:
    """A small VGG, as it is initialised for training."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o, pool in ((3, 32, False), (32, 64, True), (64, 128, False), (128, 128, True), (128, 128, False)):
        conv = nn.Conv2d(i, o, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(o), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).eval()


RECONVENE = "score{{method=synflow,normalize=none}},rectify{{params={},steps=5{}}},eliminate,initialise,verify"


@pytest.mark.parametrize("rule", ["", ",rule=precrop"])
@pytest.mark.parametrize("params", [0.5, 0.1])
def test_a_compact_network_that_is_ready_to_train(params: float, rule: str) -> None:
    result = prunec.compile(vgg(), (X,), RECONVENE.format(params, rule), measure=False)
    assert params * 0.6 < result.report["params"]["ratio"] <= params
    assert result.report["verify"]["max_rel_err"] < 1e-4
    found = result.report["values"]["rectify"]
    assert all(0 < g["density"] <= 1 and 0 <= g["flow_lost"] <= 1 for g in found.values())
    module = result.module
    assert module is not None
    module.train()(X).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_the_least_sensitive_are_cut_first() -> None:
    found = prunec.compile(vgg(), (X,), RECONVENE.format(0.8, ",align=4"), measure=False).report["values"]["rectify"]
    cut = [g["sensitivity"] for g in found.values() if g["kept"] < g["units"]]
    whole = [g["sensitivity"] for g in found.values() if g["kept"] == g["units"] and g["sensitivity"] is not None]
    assert cut and whole and max(cut) <= min(whole)


@pytest.mark.parametrize("scale", [1e-36, 1e36])
def test_sensitivity_does_not_depend_on_the_size_of_the_flow(scale: float) -> None:
    """Beyond float32 too."""

    def found(scale: float) -> dict[str, Any]:
        torch.manual_seed(0)
        first, second, third = nn.Linear(6, 64, bias=False), nn.Linear(64, 64, bias=False), nn.Linear(64, 8, bias=False)
        model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        with torch.no_grad():
            for layer in (first, second):
                layer.weight.mul_(scale)
        state = with_groups(oracle.subject(model.eval(), (torch.ones(1, 6),)))
        state.facts |= {"criterion": "synflow", "scores": np.arange(len(state.facts["groups"].group_of))}
        Rectify(params=0.3, steps=2, align=4).run(state)
        values: dict[str, Any] = state.values["rectify"]
        return values

    scaled = found(scale)
    for name, group in found(1).items():
        assert group["flow_lost"] > 0
        assert scaled[name]["flow_lost"] == pytest.approx(group["flow_lost"], rel=1e-4)


def test_layers_with_fewer_inputs_are_drawn_anew() -> None:
    """At the new number of inputs: He's variance, from the layer's own initialiser."""
    dense = vgg()
    result = prunec.compile(dense, (X,), RECONVENE.format(0.3, ""), measure=False)
    before, after = dense.state_dict(), result.module.state_dict()  # type: ignore[union-attr]
    changed = [n for n in after if after[n].dim() == 4 and after[n].shape[1] != before[n].shape[1]]
    assert changed
    for name in changed:
        fan = after[name][0].numel()
        assert float(after[name].var()) * fan == pytest.approx(2, rel=0.15)
    same = next(n for n in after if after[n].dim() == 4 and after[n].shape[1] == before[n].shape[1])
    kept = result.kept[same][0]
    assert torch.equal(after[same], before[same] if kept is None else before[same][kept])


def test_moments_are_those_of_all_elements() -> None:
    numbers = np.random.default_rng(0).gamma(2, size=(700, 40, 50)).astype(np.float32)  # more than one block
    centred = numbers.astype(np.float64) - numbers.mean(dtype=np.float64)
    np.testing.assert_allclose(_moments(numbers), [np.mean(centred**2), np.mean(centred**4)], rtol=1e-5)


def test_rescaled_numbers_keep_their_signs() -> None:
    pipeline = (
        "score{method=synflow,normalize=none},rectify{params=0.3,steps=2},eliminate,initialise{mode=rescale},verify"
    )
    dense = vgg()
    result = prunec.compile(dense, (X,), pipeline, measure=False)
    name = "10.weight"
    after = result.module.state_dict()[name]  # type: ignore[union-attr]
    kept = [slice(None) if k is None else torch.from_numpy(k) for k in result.kept[name][:2]]
    part = dense.state_dict()[name][kept[0]][:, kept[1]]
    assert torch.equal(after.sign(), part.sign()) and not torch.equal(after, part)


@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        ("score{method=l1},rectify{params=0}", UsageError, "params} cannot be 0"),
        ("score{method=l1},rectify{params=0.5,steps=0}", UsageError, "steps=0"),
        ("score{method=magnitude},rectify{params=0.0001,steps=1}", BudgetError, "cannot be met"),
        ("score{method=magnitude},rectify{params=0.5,ignore=[re:.*]}", BudgetError, "no group that it may cut"),
        ("groups{mode=unconstrained},score{method=l1},rectify{params=0.5}", UsageError, "constrained"),
        ("initialise", UsageError, "requires 'compact'"),
    ],
)
def test_what_cannot_be(pipeline: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prunec.compile(vgg(), (X,), pipeline, measure=False)


def test_an_onnx_file_has_no_gradients() -> None:
    model = prunec.compile(vgg(), (X,), ratio=0, measure=False).onnx
    with pytest.raises(UsageError, match="needs gradients"):
        prunec.compile(model, None, "score{method=synflow},mask{sparsity=0.5}", measure=False)
