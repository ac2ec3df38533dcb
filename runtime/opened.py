"""A variant that is open: an ONNX Runtime session over tensors that lie in the pack.

What makes many of them cheap: the model is prepared, so that nothing is folded or reordered; its tensors are mapped
from the pack, so that variants which share some share the memory too, and the system may drop it at need; buffers come
from one allocator for all sessions.  Start at :class:`Opened`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort

from ..ir.errors import ModelError, first_line
from .prepare import plain_options
from .session import Array

_FOLDER = "session.model_external_initializers_file_folder_path"
_SHARED = threading.Lock()
_shared = False


class Answer(dict[str, Array]):
    """Outputs by name; ``variant`` is the one that computed them, ``seconds`` the time of the run alone."""

    def __init__(self, outputs: Mapping[str, Array], variant: str, seconds: float) -> None:
        super().__init__(outputs)
        self.variant, self.seconds = variant, seconds


class Opened:
    """A session of the variant ``name``; threads may run it at the same time.

    Parameters
    ----------
    model
        The bytes of the model without its tensors, which lie in ``folder``.
    prepared
        Whether ONNX Runtime has nothing to optimise any more.
    prepack
        Whether weights are packed again, in memory of this session's own.

    Raises
    ------
    ModelError
        ONNX Runtime cannot load it.
    """

    def __init__(
        self, name: str, model: bytes, folder: Path, threads: int | None, *, prepared: bool, prepack: bool
    ) -> None:
        self.name = name
        options = plain_options(threads)
        options.add_session_config_entry(_FOLDER, str(folder))
        share_buffers()
        options.add_session_config_entry("session.use_env_allocators", "1")
        if prepared:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(
                f"ONNX Runtime cannot load variant {name}: {first_line(error)}",
                hint="`prunec portfolio verify` says whether its files are whole",
            ) from error
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Answer:
        """The outputs by name; raises :class:`ModelError` when the model does not run on ``feeds``."""
        names = list(outputs or self.outputs)
        start = time.perf_counter()
        try:
            found = self._session.run(names, feeds)
        except Exception as error:
            shapes = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in feeds.items())
            raise ModelError(
                f"variant {self.name} does not run on {shapes}: {first_line(error)}",
                hint="give inputs of the shapes that the model declares",
            ) from error
        return Answer(dict(zip(names, found)), self.name, time.perf_counter() - start)


def share_buffers() -> None:
    """One allocator for all sessions of the process that ask for it; it grows by what is asked for, not by doubling."""
    global _shared
    with _SHARED:
        if not _shared:
            info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            ort.create_and_register_allocator(info, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
            _shared = True
