from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from prunec.runtime.portfolio import Portfolio
from prunec.serve.metrics import Metrics
from prunec.version import __version__

from .client import as_json, ask
from .serving import DENSE, EXAMPLE, SMALL, Running, running


def samples(server: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples by name and labels."""
    reply = ask(server.url, "/metrics")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(reply.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_everything_is_counted(portfolio: Portfolio) -> None:
    with running(portfolio) as server:
        before = samples(server)
        server.infer(as_json(EXAMPLE))
        portfolio.switch(SMALL)
        server.infer(as_json(EXAMPLE))
        server.infer(as_json(EXAMPLE))
        server.infer(as_json({"x": np.full((1, 4), 3e38, np.float32)}))
        server.infer(b"{")
        found = samples(server)
    assert found[key("prunec_requests_total", variant=DENSE, code="200")] == 1
    assert found[key("prunec_requests_total", variant=SMALL, code="200")] == 2
    assert found[key("prunec_requests_total", variant=SMALL, code="422")] == 1
    assert found[key("prunec_requests_total", variant="", code="400")] == 1
    assert found[key("prunec_request_seconds_count", variant=SMALL)] == 3
    assert found[key("prunec_run_seconds_count", variant=SMALL)] == 3
    assert key("prunec_run_seconds_count", variant="") not in found
    run_s, request_s = (found[key(f"prunec_{what}_seconds_sum", variant=SMALL)] for what in ("run", "request"))
    assert 0 < run_s < request_s
    assert found[key("prunec_active_variant", variant=SMALL)] == 1
    assert found[key("prunec_active_variant", variant=DENSE)] == 0
    switched = key("prunec_switches_total", from_variant=DENSE, to_variant=SMALL)
    assert found[switched] == before.get(switched, 0) + 1
    assert found[key("prunec_queue_depth")] == 0
    assert found[key("prunec_resident_variants")] == 2
    assert found[key("prunec_memory_bytes", kind="rss")] > found[key("prunec_memory_bytes", kind="private")] > 1e6
    assert found[key("prunec_build_info", version=__version__)] == 1


def test_names_that_clients_make_up_are_no_labels(portfolio: Portfolio) -> None:
    with running(portfolio) as server:
        for k in range(20):
            server.infer(as_json(EXAMPLE), variant=f"made-up-{k}")
            server.infer(as_json(EXAMPLE, parameters={"variant": f"made-up-{k}"}))
        assert b"made-up" not in ask(server.url, "/metrics").body
        assert samples(server)[key("prunec_requests_total", variant="", code="404")] == 40


def test_each_server_counts_for_itself(portfolio: Portfolio) -> None:
    with running(portfolio) as first, running(portfolio) as second:
        first.infer(as_json(EXAMPLE))
        assert key("prunec_requests_total", variant=DENSE, code="200") not in samples(second)


@pytest.mark.parametrize("variant", ["x", ""])
def test_a_variant_that_there_is_not_has_the_empty_label(server: Running, variant: str) -> None:
    metrics = Metrics(server.service)
    metrics.answered(variant, 200, 0.1)
    assert 'prunec_requests_total{code="200",variant=""} 1.0' in metrics.text().decode()
