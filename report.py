"""The report of a compile: JSON-serialisable, keys as ``report_schema.json`` gives them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .ir.analysis import analyse
from .ir.dialects import runtime
from .ir.opset import Alive
from .ir.packing.form import PREFIX
from .passes.base import State
from .passes.cost import CostModel
from .passes.groups import Groups
from .passes.plan.plan import Plan
from .passes.runner import Step
from .version import versions

if TYPE_CHECKING:
    from .ir.emit.onnx_external import Emitted
    from .ir.serial_weights import Written
    from .runtime.copies import Moved


_MOVERS = ("Concat", "Gather", "Slice", "Split", "Transpose", "GatherElements")


@dataclass(frozen=True)
class TorchFiles:
    """The weights of torch modules on disk."""

    compact: Written
    dense: Written

    def as_dict(self, *, zipped: bool = False) -> dict[str, Any]:
        """Forms and bytes, as the report holds them; ``zipped``: what gzip leaves of them too."""
        both = (self.dense, self.compact)
        return {
            "forms": self.compact.forms,
            "size_bytes": pair(*(len(file.data) for file in both)),
            "gzip_bytes": pair(*(_gzip_bytes([file.data]) for file in both)) if zipped else None,
        }


@dataclass(frozen=True)
class Sizes:
    """The emitted models, None where they were not emitted; how many tensors of the compact one are in which form.

    ``torch`` are the files of the torch weights, None where there are none or nothing is packed.  ``zipped``: whether
    gzip is to see packed files.
    """

    compact: Emitted | None
    dense: Emitted | None
    forms: Mapping[str, int] = field(default_factory=dict)
    torch: TorchFiles | None = None
    zipped: bool = False


def build_report(
    groups: Groups,
    alive: Any,
    state: State,
    steps: Sequence[Step],
    verified: dict[str, Any] | None,
    latency: dict[str, Any] | None,
    sizes: Sizes,
    moved: Moved | None,
) -> dict[str, Any]:
    """Everything that is known about a compile; None for what was not done."""
    full = groups.all_alive()
    cost, analysis = groups.cost, groups.analysis
    plan: Plan | None = state.facts.get("plan")
    removed = sum(rewriting.removed for rewriting in state.rewritings)
    if plan is not None and "alive" in state.facts:
        removed += sum(len(d) for d in plan.dropped.values())
    compact, left = _compact(groups, alive, state)
    params = pair(cost.params(full), compact.params(left))
    macs = pair(cost.macs(full), compact.macs(left), per=batch(groups))
    reached = {"ratio": removed / max(1, groups.prunable.size), "macs": macs["ratio"], "params": params["ratio"]}
    asked = plan.budget if plan is not None else {}
    return {
        "params": params,
        "macs": macs,
        "size_bytes": file_bytes(sizes, cost.size_bytes(full), compact.size_bytes(left)),
        "latency_ms": latency,
        "verify": verified,
        "units": {"total": int(groups.prunable.size), "removed": removed, "pinned": analysis.pinned_units()},
        "opaque_ops": analysis.opaque_costs(),
        "opaque_reasons": sorted({f"{o.kind}: {o.why}" for o in analysis.opaque}),
        "conflicts": analysis.solution.conflicts,
        "copies": copies(sizes, moved),
        "moves": None if moved is None else moved.as_dict(),
        "budget": {name: {"asked": value, "reached": reached[name]} for name, value in asked.items()},
        "values": state.values,
        "packed": _packed(sizes) if "packing" in state.facts else None,
        "target": state.target.name,
        "seed": state.seed,
        "passes": [{"name": s.name, "options": s.options, "seconds": s.seconds} for s in steps],
        "notes": list(state.notes),
        "versions": versions(),
    }


def _compact(groups: Groups, alive: Alive, state: State) -> tuple[CostModel, Alive]:
    """What the compact network's costs are counted by: the source without dead positions, or what was rewritten."""
    if not state.rewritings:
        return groups.cost, alive
    analysis = analyse(state.graph)
    return CostModel(analysis), np.ones(analysis.atoms.count, bool)


def batch(groups: Groups) -> int:
    """The batch of the example run, so that costs are given for one example."""
    graph = groups.analysis.graph
    axes = zip(graph.inputs, runtime(graph).batch_axes(graph), strict=True)
    return next((max(1, v.shape[d]) for v, d in axes if d is not None and v.shape), 1)


def pair(dense: float, compact: float, per: int = 1) -> dict[str, float]:
    """Dense, compact and compact/dense, the counts divided by ``per`` (the batch); a ratio of 1 where dense is 0."""
    return {"dense": round(dense / per), "compact": round(compact / per), "ratio": compact / dense if dense else 1.0}


def file_bytes(sizes: Sizes, dense: float, compact: float) -> dict[str, float]:
    """Bytes of the ONNX files where both were emitted; otherwise ``dense`` and ``compact``, bytes of the weights."""
    if sizes.dense is not None and sizes.compact is not None:
        dense, compact = float(sizes.dense.size_bytes()), float(sizes.compact.size_bytes())
    return pair(dense, compact)


def _packed(sizes: Sizes) -> dict[str, Any]:
    """In which forms the tensors of the files are, and what is left of both networks' once gzip has seen them."""
    both = None if sizes.dense is None or sizes.compact is None else (sizes.dense, sizes.compact)
    return {
        "forms": dict(sizes.forms),
        "gzip_bytes": pair(*(_gzip_bytes(m.serialised()) for m in both)) if both and sizes.zipped else None,
        "torch": None if sizes.torch is None else sizes.torch.as_dict(zipped=sizes.zipped),
    }


def repacked(
    report: Mapping[str, Any], emitted: Emitted, forms: Mapping[str, int], torch: Written | None
) -> dict[str, Any]:
    """``report`` of a packed network with what its files are now, where it was trained on since: forms and bytes."""
    was = report["packed"]

    def again(blocks: Mapping[str, Any], key: str, count: Callable[[], int]) -> dict[str, float] | None:
        return None if blocks.get(key) is None else pair(blocks[key]["dense"], count())

    packed = {**was, "forms": dict(forms)}
    packed["gzip_bytes"] = again(was, "gzip_bytes", lambda: _gzip_bytes(emitted.serialised()))
    if was["torch"] is not None and torch is not None:
        packed["torch"] = {
            "forms": torch.forms,
            "size_bytes": again(was["torch"], "size_bytes", lambda: len(torch.data)),
            "gzip_bytes": again(was["torch"], "gzip_bytes", lambda: _gzip_bytes([torch.data])),
        }
    return {**report, "packed": packed, "size_bytes": again(report, "size_bytes", emitted.size_bytes)}


def _gzip_bytes(pieces: Iterable[bytes | memoryview]) -> int:
    stream = zlib.compressobj(wbits=31)
    return sum(len(stream.compress(piece)) for piece in pieces) + len(stream.flush())


def copies(sizes: Sizes, moved: Moved | None) -> int | None:
    """Nodes that only move data and are not in the source; None when there is no emitted graph.

    They are counted in the emitted graph and, where it was asked, in the runtime's optimised one, which changes layouts
    as well; the larger number stands.
    """
    if sizes.dense is None or sizes.compact is None:
        return None
    before, after = (_movers(m) for m in (sizes.dense, sizes.compact))
    return max((after - before).total(), moved.beyond if moved is not None else 0)


def _movers(model: Emitted) -> Counter[str]:
    nodes = (n for n in model.graph.node if not n.name.startswith(PREFIX))
    return Counter(n.op_type for n in nodes if n.op_type in _MOVERS)
