"""Requests with known answers: batches of images, their labels, and what each variant says of them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

CLOSE = 1e-3
"""Of the largest output: how far an answer may be from the variant's own, since sums run in another order."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Requests:
    """``images`` (kinds, batch, …), ``labels`` (kinds, batch), ``answers`` by variant (kinds, batch, classes)."""

    images: Floats
    labels: NDArray[np.int64]
    answers: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.images)

    def is_answer(self, kind: int, variant: str, found: Floats) -> bool:
        """Whether ``found`` is what ``variant`` says of a request."""
        return _apart(self.answers[variant][kind], found) <= CLOSE

    def right(self, kind: int, found: Floats) -> float:
        """Share of the images of a request that an answer names right."""
        return float((found.argmax(1) == self.labels[kind]).mean())

    @property
    def apart(self) -> float:
        """How far the answers of two variants to one request are apart, at least; an answer of another is noticed."""
        given = list(self.answers.values())
        pairs = [(a, b) for k, a in enumerate(given) for b in given[:k]]
        return min((_apart(a[k], b[k]) for a, b in pairs for k in range(len(self))), default=float("inf"))


def requests(
    images: Floats, labels: NDArray[np.int64], files: Mapping[str, Path], *, kinds: int, batch: int, seed: int
) -> Requests:
    """``kinds`` random batches; a default session for each of ``files`` says what the variant answers.

    Raises
    ------
    ValueError
        Two variants answer a request alike, so that nobody could tell whose an answer is.
    """
    chosen = np.random.default_rng(seed).integers(len(images), size=(kinds, batch))
    answers = {name: _answers(path, images[chosen]) for name, path in files.items()}
    found = Requests(images[chosen], labels[chosen], answers)
    if found.apart <= 2 * CLOSE:
        raise ValueError("two variants give the same answer to a request: train them, or draw others")
    return found


def _answers(path: Path, images: Sequence[Floats] | Floats) -> Floats:
    session = ort.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: batch})[0] for batch in images])


def _apart(wanted: Floats, found: Floats) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    return float(np.abs(wanted - found).max() / np.abs(wanted).max())
