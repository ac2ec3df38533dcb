"""How much a server takes from its clients: bytes, connections and seconds.

Problem: whoever can reach the port can send anything, for any length of time.  Idea: every buffer and every wait of the
server has a bound, and all bounds stand here.  Left out on purpose: how many requests wait for a worker, which is the
queue of :class:`~prunec.runtime.service.Service`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ..ir.errors import UsageError

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a server takes; sizes in bytes, times in seconds.

    Attributes
    ----------
    body_bytes
        Of one request whose tensors are binary.
    json_bytes
        Of the JSON of a request.  It is smaller, for parsing holds the interpreter's lock (15 ms for each MB), and
        takes up to 10 times the memory.
    held_bytes
        Of all requests and answers together that the server holds at one time; the first 64 KiB of each are not
        refused.
    json_answer_bytes
        Of the data of one output as JSON; binary outputs have no such limit.
    head_bytes
        Of the request line and the headers.
    connections
        Open at one time.  Where one more comes, the connection that has waited longest for its client goes.
    batch
        Size of a first axis that the model leaves open.
    axis
        Size of every other axis that it leaves open.
    strings
        Elements of one tensor of strings.
    head_s
        From the beginning of a connection, or the end of the answer before, until the head of a request is complete.
    body_s
        From then on until its body is.
    idle_s
        Until a connection on which nothing comes is closed.
    answer_s
        For a client to read an answer.
    linger_s
        How long the rest of a body is still read (and dropped) after a refusal, so that the client sees the refusal.
    notice_s
        From the signal to stop, and not being ready, until no more connections are taken.
    grace_s
        From then on until requests in flight are given up.
    """

    body_bytes: int = 64 * MB
    json_bytes: int = 4 * MB
    held_bytes: int = 256 * MB
    json_answer_bytes: int = 16 * MB
    head_bytes: int = 16 << 10
    connections: int = 512
    batch: int = 128
    axis: int = 4096
    strings: int = 65536
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 5.0
    answer_s: float = 30.0
    linger_s: float = 2.0
    notice_s: float = 0.5
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value) or value < 0 or (value == 0 and name not in ("notice_s", "grace_s")):
                raise UsageError(f"the limit {name} cannot be {value}", hint="give a positive number", limit=name)
        for name in ("body_bytes", "json_bytes"):
            if getattr(self, name) > self.held_bytes:
                raise UsageError(
                    f"the limit {name} is {getattr(self, name):,}, and that of all requests {self.held_bytes:,}",
                    hint="give held_bytes a multiple of it", limit=name,
                )  # fmt: skip
