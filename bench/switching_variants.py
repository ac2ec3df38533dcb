"""Five variants of ResNet-50, as a portfolio and as plain files: what :mod:`bench.switching` opens, swaps and counts.

Weights are random, which changes no time and no byte.  Plain files are the same models as prunec emits them, each
whole, with batch norms folded as torch's own export folds them.  The portfolio is measured as ``prunec portfolio``
measures one, since that decides whether weights are packed again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    import prunec

from prunec.ir.emit.onnx_external import as_emitted
from prunec.runtime.measured import measured
from prunec.runtime.store import Entry, writing

MACS = (0.7, 0.5, 0.3, 0.15)
"""Of the dense network's, that the others keep."""

SIZE = 224


@dataclass(frozen=True)
class Variants:
    """The same models twice: a portfolio in ``folder``, and one file each in ``plain``."""

    folder: Path
    plain: Path
    names: tuple[str, ...]

    def file(self, name: str) -> Path:
        """The plain file of a variant."""
        return self.plain / f"{name}.onnx"


def resnet50(folder: Path, seed: int, *, measure: bool, macs: Sequence[float] = MACS) -> Variants:
    """The dense network and one variant for each of ``macs``, below ``folder``; see :func:`written`."""
    import torch
    import torchvision

    torch.manual_seed(seed)
    model = torchvision.models.resnet50(weights=None).eval()
    inputs = (torch.randn(1, 3, SIZE, SIZE),)
    models = {"dense": prunec.compile(model, inputs, "fold", verify=False, measure=False).onnx}
    folder.mkdir(exist_ok=True)
    dense = folder / "resnet50.onnx"
    onnx.save(models["dense"], dense)
    for share in macs:
        pipeline = f"score,plan{{macs={share}}},eliminate,fold"
        models[f"macs-{share}"] = prunec.compile(str(dense), None, pipeline, verify=False, measure=False).onnx
    dense.unlink()
    return written(folder, [Entry(name, made) for name, made in models.items()], (1, 3, SIZE, SIZE), measure=measure)


def written(folder: Path, entries: Sequence[Entry], shape: Sequence[int], *, measure: bool = True) -> Variants:
    """``entries`` as a portfolio that is measured on inputs of ``shape``, and as plain files, below ``folder``.

    Without ``measure`` it is not, and no weights are packed again.
    """
    folder.mkdir(exist_ok=True)
    made = Variants(folder / "portfolio", folder / "plain", tuple(e.name for e in entries))
    made.plain.mkdir()
    for entry in entries:
        onnx.save(as_emitted(entry.model).whole(), made.file(entry.name))
    with writing(made.folder, folder.name) as store:
        store.add(entries)
        store.revise(lambda m: replace(m, example={m.inputs[0].name: tuple(shape)}))
        if measure:
            store.revise(lambda m: measured(m, budget_s=1.0))
        store.commit()
    return made
