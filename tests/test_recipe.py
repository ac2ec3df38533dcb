from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.ir.errors import UsageError
from prunec.passes.base import PASSES, Pass, State
from prunec.recipe import Recipe


@dataclass(frozen=True)
class Everything(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "everything"
    kind: ClassVar[Literal["analysis"]] = "analysis"
    ratio: float = 0.5
    count: int = 1
    flag: bool = False
    text: str = "plain"
    limit: int | None = 3
    mode: Literal["auto", "none", "off"] = "auto"
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    align: int | Literal["auto"] = "auto"

    def run(self, state: State) -> Any:
        return None


@dataclass(frozen=True)
class Needy(Pass):
    """A pass with an option that has no default."""

    name: ClassVar[str] = "needy"
    kind: ClassVar[Literal["analysis"]] = "analysis"
    method: str

    def run(self, state: State) -> Any:
        return None


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    PASSES.update({"everything": Everything, "needy": Needy})
    yield
    del PASSES["everything"], PASSES["needy"]


@pytest.mark.parametrize(
    "text",
    [
        "everything",
        "everything{ratio=0.25}",
        "everything{flag=true,limit=none},everything{count=7}",
        "everything{text=a/b.*:c+1,names=[conv1,layer1.*],sizes=[8]}",
        'everything{text="two words, {braces} and \\"quotes\\""}',
        'everything{text="12",names=["true","1.5"]}',
        "everything{align=16}",
        "everything{sizes=[]}",
        "needy{method=l2}",
    ],
)
def test_text_round_trips(text: str) -> None:
    assert str(Recipe.parse(text)) == text


def test_spaces_and_lines_do_not_matter() -> None:
    spaced = Recipe.parse(" everything {\n  count = 2 ,\n  sizes = [ 3 , 4 ]\n} ,\n needy{ method = l1 } ")
    assert str(spaced) == "everything{count=2,sizes=[3,4]},needy{method=l1}"


def test_defaults_are_not_printed() -> None:
    assert str(Recipe.parse("everything{ratio=0.5,count=1,names=[],sizes=[1,2],align=auto}")) == "everything"


def test_bare_words_are_read_as_the_option_asks() -> None:
    (found,) = Recipe.parse("everything{mode=none,text=12,names=[1,true],limit=none,ratio=1}")
    assert found == Everything(mode="none", text="12", names=("1", "true"), limit=None, ratio=1.0)


words = st.text(st.characters(codec="utf-8"))
instances = st.builds(
    Everything,
    ratio=st.floats(allow_nan=False),
    count=st.integers(),
    flag=st.booleans(),
    text=words,
    limit=st.none() | st.integers(),
    mode=st.sampled_from(["auto", "none", "off"]),
    names=st.lists(words).map(tuple),
    sizes=st.lists(st.integers()).map(tuple),
    align=st.just("auto") | st.integers(),
)


@given(st.lists(instances, min_size=1, max_size=3))
def test_every_recipe_round_trips_through_text(passes: list[Everything]) -> None:
    assert Recipe.parse(str(Recipe(tuple(passes)))).passes == tuple(passes)


@given(passes=st.lists(instances, min_size=1, max_size=3), about=words)
def test_every_recipe_round_trips_through_toml(
    tmp_path_factory: pytest.TempPathFactory, passes: list[Everything], about: str
) -> None:
    recipe = Recipe(tuple(passes), about)
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8", newline="")
    assert Recipe.from_toml(path) == recipe


@given(st.text('score{}[],="\\ab1.-+ \n', max_size=40))
def test_any_text_is_read_or_refused_with_a_usage_error(text: str) -> None:
    try:
        found = Recipe.parse(text)
    except UsageError as error:
        assert_pointed(error)
    else:
        assert Recipe.parse(str(found)) == found


def assert_pointed(error: UsageError) -> None:
    assert error.message.split("\n")[-1].strip() == "^"


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("", "expected the name of a pass, found the end", 0),
        ("everything,", "expected the name of a pass", 11),
        ("everything}", "expected ',' or the end, found '}'", 10),
        ("everything{count}", "expected '=' after 'count'", 16),
        ("everything{count=}", "expected a value, found '}'", 17),
        ("everything{count=1", "expected ',' or '}'", 18),
        ("everything{sizes=[1", "expected ',' or ']'", 19),
        ('everything{text="a}', 'the closing " is missing', 16),
        ("everything{count=1,count=2}", "'count' stands twice", 19),
        ("everything,nothing{a=1}", "unknown pass 'nothing'", 11),
        ("everything{colour=1}", "no option 'colour'", 11),
        ("everything{flag=true,count=two}", "cannot be 'two'", 21),
        ("everything{mode=odd}", "cannot be 'odd'", 11),
        ("needy", "needs the option 'method'", 0),
        ("everything,\n  needy{method=1,x=2}", "no option 'x'", 17),
    ],
)
def test_a_mistake_is_shown_at_its_place(text: str, message: str, caret: int) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.parse(text)
    first, shown, pointer = caught.value.message.split("\n")
    assert message in first
    assert shown == "  " + text.split("\n")[-1]
    assert pointer == " " * (caret + 2) + "^"


def test_included_recipes_come_first(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.toml").write_text('[[pass]]\nname = "needy"\nmethod = "l2"\n')
    path = tmp_path / "r.toml"
    path.write_text('description = "d"\ninclude = ["sub/base.toml"]\n[[pass]]\nname = "everything"\nlimit = "none"\n')
    recipe = Recipe.load(str(path))
    assert str(recipe) == "needy{method=l2},everything{limit=none}"
    assert recipe.description == "d"
    assert Recipe.load(path) == recipe
    assert Recipe.load(recipe) is recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('include = ["r.toml"]', "includes itself"),
        ('include = ["absent.toml"]', "there is no recipe"),
        ("passes = 1", "unknown key 'passes'"),
        ("", "has no pass"),
        ("[[pass]]\nratio = 1", "pass 1 has no name"),
        ('[[pass]]\nname = "everything"\ncount = "x"', "pass 1: option everything{count} cannot be 'x'"),
        ('pass = "score"', "'pass' has the wrong form"),
        ("[[pass]\nname = 1", "is no TOML"),
    ],
)
def test_a_bad_recipe_file_is_a_usage_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.from_toml(tmp_path / "r.toml")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("passes = 1", "did you mean 'pass'? keys: description, include, [[pass]] with name = "),
        ("", '[[pass]] with name = "score" and options of that pass as keys'),
        ("[[pass]]\nratio = 1", '[[pass]] with name = "score" and options of that pass as keys'),
        ('[[pass]]\nname = "needy"\nmethod = "a"\nway = 1', "keys in this [[pass]]: name, method"),
        ('[[pass]]\nname = "nothing"\nway = 1', "known passes: "),
        ('[[pass]]\nname = "everything"\ncount = "x"', "expected int"),
    ],
)
def test_a_bad_recipe_file_says_which_keys_it_may_have(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.from_toml(tmp_path / "r.toml")
    assert caught.value.hint.startswith(hint)


def test_a_missing_recipe_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe"):
        Recipe.load(str(tmp_path / "absent.toml"))


def test_two_budgets_are_refused() -> None:
    with pytest.raises(UsageError, match="two budgets: ratio and macs"):
        Recipe.default(ratio=0.5, macs=0.5)


def test_the_schema_lists_every_pass_and_option() -> None:
    schema = json.loads(json.dumps(Recipe.schema()))
    listed = {p["properties"]["name"]["const"]: p for p in schema["properties"]["pass"]["items"]["oneOf"]}
    assert listed.keys() == PASSES.keys()
    for name, described in listed.items():
        assert set(described["properties"]) == {"name", *PASSES[name].options()}
    options = listed["everything"]["properties"]
    assert options["ratio"] == {"type": "number", "default": 0.5}
    assert options["limit"]["anyOf"] == [{"type": "integer"}, {"const": "none"}]
    assert options["mode"]["enum"] == ["auto", "none", "off"]
    assert listed["needy"]["required"] == ["name", "method"]
