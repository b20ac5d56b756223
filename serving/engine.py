"""A question → an answer, over a recommender and its index. HTTP and the command line both ask here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from recsys.recommender import Recommender
from serving.index import Index
from serving.schema import Answer, Item, Question


class Refused(Exception):
    """A question that is well formed and still cannot be answered: which field, and why."""

    def __init__(self, where: str, detail: str, status: int = 422) -> None:
        super().__init__(f"{where}: {detail}")
        self.where, self.detail, self.status = where, detail, status


@dataclass(frozen=True, eq=False)
class Engine:
    """Safe for several threads: they take turns at the model, and nothing else changes after the start.

    `torch.func.functional_call` puts the adapter into the shared modules while it runs: two at once would mix.
    """

    recommender: Recommender
    index: Index = field(init=False)
    _turn: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", Index(self.recommender.vectors))

    def warm(self) -> "Engine":
        """Load what loads lazily, so that the first caller does not wait for it."""
        self.recommender.user_vector([0])
        self.recommender.query_vector("ready?")
        return self

    def recommend(self, question: Question) -> Answer:
        """Raises `Refused` naming the field where a question cannot be answered."""
        started = time.perf_counter()
        excluded, unknown = self._known(question.exclude)
        history = None
        if question.history is not None:
            history, strangers = self._known(question.history)
            if not len(history):
                raise Refused("history", "none of these ids is in the catalogue")
            unknown = [*strangers, *unknown]
            if question.exclude_seen:
                excluded = np.concatenate([excluded, history])
        found = self.index.search(self._vector(question, history), question.k, excluded)
        return self._answer(found, started, unknown)

    def similar(self, item_id: str, k: int) -> Answer:
        """The items nearest to an item. Raises `Refused` with status 404 for one that is not known."""
        started = time.perf_counter()
        rows, _ = self._known([item_id])
        if not len(rows):
            raise Refused("item_id", f"item {item_id!r} is not in the catalogue", status=404)
        return self._answer(self.index.search(self.index.vector(int(rows[0])), k, rows), started, [])

    def _vector(self, question: Question, history: np.ndarray | None) -> np.ndarray:
        if question.vector is not None:
            return self._direction(np.array(question.vector))
        with self._turn:
            if history is not None:
                return self.recommender.user_vector(history).numpy()
            return self.recommender.query_vector(question.query or "").numpy()

    def _direction(self, vector: np.ndarray) -> np.ndarray:
        """A vector from outside at unit length, however long it came."""
        if len(vector) != self.index.width:
            raise Refused("vector", f"has {len(vector)} numbers where this model has {self.index.width}")
        if not vector.any():
            raise Refused("vector", "is all zeros; it points nowhere")
        vector = vector / np.abs(vector).max()  # else the squares of large numbers overflow
        return vector / np.linalg.norm(vector)

    def _known(self, ids: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        catalogue = self.recommender.catalogue
        known = [item_id for item_id in ids if item_id in catalogue]
        return catalogue.rows(known), [item_id for item_id in ids if item_id not in catalogue]

    def _answer(self, found: list[tuple[int, float]], started: float, unknown: list[str]) -> Answer:
        catalogue = self.recommender.catalogue
        return Answer(
            items=[Item(item_id=catalogue.ids[row], title=catalogue.titles[row], score=score) for row, score in found],
            model_version=self.recommender.version,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
            unknown_ids=unknown,
        )
