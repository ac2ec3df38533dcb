"""How much private memory one model takes: run as a program, so that nothing else is in the process.

Arguments: the model, 1 to pack weights again, shapes of inputs as ``name=1x3x224x224``.  Prints bytes: what is private
after a few runs, beyond what a session of nearly nothing takes.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import psutil
from onnx import TensorProto, helper

from prunec.runtime.opened import Opened
from prunec.runtime.session import declared_inputs, random_feeds

_RUNS = 3


def private_bytes() -> int:
    """Memory of this process that is its own and was written to; where that is not told, that is its own."""
    process = psutil.Process()
    maps = process.memory_maps() if hasattr(process, "memory_maps") else []
    if maps and hasattr(maps[0], "private_dirty"):
        return sum(m.private_dirty for m in maps)
    return int(process.memory_full_info().uss)


def main(model: str, prepack: str, *shapes: str) -> int:
    """Bytes that a session of ``model`` takes."""
    path = Path(model)
    nothing = Opened("nothing", _nothing(), path.parent, None, prepared=True, prepack=False)
    sizes = {n: tuple(map(int, filter(None, s.split("x")))) for n, _, s in (item.rpartition("=") for item in shapes)}
    feeds = random_feeds(declared_inputs(path), sizes=sizes)
    gc.collect()
    before = private_bytes()
    opened = Opened("variant", path.read_bytes(), path.parent, None, prepared=True, prepack=prepack == "1")
    for _ in range(_RUNS):
        opened.run(feeds)
    after = private_bytes()
    del nothing
    return max(after - before, 0)


def _nothing() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "nothing", value[:1], value[1:])
    return bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)]).SerializeToString()
    )


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
