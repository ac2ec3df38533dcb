"""What a criterion sees, the registry of criteria, and the pass that runs one.

A criterion is a function from a :class:`Scoring` to a float for each unit; larger means keep.  Decorate it with
:func:`criterion` and it is known everywhere; ``score{method=package.module:function}`` calls one by its path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir import arrays
from ...ir.codes import codes
from ...ir.errors import ModelError, PrunecError, UsageError, first_line
from ...ir.modules import load_module
from ...ir.words import counted, did_you_mean
from ..base import Kind, Pass, State, register
from ..groups import Groups, reading_ops
from ..meter import Meter
from ..parameter import Parameter

Scores = NDArray[np.float64]


@dataclass(eq=False)
class Scoring:
    """The units of a graph and its parameters, with the sums that criteria are made of."""

    groups: Groups
    state: State
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Elements that are not masked so far, by parameter; one that is absent has none masked."""
    shared: dict[str, Any] = field(default_factory=dict)
    """What a criterion keeps from one step of a mask to the next."""
    single: bool = False
    """Whether what a criterion computes in float64 may be in float32: only the order of elements matters."""

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter that carries at least one unit."""
        analysis = self.groups.analysis
        readers, coded = reading_ops(analysis.graph), codes(analysis.graph)
        for value, constant in analysis.graph.constants.items():
            axes = analysis.axes[value] or []
            if constant.role == "parameter" and any(map(analysis.solution.may_shrink, axes)):
                yield Parameter(value, constant, tuple(readers.get(value, ())), coded.get(value))

    def all_parameters(self) -> Iterator[Parameter]:
        """Every parameter of numbers, or of codes for numbers, whether units may go or not."""
        graph = self.groups.analysis.graph
        coded = codes(graph)
        for value, constant in graph.constants.items():
            if constant.role == "parameter" and (value in coded or arrays.is_float(constant.data)):
                yield Parameter(value, constant, code=coded.get(value))

    def zeros(self) -> Scores:
        return np.zeros(self.groups.analysis.solution.units)

    def spread(self, parameter: Parameter, axis: int, positions: NDArray[Any]) -> Scores:
        """Scores of the positions of one axis, added up for each unit."""
        scores = self.zeros()
        self.add(scores, parameter, axis, positions)
        return scores

    def add(self, scores: Scores, parameter: Parameter, axis: int, positions: NDArray[Any]) -> None:
        """Add :meth:`spread` to ``scores``: what it costs does not depend on how many units there are."""
        atoms = (self.groups.analysis.axes[parameter.value] or [])[axis]
        position, unit = self.groups.analysis.solution.needs(atoms)
        there, at = np.unique(unit, return_inverse=True)
        scores[there] += np.bincount(at, positions.astype(np.float64)[position], there.size)

    def total(self, element: Callable[[Parameter], NDArray[Any]]) -> Scores:
        """Element scores summed over everything that goes with a unit.

        ``element`` gives an array of the parameter's shape.  An element on two axes of one unit counts twice.
        """
        return self._summed(lambda parameter: [(0, element(parameter))])

    def total_by_rows(self, element: Callable[[Parameter], Callable[[NDArray[Any]], NDArray[Any]]]) -> Scores:
        """The same with large parameters read a block at a time: ``element`` gives the function of a block of rows."""

        def blocks(parameter: Parameter) -> Iterator[tuple[int, NDArray[Any]]]:
            function = element(parameter)
            return ((start, function(rows)) for start, rows in parameter.blocks())

        return self._summed(blocks)

    def _summed(self, blocks: Callable[[Parameter], Iterable[tuple[int, NDArray[Any]]]]) -> Scores:
        scores = self.zeros()
        for parameter in self.parameters():
            axes = self.prunable_axes(parameter)
            sums = {d: np.zeros(parameter.shape[d]) for d in axes}
            for start, values in blocks(parameter):
                for d in axes:
                    others = tuple(k for k in range(values.ndim) if k != d)
                    there = slice(start, start + len(values)) if d == 0 else slice(None)
                    sums[d][there] += values.sum(others, dtype=np.float64)
            for d in axes:
                self.add(scores, parameter, d, sums[d])
        return scores

    def prunable_axes(self, parameter: Parameter) -> list[int]:
        """The axes of a parameter that may lose positions."""
        analysis = self.groups.analysis
        return [d for d, axis in enumerate(analysis.axes[parameter.value] or ()) if analysis.solution.may_shrink(axis)]


Criterion = Callable[[Scoring], Scores]
CRITERIA: dict[str, Criterion] = {}

Elements = Mapping[str, NDArray[Any]]
"""For each parameter by name a score of each of its elements; who asked for them may write into them."""

ElementCriterion = Callable[[Scoring], Elements]
ELEMENTS: dict[str, ElementCriterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Enter a criterion into the registry; raises ``ValueError`` for a name that is taken.

    Examples
    --------
    >>> @criterion("elements")
    ... def elements(scoring):
    ...     \"\"\"How many elements a unit has.\"\"\"
    ...     return scoring.total(lambda p: np.ones(p.shape))
    """

    def enter(function: Criterion) -> Criterion:
        if name in CRITERIA:
            raise ValueError(f"two criteria are named {name!r}")
        CRITERIA[name] = function
        return function

    return enter


def element_criterion(name: str) -> Callable[[ElementCriterion], ElementCriterion]:
    """Enter a criterion of single elements; units score the sum over everything that goes with them.

    Its function gives an array of each parameter's shape, :meth:`Scoring.all_parameters`.  Units that have a criterion
    of that name already keep it.

    Examples
    --------
    >>> @element_criterion("squares")
    ... def squares(scoring):
    ...     \"\"\"Energy.\"\"\"
    ...     return {p.name: p.data**2 for p in scoring.all_parameters()}
    """

    def enter(function: ElementCriterion) -> ElementCriterion:
        @functools.wraps(function)
        def of_units(scoring: Scoring) -> Scores:
            found = function(scoring)
            return scoring.total(lambda p: found[p.name])

        if name not in CRITERIA:
            criterion(name)(of_units)
        ELEMENTS[name] = function
        return function

    return enter


def find_elements(name: str) -> ElementCriterion:
    """The criterion of elements called ``name``; raises :class:`UsageError` where there is none."""
    if name not in ELEMENTS:
        raise UsageError(
            f"criterion {name!r} scores units, and a mask needs scores of elements",
            hint=f"score{{method=…}} with one of {', '.join(sorted(ELEMENTS))}",
            name=name,
        )
    return ELEMENTS[name]


def score_elements(name: str, scoring: Scoring) -> Elements:
    """The scores of elements that the criterion ``name`` gives, each of them a finite number.

    Raises
    ------
    UsageError
        The criterion scores units.
    ModelError
        Scores are NaN or infinite.
    """
    found = find_elements(name)(scoring)
    for parameter, scores in found.items():
        if not np.isfinite(scores).all():
            raise ModelError(
                f"scoring: criterion {name!r} gave NaN or infinite scores for elements of {parameter!r}",
                hint="another criterion, other samples, or fewer elements masked before; check the model's weights",
                parameter=parameter,
            )
    return found


def find_criterion(name: str) -> Criterion:
    """The criterion called ``name``, or the function at ``package.module:function``.

    Raises
    ------
    UsageError
        No criterion has that name; or the path cannot be imported, or is no function.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(
            f"unknown criterion {name!r}",
            hint=did_you_mean(name, CRITERIA, f"known: {', '.join(sorted(CRITERIA))}; or package.module:function"),
            name=name,
        )
    try:
        found = getattr(load_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"criterion {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint="write package.module:function or path/file.py:function, as found from the current folder",
            name=name,
        ) from error
    if not callable(found):
        raise UsageError(
            f"criterion {name!r} is a {type(found).__name__}, no function",
            hint="a criterion is a function from a Scoring to one float for each unit",
            name=name,
        )
    chosen: Criterion = found
    return chosen


@register
@dataclass(frozen=True)
class Score(Pass):
    """Score every unit by a criterion.

    method: the criterion (see ``prunec passes``), or package.module:function, or path/file.py:function.
    normalize: divide by the median (mean, maximum) of the unit's group, so that layers compare; or none.
    per: divide by the multiply-accumulates that a unit costs, or none.
    """

    method: str = "lamp"
    normalize: Literal["median", "mean", "max", "none"] = "median"
    per: Literal["none", "macs"] = "none"

    name: ClassVar[str] = "score"
    kind: ClassVar[Kind] = "criterion"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"scores"})

    def run(self, state: State) -> Scores:
        groups: Groups = state.facts["groups"]
        state.facts["criterion"] = self.method
        scores = _scored(self.method, Scoring(groups, state))
        of_units = scores[groups.prunable]
        if of_units.size > 1 and (of_units == of_units[0]).all():
            state.notes.append(
                f"score: {self.method} gives every unit the same score, so that units go in the order of their numbers"
            )
        if self.normalize != "none":
            scores = _normalized(scores, groups, _STATISTICS[self.normalize])
        return scores / _unit_macs(groups) if self.per == "macs" else scores


_RETURNS = (
    "a criterion returns an array of one finite float for each unit: start from scoring.zeros() or scoring.total(…)"
)


def _scored(method: str, scoring: Scoring) -> Scores:
    """The scores that the criterion ``method`` gives, checked: whoever wrote it is told what it should return."""
    function = find_criterion(method)
    own = str(getattr(function, "__module__", "")).startswith(f"{__package__}.")
    try:
        found = function(scoring)
    except (PrunecError, MemoryError):
        raise
    except Exception as error:
        if own:
            raise
        raise UsageError(
            f"scoring: criterion {method!r} failed: {type(error).__name__}: {first_line(error)}",
            hint=f"{_RETURNS}; --debug shows where it fails",
            name=method,
        ) from error
    scores = _as_floats(found, method, scoring.zeros().size)
    _check_finite(scores, scoring, method, own)
    return scores


def _as_floats(found: Any, method: str, units: int) -> Scores:
    kind = str(found.dtype) if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
    none = UsageError(
        f"scoring: criterion {method!r} gave {kind}, which is no array of floats", hint=_RETURNS, name=method
    )
    try:
        array = np.asarray(found)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that has a gradient, or lies elsewhere
        raise none from error
    if array.dtype.kind not in "biuf":
        raise none
    if array.shape != (units,):
        raise UsageError(
            f"scoring: criterion {method!r} gave scores of shape {array.shape} for {counted(units, 'unit')}",
            hint=_RETURNS,
            name=method,
        )
    return np.asarray(array, np.float64)


def _check_finite(scores: Scores, scoring: Scoring, method: str, own: bool) -> None:
    bad = np.count_nonzero(~np.isfinite(scores[scoring.groups.prunable]))
    if not bad:
        return
    message = f"scoring: criterion {method!r} gave NaN or infinite scores for {counted(int(bad), 'unit')}"
    held = (p for p in scoring.parameters() if not arrays.is_meta(p.constant.data))
    where = next((p.name for p in held if not arrays.is_finite(p.constant.data)), "")
    if where or own:
        raise ModelError(
            message + (f"; parameter {where!r} is not finite" if where else ""),
            hint="repair or retrain the model: weights or gradients that are not finite cannot be ranked",
            parameter=where,
        )
    raise UsageError(message, hint=f"{_RETURNS}; every weight is finite", name=method)


_STATISTICS: dict[str, Callable[[Scores], Any]] = {"median": np.median, "mean": np.mean, "max": np.max}


def _normalized(scores: Scores, groups: Groups, statistic: Callable[[Scores], Any]) -> Scores:
    scores = scores.copy()
    for group in groups.groups:
        sizes = np.abs(scores[group.units])
        level = float(statistic(sizes)) or float(sizes.mean())  # a median is 0 where most units are dead
        if level > 0:
            scores[group.units] /= level
    return scores


def _unit_macs(groups: Groups) -> Scores:
    """Multiply-accumulates that one unit of each group costs, for each unit (at least one)."""
    meter = Meter(groups, ("macs",), np.zeros(0, np.int64))
    costs = np.ones(groups.analysis.solution.units)
    for group in groups.groups:
        costs[group.units] = max(meter.saved(group.units[:1])["macs"], 1.0)
    return costs
