from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunec.ir.errors import ModelError
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Service
from prunec.runtime.session import Input
from prunec.serve import make_app
from prunec.version import __version__

from .client import ask
from .serving import DENSE, MODEL, SMALL, Running

DECLARED = {
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (
            "/v2",
            {
                "name": "prunec",
                "version": __version__,
                "extensions": ["binary_tensor_data", "model_repository_index"],
            },
        ),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models", {"models": [{"name": MODEL, "variants": [DENSE, SMALL], "active": DENSE}]}),
        (
            f"/v2/models/{MODEL}",
            {"name": MODEL, "versions": [DENSE, SMALL], "parameters": {"active": DENSE}, **DECLARED},
        ),
        (f"/v2/models/{MODEL}/ready", {"name": MODEL, "ready": True}),
        (f"/v2/models/{MODEL}/versions/{SMALL}/ready", {"name": MODEL, "ready": True}),
    ],
)
def test_documents(server: Running, portfolio: Portfolio, path: str, document: Any) -> None:
    reply = ask(server.url, path)
    assert (reply.status, reply.headers["content-type"], reply.json) == (200, "application/json", document)


def test_a_variant_says_what_is_known_of_it(server: Running, portfolio: Portfolio) -> None:
    found = ask(server.url, f"/v2/models/{MODEL}/versions/{SMALL}").json
    assert found["versions"] == [SMALL] and {k: found[k] for k in DECLARED} == DECLARED
    known = portfolio.variants[SMALL]
    assert found["parameters"]["accuracy"] == known.accuracy
    assert found["parameters"]["size_bytes"] == known.size_bytes
    assert None not in found["parameters"].values()


def test_the_index_lists_all_variants(server: Running) -> None:
    found = ask(server.url, "/v2/repository/index", method="POST", body=b"{}").json
    ready = {"name": MODEL, "state": "READY", "reason": ""}
    assert found == [{**ready, "version": DENSE}, {**ready, "version": SMALL}]


def test_the_active_variant_is_said(server: Running, portfolio: Portfolio) -> None:
    portfolio.switch(SMALL)
    assert ask(server.url, "/v2/models").json["models"][0]["active"] == SMALL


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/models/tinny", f"there is no model 'tinny'; this server has '{MODEL}'"),
        ("/v2/models/tinny/ready", "there is no model"),
        ("/v2/models/" + "x" * 9999, "there is no model 'xxx"),
        (f"/v2/models/{MODEL}/versions/smal", "the model has no variant 'smal'; did you mean 'small'?"),
        (f"/v2/models/{MODEL}/versions/1/ready", "the model has no variant '1'; there are dense, small"),
        (f"/v2/models/{MODEL}/versions/%00%FF", "the model has no variant"),
        ("/", "there is nothing at this path"),
        ("/v2/", "there is nothing at this path"),
        ("/v2/models/%2e%2e/%2e%2e/etc/passwd", "there is nothing at this path"),
    ],
)
def test_what_there_is_not_is_404(server: Running, path: str, said: str) -> None:
    reply = ask(server.url, path)
    assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
    assert said in reply.error and len(reply.error) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2", "GET"),
        ("DELETE", "/v2/health/live", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", f"/v2/models/{MODEL}/infer", "POST"),
        ("PUT", f"/v2/models/{MODEL}/versions/{SMALL}/infer", "POST"),
        ("POST", "/metrics", "GET"),
    ],
)
def test_a_wrong_method_is_405(server: Running, method: str, path: str, allowed: str) -> None:
    reply = ask(server.url, path, method=method)
    assert (reply.status, reply.error) == (405, f"{method} is not for this path")
    assert allowed in reply.headers["allow"]


def test_the_head_alone_is_to_be_had(server: Running) -> None:
    reply = ask(server.url, "/v2", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")


def test_a_model_that_the_protocol_cannot_carry_is_not_served(portfolio: Portfolio) -> None:
    with Service(portfolio) as service:
        service.portfolio = _Changed(portfolio, inputs=(Input("z", np.dtype(np.complex64), (1,)),))  # type: ignore[assignment]
        with pytest.raises(ModelError, match="'z': tensors of complex64 cannot be served"):
            make_app(service)


class _Changed:
    """A portfolio of which some attributes are others."""

    def __init__(self, portfolio: Portfolio, **changes: Any) -> None:
        self.__dict__.update(portfolio.__dict__, **changes)
