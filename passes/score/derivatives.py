"""The network as a differentiable function of its parameters, for criteria that look at gradients.

Torch is imported by the functions that need it.  Start at :class:`Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir import arrays
from ...ir.errors import ModelError, UsageError, first_line
from ..samples import batches
from ..verify import one_example
from .scoring import Elements, Scoring

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


class Network:
    """The graph of a scoring as a function of its parameters; what is masked is multiplied by zero.

    Batch norms see the statistics of the batch with ``training``, if it has more than one example.

    Attributes
    ----------
    weights
        The parameters by name, not masked, each a leaf that wants its gradient.
    masks
        For parameters of which elements are masked: which are not.

    Raises
    ------
    UsageError
        The model is an ONNX file.
    ModelError
        Weights have no values.
    """

    def __init__(self, scoring: Scoring, name: str, *, double: bool = False, training: bool = False) -> None:
        self.scoring, self.name = scoring, name
        self.graph = scoring.groups.analysis.graph
        if self.graph.dialect != "fx":
            raise UsageError(
                f"criterion {name!r} needs gradients", hint="compile the torch module instead of its .onnx file"
            )
        for constant in self.graph.constants.values():
            arrays.require_values(constant.data)
        import torch

        from ...ir.emit.fx import differentiable

        self.double = double
        kept = f"{name} in float64" if double else name
        if kept not in scoring.shared:
            made = differentiable(self.graph, double=double, training=training and self._batch() > 1)
            scoring.shared[kept] = made
        self.module = scoring.shared[kept]
        self.weights = {n: p for n, p in self.module.named_parameters() if p.is_floating_point()}
        self.masks = {n: torch.from_numpy(m) for n, m in scoring.masks.items() if n in self.weights and not m.all()}

    def _batch(self) -> int:
        return max((v.shape[0] for v in self.graph.inputs if v.shape), default=1)

    def masked(self, weights: Mapping[str, torch.Tensor] | None = None) -> Tensors:
        """``weights`` (the network's own if None) times their masks."""
        given = self.weights if weights is None else weights
        return {n: w * self.masks[n] if n in self.masks else w for n, w in given.items()}

    def make_positive(self) -> None:
        """All parameters and buffers become their magnitudes, what is masked zero: in place, for weights may be large.

        They are read from the graph, so that what an earlier mask had may return.
        """
        masks, held = self.scoring.masks, {c.name: c.data for c in self.graph.constants.values()}
        for name, weight in self.weights.items():
            numbers, mask = weight.detach().numpy(), masks.get(name)
            for start, rows in arrays.blocks(held[name]):
                there = slice(start, start + len(rows)) if rows.ndim else ...
                np.multiply(np.abs(rows), True if mask is None else mask[there], out=numbers[there])
        for buffer in self.module.buffers():
            if buffer.is_floating_point():
                buffer.abs_()

    def differentiable_masks(self) -> Tensors:
        """A mask of ones and zeros for each parameter, to be differentiated by."""
        import torch

        full = {n: torch.ones_like(w) for n, w in self.weights.items()}
        return {n: (one * self.masks[n] if n in self.masks else one).requires_grad_() for n, one in full.items()}

    def outputs(self, weights: Mapping[str, torch.Tensor], inputs: list[Any]) -> Any:
        """What the network returns for flat ``inputs`` under ``weights``.

        Raises
        ------
        ModelError
            It does not run on them.
        """
        import torch
        from torch.utils import _pytree as pytree

        given = [x.double() if self.double and _is_number(x) else x for x in inputs]
        args, kwargs = pytree.tree_unflatten(given, self.graph.source["in_spec"])
        try:
            return torch.func.functional_call(self.module, dict(weights), args, kwargs)
        except (RuntimeError, ValueError) as error:  # ValueError: a batch of one has no statistics
            raise ModelError(
                f"criterion {self.name!r}: the model does not run: {first_line(error)}",
                hint="check the samples (batch norm needs two); in-place changes of inputs cannot be differentiated",
            ) from error

    def flow(self, weights: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """The sum of the outputs for inputs of ones (R of SynFlow), under the network's own weights if None."""
        import torch
        from torch.utils import _pytree as pytree

        leaves = pytree.tree_leaves(self.outputs(self.weights if weights is None else weights, self.ones()))
        return torch.stack([t.sum() for t in leaves if _is_number(t)]).sum()

    def leaves(self, outputs: Any) -> list[torch.Tensor]:
        """The tensors of numbers among what the network returns; raises where there is none to differentiate."""
        import torch
        from torch.utils import _pytree as pytree

        found = [t for t in pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor) and t.requires_grad]
        if not found:
            raise ModelError(
                f"criterion {self.name!r}: no output depends on a parameter", hint="a gradient needs a trainable model"
            )
        return found

    def examples(self) -> Iterator[tuple[list[Any], Callable[[Any], torch.Tensor]]]:
        """Flat inputs, and the loss of what the network returns for them: the caller's samples, or the example inputs.

        The loss is the caller's, of (outputs) or, with targets, of (outputs, targets); else the mean square of all
        outputs.
        """
        state = self.scoring.state
        targets = state.context.get("targets")
        if targets is not None and state.context.get("loss") is None:
            raise UsageError(
                f"criterion {self.name!r}: targets are given, and no loss that takes them",
                hint="loss=F.cross_entropy, or another function of (outputs, targets)",
            )
        if state.context.get("samples") is None:
            note = f"score: {self.name} looked at the example inputs, for it was given no samples"
            if note not in state.notes:
                state.notes.append(note)
            yield self.example(), self._loss(None)
            return
        waiting = iter(targets) if targets is not None else None
        for k, inputs in enumerate(batches(self.graph, state, f"criterion {self.name!r}"), 1):
            try:
                yield inputs, self._loss(None if waiting is None else (next(waiting),))
            except StopIteration:
                raise UsageError(
                    f"there are no targets for sample batch {k}", hint="targets are as many as samples"
                ) from None

    def example(self) -> list[Any]:
        """The example inputs, flat, in the batch that the model was read with."""
        from torch.utils import _pytree as pytree

        leaves: list[Any] = pytree.tree_leaves(self.graph.source["example"])
        return leaves

    def ones(self) -> list[Any]:
        """Flat inputs like the example's with ones for all numbers, one example where the batch is free."""
        import torch

        return [torch.ones_like(x) if _is_number(x) else x for x in one_example(self.graph, self.example())]

    def _loss(self, target: tuple[Any] | None) -> Callable[[Any], torch.Tensor]:
        given = self.scoring.state.context.get("loss")

        def loss(outputs: Any) -> torch.Tensor:
            import torch

            if given is None:
                return torch.stack([t.square().mean() for t in self.leaves(outputs)]).sum()
            try:
                found = given(outputs) if target is None else given(outputs, *target)
            except Exception as error:
                raise UsageError(
                    f"criterion {self.name!r}: the loss fails: {type(error).__name__}: {first_line(error)}",
                    hint="loss is a function of (outputs), or of (outputs, targets) where targets are given",
                ) from error
            if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.requires_grad:
                raise UsageError(
                    f"criterion {self.name!r}: the loss gave no scalar tensor that depends on the outputs",
                    hint="loss is a function of the model's outputs (and targets) to a scalar tensor",
                )
            if not found.isfinite():
                raise ModelError(
                    f"criterion {self.name!r}: the loss is {found.item()}",
                    hint="check the weights, the samples (and targets) and the loss function for what is not finite",
                )
            return found

        return loss

    def gradients(self, value: torch.Tensor, of: Mapping[str, torch.Tensor], *, twice: bool = False) -> Tensors:
        """d ``value`` / d each tensor of ``of``, zeros where it does not depend on one."""
        import torch

        found = torch.autograd.grad(value, list(of.values()), create_graph=twice, allow_unused=True)
        pairs = zip(of.items(), found, strict=True)
        return {n: torch.zeros_like(w) if g is None else g for (n, w), g in pairs}

    def elements(self, scores: Mapping[str, torch.Tensor]) -> Elements:
        """Scores as arrays, zeros for parameters that have none."""
        known = {n: s.detach().numpy() for n, s in scores.items()}
        return {p.name: known[p.name] if p.name in known else np.zeros(p.shape) for p in self.scoring.all_parameters()}


def _is_number(leaf: Any) -> bool:
    """Whether an input is a tensor of floating-point numbers."""
    return hasattr(leaf, "dtype") and arrays.is_float(leaf)


def loss_gradients(network: Network) -> Tensors:
    """dL/dw of each parameter at the masked weights, summed over all batches."""
    total: Tensors = {}
    for inputs, loss in network.examples():
        weights = {n: w.detach().requires_grad_() for n, w in network.masked().items()}
        found = network.gradients(loss(network.outputs(weights, inputs)), weights)
        total = {n: g + total[n] if total else g for n, g in found.items()}
    return total
