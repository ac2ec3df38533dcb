"""One registry: what is declared is what the command line, the docs and the recipe schema show."""

from __future__ import annotations

import json
from typing import Any

import pytest

import prunec
from prunec import cli, explain
from prunec.ir import ops
from prunec.ir.frontends.fx_names import NAMES
from prunec.ir.opset import OPS, declare, moves
from prunec.passes import score
from prunec.passes.base import PASSES, register
from prunec.recipe import Recipe

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


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_says_what_it_is(name: str) -> None:
    cls = PASSES[name]
    assert (cls.__doc__ or "").strip()
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), "the docstring is the one that dataclass makes up"
    assert cls.kind in ("rewrite", "analysis", "criterion", "planner")
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
