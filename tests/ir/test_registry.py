"""One registry: what is declared is what the command line, the docs and the recipe schema show."""

from __future__ import annotations

import json
from typing import Any

import pytest

import prunec
from prunec import cli, explain
from prunec.ir import ops
from prunec.ir.analysis import analyse
from prunec.ir.axes import Axes
from prunec.ir.errors import UsageError
from prunec.ir.frontends.fx_names import NAMES
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.opset import OPS, Site, declare, moves
from prunec.ir.signature import Signature, apply
from prunec.passes import score
from prunec.passes.base import PASSES, register
from prunec.recipe import Recipe

from .test_onnx_frontend import build, node, weight

assert ops is not None


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_says_what_it_is(name: str) -> None:
    assert OPS[name].name == name
    assert OPS[name].help.strip().endswith(".")
    assert (OPS[name].signature is None) != (OPS[name].rule is None)
    assert any(f"op {name}" in line for line in explain.explain(name))


def test_letters_bound_to_attributes_stand_in_the_signature() -> None:
    for op in OPS.values():
        for letter in op.attributes:
            assert op.signature is not None
            assert letter in {
                x for side in (*op.signature.operands, *op.signature.results) for t in side for x in t.letters
            }, op.name


def test_the_frontend_names_only_ops_that_are_declared() -> None:
    undeclared = {kind: s.op for kind, s in NAMES.items() if s.op not in OPS}
    assert set(undeclared) <= {"aten.sym_size.int"}, undeclared


def test_an_op_is_declared_once() -> None:
    with pytest.raises(ValueError, match="op 'conv' is declared twice"):
        declare("conv", "B c -> B c", "Again.")
    with pytest.raises(ValueError, match="op 'pool' is declared twice"):
        moves("pool")(lambda site: [])
    with pytest.raises(ValueError, match="two passes are named 'verify'"):
        register(type("Twin", (PASSES["verify"],), {}))


def test_letters_that_are_summed_over_stand_in_the_signature() -> None:
    with pytest.raises(ValueError, match="op 'mixture' sums over 'q', which no operand of 'a b -> a b' has"):
        declare("mixture", "a b -> a b", "Something.", contracts="q")
    assert "mixture" not in OPS


@pytest.mark.parametrize("binds", [False, True])
def test_letters_that_are_summed_over_are_bound(binds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that applies no signature has said nothing of the axis that it sums over."""

    def product(site: Site) -> list[Axes]:
        """A matrix product."""
        product = Signature.parse("... m k, ... k n -> ... m n")
        found, binding = apply(product, site.atoms, site.axes, site.shapes, {}, site.reason)
        if binds:
            site.binding = binding
        return found

    monkeypatch.delitem(OPS, "matmul")
    moves("matmul", contracts=lambda node: {"k": (0, 1)})(product)
    model = build([node("MatMul", "x a", "h"), node("MatMul", "h b", "y")], {"a": weight(8, 8), "b": weight(8, 2)})
    try:
        if binds:
            assert analyse(from_onnx(model)).solution.units == 8
            return
        with pytest.raises(
            UsageError, match=r"op 'matmul', for MatMul 'MatMul_h': it sums over 'k', .* binds no letter"
        ):
            prunec.compile(model, ratio=0.5, measure=False)
    finally:
        del OPS["matmul"]


def test_a_function_that_leaves_its_node_alone_binds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPS, "matmul")
    moves("matmul", contracts=lambda node: {"k": (0, 1)})(lambda site: site.pin_all("not today"))
    try:
        model = build([node("MatMul", "x a", "h"), node("MatMul", "h b", "y")], {"a": weight(8, 8), "b": weight(8, 2)})
        assert analyse(from_onnx(model)).solution.units == 0
    finally:
        del OPS["matmul"]


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_says_what_it_is(name: str) -> None:
    cls = PASSES[name]
    assert (cls.__doc__ or "").strip()
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), "the docstring is the one that dataclass makes up"
    assert cls.kind in ("rewrite", "analysis", "criterion", "planner", "training")
    for option in cls.options():
        assert option in (cls.__doc__ or ""), f"{name}{{{option}}} is not explained"


@pytest.mark.parametrize("name", sorted(score.CRITERIA))
def test_every_criterion_says_what_it_is(name: str) -> None:
    assert (score.CRITERIA[name].__doc__ or "").strip()
    assert any(f"criterion {name}" in line for line in explain.explain(name))


def test_the_lists_of_passes_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["passes", "--json"]) == 0
    printed: Any = json.loads(capsys.readouterr().out)
    listed = printed["passes"] if isinstance(printed, dict) else printed
    in_schema = {p["properties"]["name"]["const"]: p for p in Recipe.schema()["properties"]["pass"]["items"]["oneOf"]}
    registered = {n: c for n, c in PASSES.items() if c.__module__.startswith("prunec.")}
    assert set(registered) <= {p["name"] for p in listed} == set(in_schema)
    for described in listed:
        options = {o["name"] for o in described["options"]}
        assert options == set(PASSES[described["name"]].options())
        assert options == set(in_schema[described["name"]]["properties"]) - {"name"}


def test_the_facts_that_passes_require_are_ensured_by_some_pass() -> None:
    ensured = {fact for cls in PASSES.values() for fact in cls.ensures}
    assert {fact for cls in PASSES.values() for fact in cls.requires} <= ensured


def test_every_public_name_is_there() -> None:
    for name in prunec.__all__:
        assert getattr(prunec, name) is not None
    assert set(prunec.__all__) <= set(dir(prunec))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = prunec.nothing
