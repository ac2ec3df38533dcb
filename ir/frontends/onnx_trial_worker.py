"""A process that runs ONNX models for another one, so that a model that crashes the runtime crashes only this one.

It says that it is ready, then reads lines of JSON, ``{"open": path of another model or null, "sizes": {input: [...]},
"examples": path of an .npz or null, "names": [input, ...]}``, and answers each with one: ``{"why": null}`` where the
model ran, else what ONNX Runtime said.  It imports nothing of prunec, which keeps its start short, and ends when nobody
can ask it any more, whatever it is doing.  ``onnx_trial.py`` is the other side.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort

_TYPES = {"float": "float32", "double": "float64", "string": "str"}
"""ONNX Runtime's names of types that numpy calls otherwise."""


def main() -> None:
    """Answer until the other side is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever the runtime prints is no answer
    print("ready", file=answers, flush=True)
    questions: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    session: ort.InferenceSession | Exception = ValueError("no model yet")
    while True:
        asked = json.loads(questions.get())
        if asked["open"]:
            session = _opened(asked["open"])
        print(json.dumps({"why": _why_not(session, asked)}), file=answers, flush=True)


def _listen(questions: SimpleQueue[str]) -> None:
    """Take questions in while a model runs, for it may never end."""
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)


def _opened(path: str) -> ort.InferenceSession | Exception:
    try:
        return _session(path)
    except Exception as error:  # the runtime's exceptions share no base class
        return error


def _why_not(session: ort.InferenceSession | Exception, asked: dict[str, Any]) -> str | None:
    """What went wrong; None where the model ran."""
    try:
        if isinstance(session, Exception):
            raise session
        session.run(None, _feeds(session, asked["sizes"], asked["examples"], asked["names"]))
    except Exception as error:  # the runtime's exceptions share no base class
        return str(error) or type(error).__name__
    return None


def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _feeds(
    session: ort.InferenceSession, sizes: dict[str, list[int]], examples: str | None, names: list[str]
) -> dict[str, Any]:
    """The examples of those ``names``, as far as they have the sizes asked for; random numbers for the other inputs."""
    rng = np.random.default_rng(0)
    arrays = np.load(examples, allow_pickle=False) if examples else {}
    given = {name: arrays[f"x{k}"] for k, name in enumerate(names)}
    feeds = {}
    for x in session.get_inputs():
        if x.name in sizes:
            fits = x.name in given and list(given[x.name].shape) == sizes[x.name]
            feeds[x.name] = (
                given[x.name].astype(_dtype(x.type)) if fits else _random(rng, sizes[x.name], _dtype(x.type))
            )
    return feeds


def _dtype(kind: str) -> str:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(name, name)


def _random(rng: np.random.Generator, shape: list[int], dtype: str) -> Any:
    drawn = rng.standard_normal(shape) if "float" in dtype else rng.integers(0, 2, shape)
    return np.asarray(drawn).astype(dtype)


if __name__ == "__main__":
    main()
