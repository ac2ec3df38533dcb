"""The signature language: what an op does to axes, in one line.

``"B (g i) *, (g o) i *, (g o) -> B (g o) *"`` reads like einops.  Lower case is a prunable letter, and the same letter
means the same atoms; UPPER case or a number is a kept axis; ``*`` is any number of kept axes; ``...`` are axes aligned
by broadcasting; ``(a b)`` is a row-major product; ``c!`` is normalised over: removing a position is not zeroing it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from .axes import Atoms, Axes, Axis, Reason, pinned
from .errors import Declined

_TOKEN = re.compile(r"\([^()]*\)|\.\.\.|\*|\w+!?")
_LETTER = re.compile(r"\w+!?")


@dataclass(frozen=True)
class Term:
    """One axis of an operand: its letters (one, or the factors of a product), ``*`` or ``...``."""

    letters: tuple[str, ...]
    normalised: bool = False

    @property
    def spans(self) -> bool:
        return self.letters in (("*",), ("...",))


@dataclass(frozen=True)
class Signature:
    """A parsed signature: terms for each operand and each result."""

    text: str
    operands: tuple[tuple[Term, ...], ...]
    results: tuple[tuple[Term, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """The signature that ``text`` spells; raises :class:`ValueError` where it is malformed."""
        return _parse(text)

    def place(self, operand: int, letter: str) -> int | None:
        """The axis of an operand that has ``letter``, counted from its end (below 0) behind ``*`` and ``...``."""
        terms = self.operands[operand]
        at = next((d for d, term in enumerate(terms) if letter in term.letters), None)
        return at if at is None or not any(term.spans for term in terms[:at]) else at - len(terms)

    def carriers(self, letter: str) -> tuple[int, ...]:
        """The operands that have ``letter``."""
        return tuple(k for k, terms in enumerate(self.operands) if any(letter in term.letters for term in terms))


@cache
def _parse(text: str) -> Signature:
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"signature {text!r} has no '->'")
    return Signature(text, _side(left), _side(right))


def _side(text: str) -> tuple[tuple[Term, ...], ...]:
    return tuple(_operand(operand) for operand in text.split(","))


def _operand(text: str) -> tuple[Term, ...]:
    if rest := _TOKEN.sub("", text).strip():
        raise ValueError(f"signature: {rest!r} in {text.strip()!r} is neither a letter nor (a b), * or ...")
    terms = tuple(_term(token) for token in _TOKEN.findall(text))
    if sum(term.spans for term in terms) > 1:
        raise ValueError(f"signature: {text.strip()!r} has more than one of * and ...")
    return terms


def _term(token: str) -> Term:
    letters = tuple(token.strip("()").split())
    if token.startswith("(") and not all(_LETTER.fullmatch(x) for x in letters):
        raise ValueError(f"signature: the product {token!r} holds more than letters")
    return Term(tuple(x.rstrip("!") for x in letters), any(x.endswith("!") for x in letters))


def is_prunable(letter: str) -> bool:
    return letter.islower()


@dataclass
class Binding:
    """What the letters of a signature stand for in one node."""

    letters: dict[str, Axis] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    aligned: Axes = field(default_factory=list)


def apply(
    signature: Signature,
    atoms: Atoms,
    operands: Sequence[Axes | None],
    result_shapes: Sequence[tuple[int, ...]],
    sizes: Mapping[str, int],
    reason: Reason,
) -> tuple[list[Axes], Binding]:
    """Record what ``signature`` says about ``operands`` and return the axes of the results.

    Parameters
    ----------
    operands
        Axes of each operand, None for one that is absent.
    sizes
        Sizes of letters that are bound to attributes of the node.

    Raises
    ------
    Declined
        When an operand does not have the form that the signature gives.

    Operands beyond a last one that is ``...`` alone are like it.
    """
    binding = Binding(sizes=dict(sizes))
    extra = [axes for axes in operands[len(signature.operands) :] if axes is not None]
    last = signature.operands[-1]
    endless = [last] * len(extra) if last == (Term(("...",)),) else []
    for terms, axes in zip([*signature.operands, *endless], operands, strict=False):
        if axes is not None:
            _bind_operand(terms, list(axes), atoms, binding, reason)
    if len(extra) > len(endless):
        raise Declined(f"{len(extra)} operand(s) more than the signature '{signature.text}' covers")
    results = [
        _result(terms, shape, atoms, binding) for terms, shape in zip(signature.results, result_shapes, strict=True)
    ]
    return results, binding


def _bind_operand(terms: tuple[Term, ...], axes: Axes, atoms: Atoms, binding: Binding, reason: Reason) -> None:
    span = next((k for k, term in enumerate(terms) if term.spans), None)
    if span is not None:
        end = len(axes) - (len(terms) - span - 1)
        if end < span:
            raise Declined(f"rank {len(axes)} is too small")
        if terms[span].letters == ("*",):
            for axis in axes[span:end]:
                atoms.pin(axis, reason)
        else:
            binding.aligned = _align(atoms, binding.aligned, axes[span:end])
        terms, axes = terms[:span] + terms[span + 1 :], axes[:span] + axes[end:]
    if len(terms) != len(axes):
        raise Declined(f"rank {len(axes)} where {len(terms)} axes are declared")
    for term, axis in zip(terms, axes, strict=True):
        grid = _grid(term, len(axis), binding.sizes)
        for letter, factor in zip(term.letters, atoms.split(axis, grid), strict=True):
            _bind(letter, factor, atoms, binding, reason)


def _grid(term: Term, size: int, sizes: Mapping[str, int]) -> list[int]:
    """Sizes of the factors of one axis; at most one is free."""
    if len(term.letters) == 1:
        return [size]
    known = [int(x) if x.isdigit() else sizes.get(x) for x in term.letters]
    free, product = known.count(None), math.prod(k for k in known if k is not None)
    rest, left = divmod(size, product) if product else (0, 0)
    if left or free > 1 or rest < 1 or (rest > 1 and not free):
        raise Declined(f"size {size} does not factor as ({' '.join(term.letters)}) with {dict(sizes)}")
    return [rest if k is None else k for k in known]


def _bind(letter: str, axis: Axis, atoms: Atoms, binding: Binding, reason: Reason) -> None:
    if not is_prunable(letter):
        atoms.pin(axis, reason)
        binding.sizes.setdefault(letter, len(axis))
        return
    known = binding.letters.get(letter)
    if known is None or len(known) == 1:
        binding.letters[letter] = axis
        binding.sizes[letter] = len(axis)
    elif len(axis) == len(known):
        atoms.unify(known, axis)
    elif len(axis) != 1:
        raise Declined(f"letter {letter!r} is {len(known)} in one place and {len(axis)} in another")


def _align(atoms: Atoms, a: Axes, b: Axes) -> Axes:
    """Axes aligned from the last one, as broadcasting does."""
    rank = max(len(a), len(b))
    left, right = _padded(a, rank), _padded(b, rank)
    result: Axes = []
    for x, y in zip(left, right, strict=True):
        if len(x) == len(y):
            atoms.unify(x, y)
        elif len(x) != 1 and len(y) != 1:
            raise Declined(f"sizes {len(x)} and {len(y)} do not broadcast")
        result.append(x if len(x) >= len(y) else y)
    return result


def _padded(axes: Axes, rank: int) -> Axes:
    return [pinned(1)] * (rank - len(axes)) + list(axes)


def _result(terms: tuple[Term, ...], shape: tuple[int, ...], atoms: Atoms, binding: Binding) -> Axes:
    spanned = len(shape) - sum(not term.spans for term in terms)
    axes: Axes = []
    for term in terms:
        if term.letters == ("...",):
            axes += _padded(binding.aligned, spanned) if spanned >= len(binding.aligned) else binding.aligned
        elif term.letters == ("*",):
            axes += [pinned(d) for d in shape[len(axes) : len(axes) + spanned]]
        elif len(axes) < len(shape):
            size = shape[len(axes)]
            grid = _grid(term, size, {**binding.sizes, **{x: len(v) for x, v in binding.letters.items()}})
            factors = [binding.letters.get(x, pinned(d)) for x, d in zip(term.letters, grid, strict=True)]
            axes.append(atoms.merge(factors))
        else:
            raise Declined(f"result of rank {len(shape)} is too small")
    return axes
