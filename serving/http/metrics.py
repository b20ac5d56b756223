"""Metrics for Prometheus, of one process or of several workers together."""

import os
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from fedrec.serving.engine import Engine

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Upper bounds of the histogram of seconds."""

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the folder in which workers count together."""


class Metrics:
    """Counts in a registry of its own, so that two apps in one process do not mix."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._seconds = Histogram(
            "fedrec_request_seconds", "Time to answer.", ["route"], registry=registry, buckets=BUCKETS
        )
        self._answers = Counter("fedrec_requests", "Answers by status.", ["route", "status"], registry=registry)
        self._shown = registry
        if os.environ.get(SHARED_FOLDER):
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown)

    def count_answer(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a request."""
        self._seconds.labels(route).observe(seconds)
        self._answers.labels(route, str(status)).inc()

    def show_models(self, engines: Callable[[], Iterable[Engine]]) -> None:
        """Show what answers at the time of a scrape: the same in every worker."""
        self._shown.register(_Models(engines))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._shown)


class _Models(Collector):
    """The models that answer now."""

    def __init__(self, engines: Callable[[], Iterable[Engine]]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        items = GaugeMetricFamily("fedrec_items", "Items on offer.")
        models = GaugeMetricFamily("fedrec_model", "1 for a model that answers.", labels=["version"])
        for engine in self._engines():
            items.add_metric([], len(engine.catalogue))
            models.add_metric([engine.recommender.version], 1)
        return [items, models]
