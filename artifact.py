"""What a compile gives, and the artifact: what it writes, which comes back without the model's source code.

A folder with ``model.onnx`` (what runs), ``graph.json``, ``weights.safetensors`` (packed where the compile packed) and
``example.safetensors`` (the trainable module; absent when the source was ONNX), ``plan.json``, ``report.json`` and
``manifest.json`` (hashes, versions).  Nothing in it is a pickle, and nothing in it is evaluated: an operator is looked
up by name among torch's own.  Start at :class:`Result`.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import check_folder, file_digest, whole_folder, write_model, write_whole
from .ir import arrays
from .ir.errors import EnvironmentProblem, ModelError
from .ir.graph import Graph
from .ir.packing.packing import PACKING, Packing
from .ir.words import counted, listed
from .models import emitted_onnx
from .pairs import stamp
from .passes.base import revaluing
from .passes.plan.plan import Plan
from .passes.rewrite import Kept
from .report import repacked
from .version import __version__

if TYPE_CHECKING:
    import onnx
    import torch

    from .ir.emit.onnx_external import Emitted

FORMAT = 1
_ARTIFACT = "give the folder that result.save(…) or `prunec compile --save` wrote"
_MODELS = "prunec.compile takes .onnx and .pt2 files, and modules with their weights loaded"


@dataclass(eq=False)
class Result:
    """What a compile gives.

    Attributes
    ----------
    kept
        For each parameter by its source name, one entry an axis: int64 indices that survived, or None for all;
        in the order in which they stand now (``reorder``), so that each is the source's at these indices; -1 for
        zeros that the source does not have (``split``).
    packing, forms
        How weights may be held in files, None for dense ones; how many took which form in the ONNX model.
    values
        The passes that gave weights other numbers.
    plan
        Which units went; None when the pipeline had no planner, an empty one where channels went or moved without.
    report
        JSON-serialisable; see ``report_schema.json``.
    """

    kept: Kept
    plan: Plan | None
    report: dict[str, Any]
    graph: Graph | None = None
    deployed: Graph | None = None
    opset: int | None = None
    packing: Packing | None = None
    values: tuple[str, ...] = ()
    forms: dict[str, int] = field(default_factory=dict)
    emitted: Emitted | None = field(default=None, repr=False)
    retrained: bool = False
    _module: torch.nn.Module | None = field(default=None, repr=False)

    @property
    def module(self) -> torch.nn.Module | None:
        """The compact, trainable module with the source's state-dict keys; None when the source was ONNX."""
        if self._module is None and self.graph is not None and self.graph.dialect == "fx":
            from .ir.emit.fx import emit

            self._module = emit(self.graph)
            self._module.meta[PACKING] = self.packing
        return self._module

    @property
    def onnx(self) -> onnx.ModelProto:
        """The compact network as ONNX, with the weights that ``module`` has now; emitted on first use."""
        from .ir.emit.onnx_external import Emitted

        model = self.emit()
        if model.tensors:
            self.emitted = model = Emitted(model.whole())
        return model.proto

    def emit(self) -> Emitted:
        """The same, to be written or run: tensors of a source that lies on disk are read when they are needed."""
        current = self._with_trained()
        if current.emitted is None:
            graph = current.deployed if current.deployed is not None else current.graph
            assert graph is not None
            current.emitted = emitted_onnx(graph, self.opset)
            if self.packing is not None:
                from .ir.emit.onnx_packed import packed

                current.emitted, current.forms = packed(current.emitted, self.packing)
            stamp(current.emitted.proto, self.plan, self.values)
        self.graph, self.deployed, self.emitted = current.graph, current.deployed, current.emitted
        self.forms, self.retrained = current.forms, current.retrained
        return current.emitted

    def save(self, directory: str | Path) -> None:
        """Write the artifact: graph, plan, report, provenance; with the weights that ``module`` has now.

        Raises
        ------
        EnvironmentProblem
            The folder cannot be written, or holds something that is no artifact.
        """
        save(self._with_trained(), directory)

    def _with_trained(self) -> Result:
        """This result with the module's present weights in its graph; ONNX emitted anew where they changed."""
        if self._module is None or self.graph is None:
            return self
        graph, state, changed = self.graph.copy(), self._module.state_dict(), False
        lost: list[str] = []
        for value, constant in graph.constants.items():
            if constant.name not in state or arrays.is_meta(constant.data):
                continue
            held = state[constant.name].detach().to(constant.data.device)
            if not bool((held == constant.data).all()):
                graph.constants[value] = replace(constant, data=held.clone())
                changed = True
                lost += [constant.name] if self._loses_form(constant.data, held) else []
        if not changed:
            return self
        if lost:
            self._say(
                f"{counted(len(lost), 'weight')} changed since the compile, of which the packed form no longer holds, "
                f"and which files hold dense: {listed(lost)}"
            )
        return replace(self, graph=graph, deployed=None, emitted=None, retrained=True)

    def _loses_form(self, before: torch.Tensor, now: torch.Tensor) -> bool:
        """Whether a tensor had a packed form ``before`` and has none ``now``."""
        if self.packing is None:
            return False
        from .ir.serial_weights import smallest

        return smallest(before, self.packing) is not None and smallest(now, self.packing) is None

    def _say(self, note: str) -> None:
        """A note in the report, and a warning: what it is about comes after the compile."""
        notes = self.report.setdefault("notes", [])
        if note not in notes:
            notes.append(note)
            warnings.warn(f"prunec: {note}", stacklevel=4)


def save(result: Result, directory: str | Path) -> None:
    """Write the artifact of ``result`` as a folder: whole, or not at all; an artifact that is there is replaced.

    Raises
    ------
    EnvironmentProblem
        The folder cannot be written, or holds something that is no artifact.
    """
    target = Path(directory)
    check_folder(target)
    if target.exists() and any(target.iterdir()) and not (target / "manifest.json").exists():
        raise EnvironmentProblem(f"saving to {target}: the folder holds other files", hint="give a new or empty folder")
    with whole_folder(target) as staging:
        _fill(result, staging)


def _fill(result: Result, folder: Path) -> None:
    write_model(folder / "model.onnx", result.emit())
    if result.graph is not None and result.graph.dialect == "fx":
        from .ir.serial import save_graph

        save_graph(result.graph, folder, result.packing)
    write_whole(folder / "plan.json", _text(result.plan.to_json() if result.plan else None))
    write_whole(folder / "report.json", _text(_as_written(result)))
    kept = {n: [None if k is None else k.tolist() for k in axes] for n, axes in result.kept.items()}
    write_whole(folder / "kept.json", _text(kept))
    hashes = {p.name: file_digest(p) for p in sorted(folder.iterdir())}
    write_whole(folder / "manifest.json", _text({"format": FORMAT, "prunec": __version__, "sha256": hashes}))


def _as_written(result: Result) -> dict[str, Any]:
    """The report; forms and bytes of packed weights are those of the files, where it was trained on since."""
    if not result.retrained or not result.report.get("packed"):
        return result.report
    weights = None
    if result.graph is not None and result.graph.dialect == "fx":
        from .ir.serial import weights_file

        weights = weights_file(result.graph, result.packing)
    return repacked(result.report, result.emit(), result.forms, weights)


def load(directory: str | Path) -> Result:
    """The result that :func:`save` wrote: module, ONNX, plan, report and kept indices.

    Raises
    ------
    ModelError
        The folder is no artifact, or a file of it is missing or was changed.
    """
    from .ir.emit.onnx_external import Emitted
    from .ir.frontends.onnx_file import read_model
    from .ir.frontends.onnx_names import opset_of
    from .ir.frontends.onnx_packed import packing_of

    folder = Path(directory)
    _check_is_folder(folder)
    manifest = _read(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(
            f"loading {folder}: not an artifact of format {FORMAT}", hint="save it again with this version"
        )
    _check(folder, manifest.get("sha256"))
    graph = None
    if (folder / "graph.json").exists():
        from .ir.serial import load_graph

        graph = load_graph(folder)
    model = read_model(str(folder / "model.onnx"))
    packing = packing_of(model) if graph is None else graph.source[PACKING]
    plan, report = _read(folder / "plan.json"), _read(folder / "report.json")
    kept = {
        n: tuple(None if k is None else np.asarray(k, np.int64) for k in axes)
        for n, axes in _read(folder / "kept.json").items()
    }
    return Result(
        graph=graph, kept=kept, plan=Plan.from_json(plan) if plan else None, report=report, opset=opset_of(model),
        packing=packing, values=revaluing(report.get("values") or ()),
        forms=(report.get("packed") or {}).get("forms", {}),
        emitted=Emitted(model),
    )  # fmt: skip


def _check_is_folder(path: Path) -> None:
    """Raise :class:`ModelError` for what can be no artifact, with what to do instead."""
    if path.is_dir():
        return
    if not path.exists():
        raise ModelError(f"loading {path}: there is no such folder", hint=_ARTIFACT)
    inside = (path.parent / "manifest.json").exists()
    raise ModelError(
        f"loading {path}: it is a file, and an artifact is a folder",
        hint=f"give {path.parent}, in which it lies" if inside else f"{_ARTIFACT}; {_MODELS}",
    )


def _check(folder: Path, hashes: Any) -> None:
    if not isinstance(hashes, dict) or "model.onnx" not in hashes:
        raise ModelError(f"loading {folder}: the manifest names no files", hint="save the artifact again")
    for name, digest in hashes.items():
        if not re.fullmatch(r"[\w.]+", name) or name.startswith("."):
            raise ModelError(
                f"loading {folder}: the manifest names {name!r}, which is no file of an artifact",
                hint="do not trust this folder; save the artifact again",
            )
        path = folder / name
        if not path.is_file():
            raise ModelError(f"loading {folder}: {name} is missing", hint="save the artifact again")
        if file_digest(path) != digest:
            raise ModelError(
                f"loading {folder}: {name} is not what was saved (its hash differs)", hint="save the artifact again"
            )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"loading {path.parent}: {path.name} is missing", hint=_ARTIFACT) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"loading {path}: {error}", hint="save the artifact again") from None


def _text(data: Any) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
