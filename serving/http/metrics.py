"""Metrics for Prometheus."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Upper bounds of the histogram of seconds."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """A registry of its own, so that two apps in one process do not mix."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    seconds: Histogram = field(init=False)
    answers: Counter = field(init=False)
    items: Gauge = field(init=False)
    model: Gauge = field(init=False)

    def __post_init__(self) -> None:
        registry = self.registry
        seconds = Histogram("fedrec_request_seconds", "Time to answer.", ["route"], registry=registry, buckets=BUCKETS)
        answers = Counter("fedrec_requests", "Answers by status.", ["route", "status"], registry=registry)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "items", Gauge("fedrec_items", "Items on offer.", registry=registry))
        model = Gauge("fedrec_model", "1 for the model that answers.", ["version"], registry=registry)
        object.__setattr__(self, "model", model)

    def count_answer(self, route: str, status: int, seconds: float) -> None:
        self.seconds.labels(route).observe(seconds)
        self.answers.labels(route, str(status)).inc()

    def set_model(self, version: str, items: int) -> None:
        """Record which model answers now."""
        self.model.clear()
        self.model.labels(version).set(1)
        self.items.set(items)
