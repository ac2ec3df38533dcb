"""What a run of the fuzz suite met and found; the last lines of ``pytest -m fuzz``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunec.ir.graph import Graph
from prunec.passes.groups import Groups

MOST_EXCUSED, FEW_EXCUSED = 0.02, 2
"""The share of graphs, and the number in a short run, whose errors rounding may explain."""


@dataclass
class Tally:
    """Counts over all graphs; one failure is one batch whose graphs came down to a smallest example."""

    graphs: Counter[str] = field(default_factory=Counter)
    units: int = 0
    excused: int = 0
    ops: set[str] = field(default_factory=set)
    opaque: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def enter(self, graph: Graph, groups: Groups) -> None:
        """Count one graph."""
        self.graphs[graph.dialect] += 1
        self.units += len(groups.prunable)
        self.ops |= {node.op for node in graph.nodes}
        self.opaque.update({o.kind for o in groups.analysis.opaque})

    def excuse(self, drop_sets: int) -> None:
        """Count a graph of which so many drop sets came out wrong, which rounding explains."""
        self.excused += drop_sets > 0
        allowed = max(FEW_EXCUSED, MOST_EXCUSED * sum(self.graphs.values()))
        assert self.excused <= allowed, f"rounding is said to explain {self.excused} graphs, more than {allowed:g}"

    @contextmanager
    def finding(self, where: str) -> Iterator[None]:
        """Count what fails inside."""
        try:
            yield
        except BaseException:
            self.failures.append(where)
            raise

    def lines(self, known: Iterable[str]) -> Iterator[str]:
        """The summary; ``known`` are the ops that are declared."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.graphs.items()))
        declared = set(known)
        yield f"{sum(self.graphs.values())} random graphs ({kinds}), {self.units} units"
        yield f"{len(self.ops & declared)} of {len(declared)} declared ops met; besides {sorted(declared - self.ops)}"
        yield f"{self.excused} graphs with an error that rounding explains"
        yield "opaque in: " + (", ".join(f"{k} ({n})" for k, n in self.opaque.most_common()) or "none")
        yield f"{len(self.failures)} failures found" + "".join(f"\n  {where}" for where in self.failures)


TALLY = Tally()
