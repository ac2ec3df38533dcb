"""What a model moves at run time: nodes of ONNX Runtime's optimised graph that compute nothing.

A slice or a gather of channels is a copy there, and so is a change of layout between blocks of channels and plain
order, which no exported graph shows.  What counts is what the runtime really runs, so that it is asked: its profile
names every node that ran, its bytes and its time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from .session import Array, Session, Source, feeds_for

MOVERS = frozenset(
    "Concat Expand Gather GatherElements Identity Pad ReorderInput ReorderOutput Slice Split Tile Transpose".split()
)
_RUNS = 5


@dataclass(frozen=True)
class Move:
    """A node that only moves data: its op, the bytes that it writes, and its share of the time of a run."""

    op: str
    name: str
    bytes: int
    share: float


def moves(model: Source, feeds: Mapping[str, Array] | None = None, *, threads: int | None = 1) -> list[Move]:
    """The moving nodes of ``model`` as ONNX Runtime has optimised it, in the order in which they run.

    Raises
    ------
    ModelError
        The model does not load or does not run on ``feeds`` (random ones where they are absent).
    """
    with TemporaryDirectory(prefix="prunec-") as folder:
        session = Session(model, threads=threads, profile=Path(folder, "run"))
        given = feeds_for(session) if feeds is None else feeds
        for _ in range(_RUNS):
            session.run(given)
        events = json.loads(session.end_profile().read_text())
    return list(_moves(events))


def _moves(events: Iterable[Mapping[str, Any]]) -> Iterable[Move]:
    """The first run warms up, and does not count."""
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    times = {name: median(e["dur"] for e in found[1:] or found) for name, found in nodes.items()}
    total = sum(times.values()) or 1
    for name, found in nodes.items():
        what = found[-1]["args"]
        if what["op_name"] in MOVERS:
            yield Move(what["op_name"], name, int(what.get("output_size", 0)), times[name] / total)


@dataclass(frozen=True)
class Moved:
    """What two models move on ``inputs`` of these shapes; ``beyond``: what the compact one has more of, op by op."""

    dense: tuple[Move, ...]
    compact: tuple[Move, ...]
    inputs: Mapping[str, tuple[int, ...]]

    @property
    def more(self) -> Counter[str]:
        """How many more nodes move data, by op."""
        before, after = (Counter(m.op for m in found) for found in (self.dense, self.compact))
        return after - before

    @property
    def beyond(self) -> int:
        """How many more nodes move data; a kind that there is less of makes up for no other."""
        return self.more.total()

    def as_dict(self, *, each: bool = False) -> dict[str, Any]:
        """JSON-serialisable: of both models ``nodes`` by op, ``bytes`` written in a run, ``share`` of its time.

        ``inputs`` are the shapes that they read.  With ``each`` there is a list of the nodes too, longest first.
        """
        found = {"dense": _summary(self.dense, each), "compact": _summary(self.compact, each)}
        return {**found, "beyond": self.beyond, "inputs": {name: list(shape) for name, shape in self.inputs.items()}}


def moved(dense: Source, compact: Source, feeds: Mapping[str, Array] | None = None) -> Moved:
    """What both models move on the same ``feeds``, random ones where they are absent."""
    given = feeds_for(Session(dense, threads=1)) if feeds is None else feeds
    shapes = {name: tuple(array.shape) for name, array in given.items()}
    return Moved(tuple(moves(dense, given)), tuple(moves(compact, given)), shapes)


def _summary(found: tuple[Move, ...], each: bool) -> dict[str, Any]:
    longest = sorted(found, key=lambda m: -m.share)
    return {
        "nodes": dict(sorted(Counter(m.op for m in found).items())),
        "bytes": sum(m.bytes for m in found),
        "share": sum(m.share for m in found),
        **({"each": [asdict(m) for m in longest]} if each else {}),
    }
