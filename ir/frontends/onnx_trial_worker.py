"""A process that runs ONNX models for another one, so that a model that crashes the runtime crashes only this one.

It says that it is ready, then reads lines of JSON, ``{"model": path, "sizes": {input: [...]}, "examples": path of an
.npz or null}``, and answers each with one: ``{"why": null}`` where the model ran, else what ONNX Runtime said.  It
imports nothing of prunec, which keeps its start short.  ``onnx_trial.py`` is the other side.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort

_TYPES = {"float": "float32", "double": "float64", "string": "str"}
"""ONNX Runtime's names of types that numpy calls otherwise."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever the runtime prints is no answer
    print("ready", file=answers, flush=True)
    opened: dict[str, ort.InferenceSession] = {}
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            if wanted["model"] not in opened:
                opened = {wanted["model"]: _session(wanted["model"])}
            session = opened[wanted["model"]]
            session.run(None, _feeds(session, wanted["sizes"], wanted["examples"]))
            why = None
        except Exception as error:  # the runtime's exceptions share no base class
            why = str(error) or type(error).__name__
        print(json.dumps({"why": why}), file=answers, flush=True)


def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _feeds(session: ort.InferenceSession, sizes: dict[str, list[int]], examples: str | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    given = dict(np.load(examples, allow_pickle=False)) if examples else {}
    inputs = [x for x in session.get_inputs() if x.name in sizes]
    fitting = {name: x for name, x in given.items() if list(x.shape) == sizes.get(name)}
    return {x.name: fitting[x.name] if x.name in fitting else _random(rng, sizes[x.name], x.type) for x in inputs}


def _random(rng: np.random.Generator, shape: list[int], kind: str) -> Any:
    name = kind.removeprefix("tensor(").removesuffix(")")
    drawn = rng.standard_normal(shape) if name in ("float", "double", "float16") else rng.integers(0, 2, shape)
    return np.asarray(drawn).astype(_TYPES.get(name, name))


if __name__ == "__main__":
    main()
