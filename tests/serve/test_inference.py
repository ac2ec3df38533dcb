from __future__ import annotations

import asyncio
import http.client
import select
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from onnx import TensorProto

from prunec.ir.errors import ModelError
from prunec.runtime.portfolio import Portfolio
from prunec.serve import bodies
from prunec.serve.decoders import Decoders
from prunec.serve.limits import MB, Limits

from ..runtime.onnx_models import identity, layers
from .client import DTYPES, Reply, as_binary, as_json, ask, connected, head, outputs, received
from .serving import DENSE, EXAMPLE, MODEL, SMALL, Gate, Running, make_portfolio, random_array, running, until

PATH = f"/v2/models/{MODEL}/infer"
BIG = {"x": np.random.default_rng(0).standard_normal((128, 4)).astype(np.float32)}


@pytest.mark.parametrize("variant", [DENSE, SMALL])
@pytest.mark.parametrize("inputs", [EXAMPLE, BIG])
def test_answers_are_those_of_the_variant(server: Running, variant: str, inputs: Any) -> None:
    expected = server.portfolio.run(inputs, variant=variant)["y"]
    replies = [
        server.infer(as_json(inputs), variant=variant),
        server.infer(*as_binary(inputs), variant=variant),
        server.infer(as_json(inputs, parameters={"variant": variant})),
        server.infer(*as_binary(inputs, parameters={"variant": variant, "binary_data_output": True})),
        server.infer(as_json(inputs, parameters={"variant": variant}), variant=variant),
    ]
    for reply in replies:
        np.testing.assert_array_equal(outputs(reply)["y"], expected)
    assert all(b'"model_version":"%s"' % variant.encode() in reply.body for reply in replies)


def test_without_a_variant_the_active_one_answers(server: Running, portfolio: Portfolio) -> None:
    assert server.infer(as_json(EXAMPLE, id="a")).json["model_version"] == DENSE
    portfolio.switch(SMALL)
    reply = server.infer(as_json(EXAMPLE, id="ä"))
    assert (reply.json["model_version"], reply.json["id"], reply.json["model_name"]) == (SMALL, "ä", MODEL)


def test_every_type_goes_there_and_back_again(tmp_path: Path) -> None:
    kinds = {"FP32": "FLOAT", "FP64": "DOUBLE", "FP16": "FLOAT16", "BYTES": "STRING"}
    names = [k for k in DTYPES if k != "BF16"]  # ONNX Runtime takes none from Python
    dims: list[str | int | None] = ["n", 2]
    model = identity(**{k: (TensorProto.DataType.Value(kinds.get(k, k)), dims) for k in names})
    arrays = {k: random_array(DTYPES[k], (3, 2)) for k in names}
    with running(make_portfolio(tmp_path, {DENSE: model})) as server:
        body, header = as_binary(arrays, parameters={"binary_data_output": True})
        for reply in (server.infer(body, header), server.infer(as_json(arrays))):
            found = outputs(reply)
            assert found.keys() == {f"{kind}_out" for kind in arrays}
            for kind, array in arrays.items():
                assert found[f"{kind}_out"].dtype == array.dtype == DTYPES[kind]
                np.testing.assert_array_equal(found[f"{kind}_out"], array)


@pytest.mark.parametrize(
    ("request_", "path", "status", "said"),
    [
        (as_json(EXAMPLE), "/v2/models/tinny/infer", 404, "there is no model 'tinny'"),
        (as_json(EXAMPLE), f"/v2/models/{MODEL}/versions/1/infer", 404, "the model has no variant '1'"),
        (as_json(EXAMPLE, parameters={"variant": "smal"}), PATH, 404, "no variant 'smal'; did you mean 'small'"),
        (
            as_json(EXAMPLE, parameters={"variant": DENSE}),
            f"/v2/models/{MODEL}/versions/{SMALL}/infer",
            400,
            "the path asks for 'small', and the parameter for 'dense'",
        ),
        (b"", PATH, 400, "the request has no JSON"),
        (b"[" * 50_000, PATH, 400, "nested too deep"),
        (as_json({}), PATH, 400, "input 'x' is missing"),
        (as_json({"x": np.ones((129, 4), np.float32)}), PATH, 400, "axis 0 takes 1 to 128"),
        (as_json(EXAMPLE, outputs=[{"name": "z"}]), PATH, 400, "the model has no output 'z'"),
        (b"x" * (5 << 20), PATH, 413, "JSON is larger than 4,194,304 bytes; send tensors as binary data"),
        (as_json({"x": np.full((1, 4), 3e38, np.float32)}), PATH, 422, "NaN or infinite"),
    ],
)
def test_refusals(server: Running, request_: bytes, path: str, status: int, said: str) -> None:
    reply = ask(server.url, path, method="POST", body=request_)
    assert reply.status == status and said in reply.error
    assert reply.headers["content-type"] == "application/json"


def test_what_json_cannot_say_comes_as_bytes(server: Running, portfolio: Portfolio) -> None:
    inputs = {"x": np.array([[np.nan, np.inf, 1, 3e38]], np.float32)}
    reply = server.infer(*as_binary(inputs, parameters={"binary_data_output": True}))
    np.testing.assert_array_equal(outputs(reply)["y"], portfolio.run(inputs)["y"])


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({"content_encoding": "gzip"}, 415, "encoded as 'gzip'"),
        ({"inference_header_content_length": "-1"}, 400, "is '-1'"),
        ({"inference_header_content_length": "100000"}, 400, "is 100,000, and the whole body is"),
        ({"inference_header_content_length": "10"}, 400, "not JSON"),
        ({"inference_header_content_length": "0"}, 400, "the request has no JSON"),
    ],
)
def test_headers_that_lie(server: Running, headers: dict[str, str], status: int, said: str) -> None:
    reply = ask(server.url, PATH, method="POST", body=as_json(EXAMPLE), **headers)
    assert reply.status == status and said in reply.error


def test_a_full_queue_is_503(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(portfolio)
    with running(portfolio, most_waiting=1) as server:
        monkeypatch.setattr(portfolio, "run", gate.run)
        replies = [_later(server), _later(server, lambda: gate.entered == 1)]
        until(lambda: gate.entered == 1 and server.service.depth == 1)
        reply = server.infer(as_json(EXAMPLE))
        assert reply.status == 503 and "send it again later" in reply.error
        assert int(reply.headers["retry-after"]) >= 1
        gate.open()
        assert [r().status for r in replies] == [200, 200]


def _later(server: Running, after: Any = lambda: True) -> Any:
    """A request in a thread; the function that is returned waits for its reply."""
    until(after)
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(server.infer(as_json(EXAMPLE))))
    thread.start()

    def reply() -> Reply:
        thread.join()
        return found[0]

    return reply


@pytest.mark.parametrize("error", [ModelError("secret"), RuntimeError("secret"), MemoryError("secret")])
def test_a_model_that_fails_is_500_and_says_nothing_of_itself(
    portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise error

    with running(portfolio) as server:
        with monkeypatch.context() as changed:
            changed.setattr(portfolio, "run", fail)
            reply = server.infer(as_json(EXAMPLE))
        assert (reply.status, reply.error) == (500, "the model failed on this request; the server's log says more")
        server.check()
    assert "secret" in caplog.text


def test_a_client_that_leaves_takes_no_worker(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(portfolio)
    with running(portfolio) as server:
        monkeypatch.setattr(portfolio, "run", gate.run)
        first = _later(server)
        until(lambda: gate.entered == 1)
        body = as_json(EXAMPLE)
        with connected(server.url) as connection:
            connection.sendall(head(PATH, f"Content-Length: {len(body)}") + body)
            until(lambda: server.service.depth == 1)
        until(lambda: 'code="499"' in ask(server.url, "/metrics").body.decode())
        gate.open()
        assert first().status == 200
        until(lambda: server.service.depth == 0)
        monkeypatch.undo()
        server.check()
        assert gate.entered == 1


def test_many_clients_at_once_get_their_own_answers(server: Running, portfolio: Portfolio) -> None:
    wrong: list[Any] = []

    def client(seed: int) -> None:
        inputs = {"x": random_array(np.dtype(np.float32), (1 + seed, 4), seed)}
        for variant in (DENSE, SMALL) * 5:
            reply = server.infer(*as_binary(inputs), variant=variant)
            expected = portfolio.run(inputs, variant=variant)["y"]
            if reply.status != 200 or not np.array_equal(outputs(reply)["y"], expected):
                wrong.append(reply)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_connection_takes_many_requests(server: Running) -> None:
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port)
    for k in range(5):
        connection.request("POST", PATH, as_json(EXAMPLE, id=str(k)) if k != 2 else b"{")
        response = connection.getresponse()
        assert (response.status, str(k).encode() in response.read()) == ((200, True) if k != 2 else (400, False))
    connection.close()


def test_requests_of_any_size_hold_no_more_than_the_limit(
    portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE_S", 3600)
    limits = Limits(json_bytes=100_000, body_bytes=100_000, held_bytes=150_000, notice_s=0)
    with running(portfolio, limits) as server, connected(server.url) as first, connected(server.url) as second:
        first.sendall(head(PATH, "Content-Length: 90000") + b"x" * 89_999)
        until(lambda: _refused(server, 70_000))
        second.sendall(head(PATH, "Content-Length: 90000", "Connection: close") + b"x" * 90_000)
        assert b"HTTP/1.1 503" in received(second)
        server.check()
        first.sendall(b"x")
        until(lambda: not _refused(server, 70_000))


def test_a_body_that_stalls_is_408_where_others_need_the_room(
    portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE_S", 0)
    limits = Limits(json_bytes=100_000, body_bytes=100_000, held_bytes=150_000, notice_s=0)
    with running(portfolio, limits) as server, connected(server.url) as stalled:
        stalled.sendall(head(PATH, "Content-Length: 90000") + b"x" * 89_999)
        until(lambda: stalled in select.select([stalled], [], [], 0)[0] or _refused(server, 70_000))
        assert b"HTTP/1.1 408" in received(stalled)


def test_answers_that_wait_to_be_written_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 2 MB as bytes takes 4 MB until it is written, and then half of that."""
    limits = Limits(json_bytes=MB, body_bytes=MB, held_bytes=9 * MB, notice_s=0)
    gate, run = threading.Event(), Decoders.run

    async def late(self: Decoders, nbytes: int, function: Any) -> Any:
        while nbytes == 0 and not gate.is_set():  # bytes, of which nothing is converted: an answer
            await asyncio.sleep(0.01)
        return await run(self, nbytes, function)

    monkeypatch.setattr(Decoders, "run", late)
    body, header = as_binary({"x": EXAMPLE["x"].repeat(8, 0)}, parameters={"binary_data_output": True})
    with running(make_portfolio(tmp_path, {DENSE: layers(4, 1 << 16)}), limits) as server:
        replies: list[Reply] = []
        threads = [threading.Thread(target=lambda: replies.append(server.infer(body, header))) for _ in range(6)]
        for thread in threads:
            thread.start()
        until(lambda: len(replies) == 4)
        assert {reply.status for reply in replies} == {503} and "requests in flight hold" in replies[0].error
        gate.set()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies[4:]] == [200, 200]


def test_large_tensors_do_not_wait_behind_large_json(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """For they are not converted."""
    found: list[int] = []
    run = Decoders.run

    def look(self: Decoders, nbytes: int, function: Any) -> Any:
        found.append(nbytes)
        return run(self, nbytes, function)

    monkeypatch.setattr(Decoders, "run", look)
    body, header = as_binary(BIG, parameters={"binary_data_output": True})
    assert server.infer(body, header).status == 200
    assert server.infer(body, header + len(body[header:])).status == 400
    assert found == [header, 0, len(body)]


def _refused(server: Running, size: int) -> bool:
    reply = server.infer(b"x" * size)
    return reply.status == 503 and "requests in flight hold" in reply.error
