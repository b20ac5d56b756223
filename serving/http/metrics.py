"""Metrics for Prometheus, of one process or of several workers together."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from fedrec.serving.engine import Engine

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Upper bounds of the histogram of seconds."""

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the folder in which workers count together."""

Answering = Callable[[], Iterable[tuple[str | None, Engine]]]
"""The engines that answer now, each with its arm if there are two."""


class Metrics:
    """Counts in a registry of its own, so that two apps in one process do not mix."""

    def __init__(self, has_tenants: bool = False) -> None:
        """With `has_tenants`, every metric has the label `tenant`."""
        self._registry, self._tenant = CollectorRegistry(), ("tenant",) if has_tenants else ()
        self.seconds = Histogram(
            *("fedrec_request_seconds", "Time to answer.", (*self._tenant, "route")),
            registry=self._registry,
            buckets=BUCKETS,
        )
        self.answers = self._counter("fedrec_requests", "Answers by status.", "route", "status")
        self.shown = self._counter("fedrec_shown", "Answers by arm of the A/B test.", "arm")
        self.liked = self._counter("fedrec_liked", "Likes by arm that had shown the item.", "arm")
        self._rendered = self._registry
        if os.environ.get(SHARED_FOLDER):
            self._rendered = CollectorRegistry()
            MultiProcessCollector(self._rendered)
        self._models = _Models()
        self._rendered.register(self._models)

    def of_tenant(self, tenant: str, answering: Answering) -> "Meters":
        """Return a tenant's own meters; its models are shown as they are at the time of a scrape."""
        labels = {"tenant": tenant} if self._tenant else {}
        self._models.answering.append((labels, answering))
        return Meters(self, tuple(labels.values()))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._rendered)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, (*self._tenant, *labels), registry=self._registry)


@dataclass(frozen=True, eq=False)
class Meters:
    """The metrics of one deployment."""

    metrics: Metrics
    labels: tuple[str, ...]  # the tenant's name, if there are tenants

    def count_answer(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a request."""
        self.metrics.seconds.labels(*self.labels, route).observe(seconds)
        self.metrics.answers.labels(*self.labels, route, str(status)).inc()

    def count_shown(self, arm: str) -> None:
        """Count an answer of an arm."""
        self.metrics.shown.labels(*self.labels, arm).inc()

    def count_liked(self, arm: str) -> None:
        """Count a like of an item that an arm had shown."""
        self.metrics.liked.labels(*self.labels, arm).inc()


class _Models(Collector):
    """The models that answer now: the same in every worker."""

    def __init__(self) -> None:
        self.answering: list[tuple[dict[str, str], Answering]] = []

    def collect(self) -> Iterable[Metric]:
        items = Metric("fedrec_items", "Items on offer.", "gauge")
        models = Metric("fedrec_model", "1 for a model that answers.", "gauge")
        for labels, answering in self.answering:
            for arm, engine in answering():
                of_arm = labels | ({"arm": arm} if arm else {})
                items.add_sample("fedrec_items", of_arm, len(engine.catalogue))
                models.add_sample("fedrec_model", of_arm | {"version": engine.recommender.version}, 1)
        return [items, models]
