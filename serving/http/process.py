"""What everything that one process serves has in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fedrec.serving.batcher import Batcher
from fedrec.serving.database import Database
from fedrec.serving.http.metrics import Metrics
from fedrec.serving.http.rate_limiter import Windows
from fedrec.serving.index.external_index import ExternalIndexes


@dataclass(eq=False)
class Process:
    """The database, the thread that encodes, the windows of the rate limits, the metrics, and the indexes elsewhere."""

    database: Database
    windows: Windows = field(default_factory=Windows)
    metrics: Metrics = field(default_factory=Metrics)
    indexes: ExternalIndexes | None = None  # None: in memory
    waits: bool = False  # accept connections only once the models answer: until then, other workers do
    loaded: Callable[[], object] = lambda: None  # called once, when everything is loaded
    batcher: Batcher = field(init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Encode within the block; at its end answer what is pending, and close all connections."""
        self.batcher = Batcher()
        yield
        self.batcher.close()
        self.database.close()
        if self.indexes:
            self.indexes.close()
