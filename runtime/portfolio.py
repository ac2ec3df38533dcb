"""A portfolio that is open: several variants of one model, of which one answers, and which change places at any time.

A run takes the variant that is active when it begins and ends on it; a switch between open variants is one assignment,
so that nothing waits and nothing is lost.  Variants are open all at once (``resident``), or each when it is first asked
for (``lazy``); where there is a budget of memory, those that were not used for longest are closed: a run that is on
them keeps them until it ends.  Start at :meth:`Portfolio.open`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..ir.errors import EnvironmentProblem, ModelError, UsageError
from .feeds import checked
from .guard import Guard
from .manifest import Manifest
from .opened import Answer, Opened
from .prepare import machine
from .session import Array, random_feeds
from .store import slim_bytes, writing
from .variant import Prepared, Stored, Variant

Sessions = Literal["resident", "lazy"]
log = logging.getLogger("prunec.portfolio")
_KEPT = 256
_RACES = 5


@dataclass(frozen=True)
class Switch:
    """A change of the active variant: when (seconds since the epoch), how long it took, and why."""

    at: float
    before: str
    after: str
    seconds: float
    why: str


class Portfolio:
    """Variants of one model that can be run; see :meth:`open`.

    Attributes
    ----------
    name, inputs, outputs
        Of the model.
    variants
        By name, as the manifest has them.
    timings
        For each variant its last runs: when each ended (``time.monotonic``), and its seconds.
    switches
        The last changes of the active variant; ``switched`` counts all, by the variants before and after.
    notes
        What is worth a word: that it was prepared for another machine.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, guard: Guard, threads: int | None, memory_bytes: int | None
    ) -> None:
        self.folder, self.manifest, self._guard = folder, manifest, guard
        self.name, self.inputs, self.outputs = manifest.name, manifest.inputs, manifest.outputs
        self.variants: Mapping[str, Variant] = manifest.variants
        self.memory_bytes = memory_bytes
        self.timings: dict[str, deque[tuple[float, float]]] = {n: deque(maxlen=_KEPT) for n in self.variants}
        self.switches: deque[Switch] = deque(maxlen=_KEPT)
        self.switched: Counter[tuple[str, str]] = Counter()
        self.notes: list[str] = []
        self._threads = threads
        self._opened: dict[str, Opened] = {}  # those used last at the end
        self._loading, self._swapping = threading.RLock(), threading.Lock()
        self._active: Opened | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        variant: str | None = None,
        sessions: Sessions = "resident",
        memory_bytes: int | None = None,
        threads: int | None = None,
    ) -> Portfolio:
        """The portfolio in ``folder``, every byte of it checked.

        Parameters
        ----------
        variant
            The one that answers first; None: the most accurate, of those the fastest.
        sessions
            ``resident`` opens all variants, as far as ``memory_bytes`` allows; ``lazy`` each when it is asked for.
        memory_bytes
            Private memory that open variants may take together, by what was measured of each; None: no limit.
        threads
            Inside an op; None: the cores that this process may use.

        Raises
        ------
        ModelError
            There is no portfolio, it is damaged, or ONNX Runtime cannot load the variant.
        UsageError
            There is no such variant, it takes more memory than allowed, or an option makes no sense.

        Examples
        --------
        >>> portfolio = Portfolio.open("pf")                                       # doctest: +SKIP
        >>> portfolio.run({"x": images})["logits"]
        >>> portfolio.switch("level-3")
        """
        if sessions not in get_args(Sessions):
            raise UsageError(f"sessions cannot be {sessions!r}", hint=f"one of {', '.join(get_args(Sessions))}")
        for option, value in (("threads", threads), ("memory_bytes", memory_bytes)):
            if value is not None and value < 1:
                raise UsageError(f"opening a portfolio: {option} cannot be {value}", hint="1 or more, or None")
        path = Path(folder)
        note = _made_ready(path)
        found = cls(path, *_guarded(path), threads, memory_bytes)
        if note:
            found._note(note)
        found.switch(variant or found.best, why="first")
        if sessions == "resident":
            found._open_all()
        return found

    @property
    def best(self) -> str:
        """The most accurate variant, of those the fastest; the first where no accuracy is known.

        Where there is a budget of memory, of those that fit into it; where none does, the smallest.
        """
        fitting = [v for v in self.variants.values() if self.fits(v.name)]
        if not fitting:
            return min(self.variants, key=self.holds)
        known = [v for v in fitting if v.accuracy is not None]
        if not known:
            return fitting[0].name
        return max(known, key=lambda v: (v.accuracy or 0.0, -(v.latency_ms or 0.0))).name

    @property
    def active(self) -> str:
        """The variant that answers."""
        return self._current.name

    @property
    def resident(self) -> tuple[str, ...]:
        """The variants that are open; those that were used last stand last."""
        return tuple(self._opened)

    def run(self, inputs: Any, outputs: Sequence[str] | None = None, *, variant: str | None = None) -> Answer:
        """Outputs by name for ``inputs``: a mapping by name, one array, or a sequence in the order of the inputs.

        ``variant`` asks for one that need not be the active one.  Threads may call this at the same time, and while
        another switches: the answer says which variant it is from.

        Raises
        ------
        UsageError
            Inputs that do not fit what the model declares, an unknown output or variant.
        ModelError
            The model does not run on them.
        """
        feeds = checked(inputs, self.inputs)
        for name in outputs or ():
            if name not in {o.name for o in self.outputs}:
                hint = f"outputs: {', '.join(o.name for o in self.outputs)}"
                raise UsageError(f"the model has no output {name!r}", hint=hint, output=name)
        self._guard.check()
        opened = self._current if variant is None else self._get(variant)
        answer = opened.run(feeds, outputs)
        self.timings[opened.name].append((time.monotonic(), answer.seconds))
        return answer

    def switch(self, name: str, *, why: str = "asked for", warm: bool = True) -> Switch:
        """Make ``name`` the variant that answers; one that is not open is opened first.

        ``warm``: and run once, so that the first request does not pay for pages that are read for the first time.

        Raises
        ------
        UsageError
            There is no such variant, or it takes more memory than allowed.
        ModelError
            It was damaged since the portfolio was opened, or ONNX Runtime cannot load it.
        """
        start = time.perf_counter()
        opened = self._get(name, warm=warm)
        with self._swapping:
            before, self._active = self._active or opened, opened
            done = Switch(time.time(), before.name, name, time.perf_counter() - start, why)
            if before.name != name:
                self.switches.append(done)
                self.switched[before.name, name] += 1
        if before.name != name:
            log.info("switched from %s to %s: %s", before.name, name, why)
        return done

    def evict(self, name: str) -> bool:
        """Close a variant that does not answer; False where it does, or is not open.  Runs that are on it end first."""
        with self._loading:
            if name == self.active:
                return False
            return self._opened.pop(name, None) is not None

    def holds(self, name: str) -> int:
        """Private bytes that a variant takes when it is open, by what was measured; 0 where nothing was."""
        return self.manifest[name].memory_bytes or 0

    def fits(self, name: str) -> bool:
        """Whether a variant can be open at all within the budget of memory."""
        return self.memory_bytes is None or self.holds(name) <= self.memory_bytes

    @property
    def _current(self) -> Opened:
        assert self._active is not None
        return self._active

    def _get(self, name: str, *, warm: bool = False) -> Opened:
        """An open variant; ``warm``: one that had to be opened has been run."""
        opened = self._opened.get(name)
        if opened is None:
            with self._loading:
                opened = self._opened.get(name) or self._loaded(self.manifest[name], warm)
                self._opened[name] = opened
        self._used(opened)
        return opened

    def _loaded(self, variant: Variant, warm: bool) -> Opened:
        self._make_room(variant.name)
        try:
            opened = self._load(variant)
            if warm:
                opened.run(example(self.manifest))
        except ModelError:
            if self._active is not None:  # it goes on answering, also where it was to make room
                self._opened[self._active.name] = self._active
            raise
        return opened

    def _used(self, opened: Opened) -> None:
        """``opened`` was used last; where another thread is at work on the variants, that is not waited for."""
        known = self._opened.get(opened.name) is opened
        if self._loading.acquire(blocking=not known):  # one that was closed meanwhile is open again
            try:
                self._opened.pop(opened.name, None)
                self._opened[opened.name] = opened
            finally:
                self._loading.release()

    def _make_room(self, name: str) -> None:
        """Close variants, the one unused for longest first, until ``name`` fits into the budget."""
        if self.memory_bytes is None:
            return
        if not self.fits(name):
            raise UsageError(
                f"variant {name} takes {self.holds(name):,} bytes, and {self.memory_bytes:,} are allowed",
                hint="allow more, or choose a smaller variant", name=name,
            )  # fmt: skip
        for other in list(self._opened):
            if sum(map(self.holds, self._opened)) + self.holds(name) <= self.memory_bytes:
                return
            if self._active is None or other != self._active.name:
                del self._opened[other]
        if self._active is not None and sum(map(self.holds, self._opened)) + self.holds(name) > self.memory_bytes:
            self._opened.pop(self._active.name, None)  # it goes once the other answers

    def _load(self, variant: Variant) -> Opened:
        stored = chosen(variant)
        own = isinstance(stored, Prepared)
        self._guard.check()
        return Opened(
            variant.name, slim_bytes(self.folder, stored), self.folder, self._threads,
            prepared=own, prepack=stored.prepack if isinstance(stored, Prepared) else True,
        )  # fmt: skip

    def _note(self, text: str) -> None:
        self.notes.append(text)
        log.warning("portfolio %s: %s", self.folder, text)

    def _open_all(self) -> None:
        for name in self.variants:
            if name in self._opened:
                continue
            if self.memory_bytes is not None:
                taken = sum(map(self.holds, self._opened))
                if taken + self.holds(name) > self.memory_bytes:
                    continue
            self._get(name, warm=True)


def example(manifest: Manifest, batch: int = 1) -> dict[str, Array]:
    """Random inputs of the shapes that the portfolio was measured on."""
    return random_feeds(manifest.inputs, batch=batch, sizes=manifest.example)


def _made_ready(folder: Path) -> str:
    """See that all variants are prepared for this machine; where the folder cannot be written, do without.

    Returns what is worth a word.
    """
    if all(machine() in v.prepared for v in Manifest.read(folder).variants.values()):
        return ""
    try:
        with writing(folder) as store:
            store.prepare()
            store.commit()
        return "it was prepared for another machine, and now is for this one too; latencies are the other's"
    except EnvironmentProblem as error:
        return f"it cannot be prepared for this machine, and takes more time and memory: {error.message}"


def chosen(variant: Variant) -> Stored:
    """What of a variant is run on this machine: what was prepared for it, else the model that was compiled."""
    return variant.prepared.get(machine(), variant.stored)


def _guarded(folder: Path) -> tuple[Manifest, Guard]:
    """The manifest, and all that it names checked; read again where another process replaced it meanwhile."""
    manifest = Manifest.read(folder)
    for _ in range(_RACES):
        try:
            variants = [chosen(v) for v in manifest.variants.values()]
            for stored in variants:
                slim_bytes(folder, stored)
            return manifest, Guard(manifest.pack, {t for s in variants for t in s.tensors})
        except ModelError:
            now = Manifest.read(folder)
            if now.files == manifest.files:
                raise
            manifest = now
    raise ModelError(f"{folder} is being changed all the time", hint="wait until that ends, and open it again")
