"""Questions → answers, over a recommender and a shelf. HTTP and the command line both ask here."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
import torch

from fedrec.recsys.nearest import Found, best, exact_scores
from fedrec.recsys.recommender import Recommender
from fedrec.serving.index.diversity import POOL, diversified
from fedrec.serving.index.filters import ColumnError
from fedrec.serving.index.vector_index import Asked, Index
from fedrec.serving.live_catalogue import POPULARITY, ItemRecord, LiveCatalogue
from fedrec.serving.schema import Answer, Question, Range, Weight

REASONS = 3
"""Items of the history that an answer is explained by."""

UNIT = 1e-6
"""How far from 1 the length of a unit vector in float32 may be."""

Search = Callable[[Sequence[Asked]], list[Found]]
"""How several searches are made."""


class UnanswerableError(Exception):
    """A question that is well formed and still cannot be answered: which field, and why."""

    def __init__(self, where: str, detail: str, status: int = 422) -> None:
        super().__init__(f"{where}: {detail}")
        self.where, self.detail, self.status = where, detail, status


NOTHING = np.zeros(0, dtype=np.int64)
"""No rows."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A question as this shelf understands it."""

    question: Question
    history: np.ndarray  # rows, oldest first; none where no history was given
    unknown: list[str]
    allowed: np.ndarray | None  # a mask of the rows that may be answered; None: all


@dataclass(frozen=True, eq=False)
class Engine:
    """Nothing of it changes: one that offers other items is another engine. Threads take turns at the text encoder."""

    recommender: Recommender
    shelf: LiveCatalogue
    _turn: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def of(cls, recommender: Recommender, index: Index | None = None) -> "Engine":
        """Over the items that the recommender knows; their index is built where none is given."""
        index = index or Index.over(recommender.vectors.numpy())
        return cls(recommender, LiveCatalogue.of(recommender.catalogue, index))

    def warm(self) -> "Engine":
        """Load what reads histories, so that the first caller does not wait for it."""
        self.recommender.user_vector([0])
        return self

    @property
    def reads_texts(self) -> bool:
        return self.recommender.encoder.loaded

    def load_encoder(self) -> None:
        """Load what reads texts: that takes longer than all the rest, and vectors and histories do not need it."""
        self.read(["ready?"])

    def put(self, goods: Sequence[ItemRecord]) -> "Engine":
        """One that offers these items, too, each at its text's place. Raises `ColumnError`."""
        if not goods:
            return self
        return replace(self, shelf=self.shelf.put(goods, np.stack(self.read([each.text for each in goods]))))

    def drop(self, item_id: str) -> "Engine":
        """One that does not offer this item."""
        return replace(self, shelf=self.shelf.drop(item_id))

    def recommend(self, question: Question) -> Answer:
        """The search takes the calling thread alone. Raises `UnanswerableError` naming the field."""
        (answer,) = self._recommend([question], lambda asked: [self.shelf.index.search(*each) for each in asked])
        if isinstance(answer, UnanswerableError):
            raise answer
        return answer

    def recommend_all(self, questions: Sequence[Question]) -> list[Answer | UnanswerableError]:
        """An answer or a refusal for each; histories and texts are encoded together, and searches made together."""
        return self._recommend(questions, self.shelf.index.search_all)

    def _recommend(self, questions: Sequence[Question], search: Search) -> list[Answer | UnanswerableError]:
        started = time.perf_counter()
        plans = [self._planned(question) for question in questions]
        asked = [plan for plan in plans if isinstance(plan, Plan)]
        vectors = self._vectors(asked)
        found = iter(zip(vectors, self._found(asked, vectors, search), strict=True))
        return [
            plan if isinstance(plan, UnanswerableError) else self._answered(plan, *next(found), started)
            for plan in plans
        ]

    def similar(self, item_id: str, k: int) -> Answer:
        """The items nearest to an item. Raises `UnanswerableError` with status 404 for one that is not known."""
        started = time.perf_counter()
        if (row := self.shelf.row(item_id)) is None:
            raise UnanswerableError("item_id", "is not on offer", status=404)
        found = self.shelf.index.search(self.shelf.index.vector(row), k, self._without([row]))
        return self._told(found, started)

    def search(self, text: str, k: int, details: bool = False) -> Answer:
        """Items whose title holds the text, those that begin with it first; then those that are about it."""
        started = time.perf_counter()
        titled = [(row, 1.0) for row in self.shelf.titled(text)[:k]]
        about = self.shelf.index.search(self.read([text])[0], k, self._without([row for row, _ in titled]))
        return self._told((titled + about)[:k], started, details=details)

    def _planned(self, question: Question) -> Plan | UnanswerableError:
        try:
            return self._plan(question)
        except UnanswerableError as refusal:
            return refusal
        except ColumnError as unfit:
            return UnanswerableError(f"filters.{unfit.column}", unfit.detail)

    def _plan(self, question: Question) -> Plan:
        history, strangers = self._known(question.history or [])
        excluded, more = self._known(question.exclude)
        if question.exclude_seen and len(history):
            excluded = np.concatenate([excluded, history])
        included, most = (None, []) if question.include is None else self._known(question.include)
        if question.vector is not None and len(question.vector) != self.shelf.index.width:
            raise UnanswerableError(
                "vector", f"has {len(question.vector)} numbers where this model has {self.shelf.index.width}"
            )
        if question.vector is not None and not any(question.vector):
            raise UnanswerableError("vector", "is all zeros; it points nowhere")
        if question.history is not None and question.query is None and not len(history):
            self._popular()  # or it is refused
        allowed = self._allowed(question, excluded, included)
        return Plan(question, history, [*strangers, *more, *most], allowed)

    def _allowed(self, question: Question, excluded: np.ndarray, included: np.ndarray | None) -> np.ndarray | None:
        if included is None and not question.filters and not len(excluded):
            return None
        allowed = np.ones(len(self.shelf.index.living), dtype=bool)
        if included is not None:
            allowed[:] = False
            allowed[included] = True
        if question.filters:
            wanted = {
                name: value.model_dump() if isinstance(value, Range) else value
                for name, value in question.filters.items()
            }
            allowed &= self.shelf.mask(wanted)
        allowed[excluded] = False
        return allowed

    def _vectors(self, plans: Sequence[Plan]) -> list[np.ndarray | None]:
        """A vector for each question, at unit length; None where there is nothing to make one of."""
        tastes = iter(self._tastes([plan.history for plan in plans if len(plan.history)]))
        texts = [plan.question.query for plan in plans if plan.question.query is not None]
        read = iter(self.read(texts))

        def vector(plan: Plan) -> np.ndarray | None:
            question = plan.question
            if question.vector is not None:
                return _direction(question.vector)
            taste = next(tastes) if len(plan.history) else None
            if question.query is None:
                return taste
            text = next(read)
            return text if taste is None else _mixed(taste, text, question.mix)

        return [vector(plan) for plan in plans]

    def _found(self, plans: Sequence[Plan], vectors: Sequence[np.ndarray | None], search: Search) -> list[Found]:
        """What each question is answered with, pages before it included."""
        index, wide = self.shelf.index, [plan.question.offset + plan.question.k for plan in plans]
        asked = [
            (vector, -(-last // POOL) * POOL if plan.question.diversity else last, plan.allowed)
            for plan, vector, last in zip(plans, vectors, wide, strict=True)
            if vector is not None
        ]
        nearest = iter(search(asked))
        found = []
        for plan, vector, last in zip(plans, vectors, wide, strict=True):
            if vector is None:
                found.append(self._most_popular(plan.allowed, last))
            elif diversity := plan.question.diversity:
                pool = next(nearest)
                rows = np.array([row for row, _ in pool], dtype=np.int64)
                found.append(diversified(pool, index.vectors(rows), diversity, last))
            else:
                found.append(next(nearest))
        return found

    def _answered(self, plan: Plan, vector: np.ndarray | None, found: Found, started: float) -> Answer:
        question = plan.question
        shown = found[question.offset :]
        answer = self._told(shown, started, plan.unknown, question.details)
        if vector is None:
            return answer.model_copy(update={"fallback": POPULARITY})
        if question.explain and len(plan.history):
            reasons = self._reasons(plan, vector, [row for row, _ in shown])
            items = [item.model_copy(update={"because": why}) for item, why in zip(answer.items, reasons, strict=True)]
            answer = answer.model_copy(update={"items": items})
        return answer

    def _reasons(self, plan: Plan, vector: np.ndarray, rows: Sequence[int]) -> list[list[Weight]]:
        """For each row, the items of the history without which its score would be lowest: left out one by one, and the
        user's vector computed anew. What the user model does not read any more cannot weigh."""
        read = plan.history[-self.recommender.towers.length :]
        items = list(dict.fromkeys(read.tolist()))
        without = self._tastes([plan.history[plan.history != row] for row in items])  # none: a vector of zeros
        if plan.question.query is not None:
            text = self.read([plan.question.query])[0]
            without = [_mixed(taste, text, plan.question.mix) for taste in without]
        vectors = self.shelf.index.vectors(np.array(rows, dtype=np.int64))  # (k, E)
        scores = exact_scores(vectors, np.stack([vector, *without], axis=1))  # (k, 1 + n)
        weights = scores[:, :1] - scores[:, 1:]  # (k, n)
        return [
            [
                Weight(
                    item_id=self.shelf.id(items[place]), title=self.shelf.title(items[place]), weight=float(row[place])
                )
                for place in np.argsort(-row, kind="stable")[:REASONS]
            ]
            for row in weights
        ]

    def _tastes(self, histories: Sequence[np.ndarray]) -> list[np.ndarray]:
        """User vectors after histories of rows, of which some may be of items that came later."""
        if not histories:
            return []
        vectors, places = self.shelf.index.among(np.concatenate(histories))
        ends = np.cumsum([len(history) for history in histories])[:-1]
        return list(self.recommender.user_vectors(torch.from_numpy(vectors), np.split(places, ends)).numpy())

    def read(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Texts' places among the items."""
        if not texts:
            return []
        with self._turn:
            return list(self.recommender.text_vectors(texts).numpy())

    def _popular(self) -> np.ndarray:
        """How popular each row is. Raises `UnanswerableError` where the catalogue does not tell."""
        if (popular := self.shelf.popularity) is None:
            raise UnanswerableError(
                "history", "none of these ids is on offer, and the catalogue tells no popularity; give a query"
            )
        return popular

    def _most_popular(self, allowed: np.ndarray | None, count: int) -> Found:
        living = self.shelf.index.living
        rows = np.flatnonzero(living if allowed is None else living & allowed)
        return best(rows, self._popular()[rows], count)

    def _known(self, ids: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """The rows of those on offer, in their order, and the others."""
        if not ids:
            return NOTHING, []
        rows = [self.shelf.row(item_id) for item_id in ids]
        unknown = [item_id for item_id, row in zip(ids, rows, strict=True) if row is None]
        return np.array([row for row in rows if row is not None], dtype=np.int64), unknown

    def _without(self, rows: Sequence[int]) -> np.ndarray:
        allowed = np.ones(len(self.shelf.index.living), dtype=bool)
        allowed[list(rows)] = False
        return allowed

    def _told(self, found: Found, started: float, unknown: Sequence[str] = (), details: bool = False) -> Answer:
        shelf = self.shelf
        items = [{"item_id": shelf.id(row), "title": shelf.title(row), "score": score} for row, score in found]
        if details:
            items = [item | {"columns": shelf.told(row)} for item, (row, _) in zip(items, found, strict=True)]
        took = round((time.perf_counter() - started) * 1000, 3)
        version = self.recommender.version
        return Answer.model_validate(
            {"items": items, "model_version": version, "took_ms": took, "unknown_ids": list(unknown)}
        )


def _direction(numbers: Sequence[float]) -> np.ndarray:
    """A vector from outside at unit length, however long it came; one that has it, to float32's precision, as it is."""
    vector, length = np.array(numbers), math.hypot(*numbers)
    if math.isinf(length):
        return _direction((vector / np.abs(vector).max()).tolist())
    return (vector if abs(length - 1) < UNIT else vector / length).astype(np.float32)


def _mixed(taste: np.ndarray, text: np.ndarray, share: float) -> np.ndarray:
    """Between two directions; where they cancel out, the text's."""
    mixed = (1 - share) * taste + share * text
    length = math.hypot(*mixed.tolist())
    return (mixed / length if length > 1e-6 else text).astype(np.float32)
