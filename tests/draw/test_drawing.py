"""The files: they stand alone, are the same each time, and what a model calls itself is text in them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest

import prunec
from prunec.draw.drawing import draw
from prunec.draw.markup import Element, as_xml, clean, tag
from prunec.draw.svg import colour
from prunec.findings import findings
from prunec.passes.target import find_target

from ..models import oracle
from ..runtime.onnx_models import layers

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '</title></script><script>alert(\'"&x")</script>\x00'


def drawn(name: str, suffix: str) -> str:
    groups = oracle.known(name).groups
    return draw(groups, findings(groups, find_target("generic")), name, f"x{suffix}")


class _Tags(HTMLParser):
    """Every tag of a page with its attributes, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", "residual multihead_attention custom_op dense_concat lstm".split())
def test_a_page_is_well_formed_and_loads_nothing(name: str) -> None:
    text = drawn(name, ".html")
    tags = _Tags(text)
    assert tags.open == []
    names = [t for t, _ in tags.found]
    assert (names.count("script"), names.count("main"), names.count("aside")) == (1, 1, 1)
    assert not {"link", "img", "iframe", "object", "image", "use", "a"} & set(names)
    assert not any(k in ("src", "href", "xlink:href") or k.startswith("on") for _, a in tags.found for k in a)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "default-src 'none'" in text
    assert names.count("section") == len(oracle.known(name).groups.groups)


@pytest.mark.parametrize("name", "residual multihead_attention custom_op dense_concat lstm".split())
def test_a_picture_is_xml_with_every_group_in_its_legend(name: str) -> None:
    root = ElementTree.fromstring(drawn(name, ".svg"))
    assert root.tag == f"{SVG}svg"
    assert root.find(f".//{SVG}script") is None
    keys = [e.get("class", "") for e in root.iter(f"{SVG}g") if (e.get("class") or "").startswith("key")]
    assert keys == [f"key t{k} g{k}" for k in range(len(oracle.known(name).groups.groups))]
    assert "NaN" not in ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("suffix", [".html", ".svg"])
def test_the_same_model_gives_the_same_bytes(suffix: str) -> None:
    assert drawn("transformer_encoder", suffix) == drawn("transformer_encoder", suffix)


def _evil() -> onnx.ModelProto:
    model = layers(3, 4, 4, 2)
    names = {"w0": f"a.{EVIL}", "r0": f"b{EVIL}", "x": f"in{EVIL}"}
    graph = model.graph
    for item in (*graph.initializer, *graph.input):
        item.name = names.get(item.name, item.name).replace("\x00", "\x01")
    for node in graph.node:
        node.name = f"{node.op_type}{EVIL}".replace("\x00", "\x01")
        node.input[:] = [names.get(n, n).replace("\x00", "\x01") for n in node.input]
        node.output[:] = [names.get(n, n).replace("\x00", "\x01") for n in node.output]
    return model


@pytest.mark.parametrize("suffix", [".html", ".svg"])
def test_names_are_text_whatever_they_hold(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"groups{suffix}"
    prunec.analyze(_evil(), graph=path, source_name=EVIL)
    text = path.read_text(encoding="utf-8")
    tags = [t for t, _ in _Tags(text).found] if suffix == ".html" else []
    assert tags.count("script") == (suffix == ".html")
    root = ElementTree.fromstring(text) if suffix == ".svg" else None
    assert root is None or root.find(f".//{SVG}script") is None
    assert "alert(" in text
    assert "<script>alert" not in text
    assert not set(text) & {chr(k) for k in range(32)} - set("\n\t\r")


def test_a_kind_of_file_that_is_no_drawing(tmp_path: Path) -> None:
    with pytest.raises(prunec.UsageError, match="no kind of drawing"):
        prunec.analyze(layers(3, 4, 2), graph=tmp_path / "groups.png")
    assert list(tmp_path.iterdir()) == []


def test_text_that_markup_cannot_hold_is_marked() -> None:
    assert clean("a\x00\x1fb\ud800\ufffe\n") == "a\ufffd\ufffdb\ufffd\ufffd\n"
    root = Element("r")
    made: Any = tag(root, "t", "<&>", data_x='"', class_="c", gone=None)
    assert as_xml(root) == '<r><t data-x="&quot;" class="c">&lt;&amp;&gt;</t></r>'
    assert made.text == "<&>"


def test_colours_of_neighbours_differ() -> None:
    colours = [colour(k) for k in range(100)]
    assert len(set(colours)) == 100
    assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in colours)
