"""What a server counts, in the text format of Prometheus.

Each server has a registry of its own.  What the service knows (queue, switches, memory) is read when somebody asks;
requests are counted as they end.  A label is a variant of the portfolio, or empty where none computed an answer: names
that clients make up never become labels.  Start at :class:`Metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..version import __version__

if TYPE_CHECKING:
    from ..runtime.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one server.

    Parameters
    ----------
    service
        Where queue, variants and switches are read.
    """

    def __init__(self, service: Service) -> None:
        self._known = frozenset(service.portfolio.variants)
        self.registry = CollectorRegistry()
        self.registry.register(ServiceState(service))
        self._requests = Counter(
            "prunec_requests", "Requests for inference that were answered.", ["variant", "code"], registry=self.registry
        )
        self._request_s = _histogram("prunec_request_seconds", "From the head of a request to its answer.", self)
        self._run_s = _histogram("prunec_run_seconds", "The run of the model alone.", self)

    def ran(self, variant: str, seconds: float) -> None:
        """A variant has computed an answer."""
        self._run_s.labels(self._label(variant)).observe(seconds)

    def answered(self, variant: str, code: int, seconds: float) -> None:
        """A request ended with this status; ``variant`` is empty where none computed."""
        self._requests.labels(self._label(variant), str(code)).inc()
        self._request_s.labels(self._label(variant)).observe(seconds)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)

    def _label(self, variant: str) -> str:
        return variant if variant in self._known else ""


def _histogram(name: str, said: str, metrics: Metrics) -> Histogram:
    return Histogram(name, said, ["variant"], registry=metrics.registry, buckets=_SECONDS)


class ServiceState(Collector):
    """What a service knows of itself, read when it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """All metrics; the registry calls this."""
        portfolio = self._service.portfolio
        yield _gauge("prunec_build_info", "The version that serves.", {__version__: 1.0}, "version")
        yield GaugeMetricFamily("prunec_queue_depth", "Requests that wait for a worker.", self._service.depth)
        yield GaugeMetricFamily("prunec_resident_variants", "Variants that are open.", len(portfolio.resident))
        active = {name: float(name == portfolio.active) for name in portfolio.variants}
        yield _gauge("prunec_active_variant", "1 for the variant that answers, 0 for the others.", active, "variant")
        yield _gauge("prunec_memory_bytes", "Memory of this process.", _memory(), "kind")
        yield self._switches()

    def _switches(self) -> Metric:
        found = CounterMetricFamily(
            "prunec_switches", "Changes of the active variant.", labels=["from_variant", "to_variant"]
        )
        for (before, after), count in list(self._service.switched.items()):
            found.add_metric([before, after], count)
        return found


def _gauge(name: str, said: str, values: dict[str, float], label: str) -> Metric:
    found = GaugeMetricFamily(name, said, labels=[label])
    for value, number in values.items():
        found.add_metric([value], number)
    return found


def _memory() -> dict[str, float]:
    """Resident memory, and what of it is this process' alone: mapped weights count in the first."""
    found = psutil.Process().memory_full_info()
    return {"rss": float(found.rss), "private": float(found.uss)}
