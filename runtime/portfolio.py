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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..ir.errors import EnvironmentProblem, ModelError, UsageError, VerificationError
from .feeds import checked
from .guard import Guard
from .manifest import Manifest
from .opened import Answer, Opened
from .prepare import machine
from .residents import Residents
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
        self.timings: dict[str, deque[tuple[float, float]]] = {n: deque(maxlen=_KEPT) for n in self.variants}
        self.switches: deque[Switch] = deque(maxlen=_KEPT)
        self.switched: Counter[tuple[str, str]] = Counter()
        self.notes: list[str] = []
        self._threads = threads
        self._models = {n: slim_bytes(folder, chosen(v)) for n, v in self.variants.items()}
        self._residents = Residents(self._load, self.holds, memory_bytes)
        self._counting = threading.Lock()

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
            Private memory that open variants may take together, by what was measured of each on one example; None: no
            limit.  Buffers of larger batches are shared by all of them, and do not count.
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
        notes = _made_ready(path)
        found = _steady(path, lambda: cls._begun(path, variant, sessions, memory_bytes, threads))
        for note in (*notes, *found._unmeasured()):
            found._note(note)
        return found

    @classmethod
    def _begun(
        cls, folder: Path, variant: str | None, sessions: Sessions, memory_bytes: int | None, threads: int | None
    ) -> Portfolio:
        """The portfolio as the manifest has it at this moment, with the first variants open."""
        manifest = Manifest.read(folder)
        used = [chosen(v) for v in manifest.variants.values()]
        guard = Guard(manifest.pack, {t for stored in used for t in stored.tensors})
        found = cls(folder, manifest, guard, threads, memory_bytes)
        found._residents.activate(manifest[variant or found.best].name)
        for name in found.variants if sessions == "resident" else ():
            found._residents.open_if_it_fits(name)
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
        return max(known, key=lambda v: v.worth).name

    @property
    def active(self) -> str:
        """The variant that answers."""
        return self._residents.active.name

    @property
    def resident(self) -> tuple[str, ...]:
        """The variants that are open; those that were used last stand last."""
        return self._residents.names

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
        self.check_outputs(outputs or ())
        self._guard.check()
        opened = self._residents.active if variant is None else self._residents.get(self.manifest[variant].name)
        answer = opened.run(feeds, outputs)
        self._guard.check()  # what was read in between was what was stored
        self.timings[opened.name].append((time.monotonic(), answer.seconds))
        return answer

    def check_outputs(self, names: Sequence[str]) -> None:
        """Raise :class:`UsageError` for an output that the model does not have."""
        for name in names:
            if name not in {o.name for o in self.outputs}:
                hint = f"outputs: {', '.join(o.name for o in self.outputs)}"
                raise UsageError(f"the model has no output {name!r}", hint=hint, output=name)

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
        before = self._residents.activate(self.manifest[name].name, warm=warm)
        done = Switch(time.time(), before, name, time.perf_counter() - start, why)
        if before != name:
            with self._counting:
                self.switches.append(done)
                self.switched[before, name] += 1
            log.info("switched from %s to %s: %s", before, name, why)
        return done

    def evict(self, name: str) -> bool:
        """Close a variant that does not answer; False where it does, or is not open.

        Runs that are on it go on, and its memory goes with the last of them.
        """
        return self._residents.close(name)

    def holds(self, name: str) -> int:
        """Private bytes that a variant takes when it is open: what was measured on this machine, else on another.

        Where nobody measured it they are its whole size, which is more.
        """
        measured = self.manifest[name].here(machine()).memory_bytes
        return self.manifest[name].size_bytes if measured is None else measured

    def fits(self, name: str) -> bool:
        """Whether a variant can be open at all within the budget of memory."""
        return self._residents.fits(name)

    def close(self) -> None:
        """Watch the files no longer; what runs goes on."""
        self._guard.close()

    def __enter__(self) -> Portfolio:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _load(self, name: str, warm: bool) -> Opened:
        """A session of a variant, whose tensors are those that were checked."""
        stored = chosen(self.variants[name])
        prepack = stored.prepack if isinstance(stored, Prepared) else True
        self._guard.check_name()
        opened = Opened(
            name, self._models[name], self.folder, self._threads,
            prepared=isinstance(stored, Prepared), prepack=prepack,
        )  # fmt: skip
        self._guard.check_name()
        self._guard.check()
        if warm:
            opened.run(example(self.manifest))
        return opened

    def _unmeasured(self) -> Iterator[str]:
        if any(v.here(machine()).memory_bytes is None for v in self.variants.values()):
            yield "variants were not measured: `prunec portfolio measure` does that"

    def _note(self, text: str) -> None:
        self.notes.append(text)
        log.warning("portfolio %s: %s", self.folder, text)


def example(manifest: Manifest, batch: int = 1) -> dict[str, Array]:
    """Random inputs of the shapes that the portfolio was measured on."""
    return random_feeds(manifest.inputs, batch=batch, sizes=manifest.example)


def _made_ready(folder: Path) -> list[str]:
    """See that all variants are prepared for this machine; where that cannot be, do without.

    Returns what is worth a word.
    """
    if all(machine() in v.prepared for v in Manifest.read(folder).variants.values()):
        return []
    try:
        with writing(folder) as store:
            store.prepare()
            store.commit()
        return ["it was prepared for another kind of machine, and now is for this one too; latencies are the other's"]
    except (EnvironmentProblem, VerificationError) as error:
        return [f"it cannot be prepared for this machine, and takes more time and memory: {error.message}"]


def chosen(variant: Variant) -> Stored:
    """What of a variant is run on this machine: what was prepared for it, else the model that was compiled."""
    return variant.prepared.get(machine(), variant.stored)


def _steady(folder: Path, open_it: Callable[[], Portfolio]) -> Portfolio:
    """What ``open_it`` gives; once more where another process replaced the portfolio meanwhile."""
    for _ in range(_RACES):
        files = Manifest.read(folder).files
        try:
            return open_it()
        except ModelError:
            if Manifest.read(folder).files == files:
                raise
    raise ModelError(f"{folder} is being changed all the time", hint="wait until that ends, and open it again")
