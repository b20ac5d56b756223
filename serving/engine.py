"""Questions → answers, over a recommender and a live catalogue; HTTP and the command line both use it.

A question passes four stages: plan (`plan`), encode (`encoding`), rank (`ranking`), answer.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedrec.recsys.nearest import Found
from fedrec.recsys.recommender import Recommender
from fedrec.serving.encoding import QuestionEncoder
from fedrec.serving.explanation import explain_rows
from fedrec.serving.index.vector_index import Index
from fedrec.serving.live_catalogue import POPULARITY, ItemRecord, LiveCatalogue
from fedrec.serving.plan import Plan, plan_question
from fedrec.serving.ranking import Search, rank_items
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.answers import Answer
from fedrec.serving.schema.questions import Question


@dataclass(frozen=True, eq=False)
class Engine:
    """An immutable engine: one that offers other items is another engine."""

    encoder: QuestionEncoder
    catalogue: LiveCatalogue

    @classmethod
    def from_recommender(cls, recommender: Recommender, index: Index | None = None) -> "Engine":
        """Offer the items of a recommender's catalogue; their index is built unless given."""
        encoder = QuestionEncoder(recommender)
        index = index or encoder.build_index()
        if recommender.items.are_apart:
            index = index.beside(recommender.items.read.numpy(), recommender.tower_width)
        return cls(encoder, LiveCatalogue.build(recommender.catalogue, index))

    @property
    def recommender(self) -> Recommender:
        return self.encoder.recommender

    def warm_up(self) -> "Engine":
        """Load the user tower, so that the first caller does not wait for it."""
        self.recommender.user_vector([0])
        return self

    @property
    def reads_texts(self) -> bool:
        """Whether the text encoder is loaded."""
        return self.recommender.encoder.loaded

    def load_text_encoder(self) -> None:
        """Load the text encoder: it takes longer than all the rest, and vectors and histories do not need it."""
        if self.recommender.encoder.reads_texts:
            self.encoder.encode_texts(["ready?"])

    def with_items(self, items: Sequence[ItemRecord]) -> "Engine":
        """Offer these items, too, with different ids, each encoded from its text. Raises `ColumnError`."""
        if not items:
            return self
        vectors = self.encoder.encode_items({item.item_id: item.text for item in items})
        return replace(self, catalogue=self.catalogue.with_items(items, *vectors))

    def without_item(self, item_id: str) -> "Engine":
        """Offer this item no more."""
        return replace(self, catalogue=self.catalogue.without_item(item_id))

    def recommend(self, question: Question) -> Answer:
        """Answer a question in the calling thread. Raises `UnanswerableError`, which names the field."""
        (answer,) = self._answer_questions([question], self.catalogue.index.search_each)
        if isinstance(answer, UnanswerableError):
            raise answer
        return answer

    def recommend_all(self, questions: Sequence[Question]) -> list[Answer | UnanswerableError]:
        """Answer or refuse each question; histories, texts and searches are batched."""
        return self._answer_questions(questions, self.catalogue.index.search_all)

    def similar(self, item_id: str, k: int) -> Answer:
        """Return the k items nearest to an item. Raises `UnanswerableError` with status 404 if it is not on offer."""
        started = time.perf_counter()
        if (row := self.catalogue.find_row(item_id)) is None:
            raise UnanswerableError("item_id", "is not on offer", status=404)
        index = self.catalogue.index
        vector = self.encoder.query_by(index.tower_vectors(np.array([row])))
        ranking = index.search(vector, k, self._all_rows_but([row]))
        return self._write_answer(self._describe(ranking), started)

    def search(self, text: str, k: int, details: bool = False) -> Answer:
        """Return items whose title contains the text, those that begin with it first; then items about it."""
        started = time.perf_counter()
        by_title = [(row, 1.0) for row in self.catalogue.find_titles(text)[:k]]
        vector, others = self.encoder.encode_texts([text])[0], self._all_rows_but([row for row, _ in by_title])
        by_meaning = self.catalogue.index.search(vector, k, others)
        return self._write_answer(self._describe((by_title + by_meaning)[:k], details), started)

    def _answer_questions(self, questions: Sequence[Question], search: Search) -> list[Answer | UnanswerableError]:
        started = time.perf_counter()
        outcomes = [plan_question(question, self.catalogue) for question in questions]
        plans = [outcome for outcome in outcomes if isinstance(outcome, Plan)]
        vectors = self.encoder.encode_plans(plans, self.catalogue.index)
        rankings = rank_items(plans, vectors, self.catalogue, search)
        answers = map(self._answer_plan, plans, vectors, rankings, [started] * len(plans))
        return [outcome if isinstance(outcome, UnanswerableError) else next(answers) for outcome in outcomes]

    def _answer_plan(self, plan: Plan, vector: np.ndarray | None, ranking: Found, started: float) -> Answer:
        question, page = plan.question, ranking[plan.question.offset :]
        items = self._describe(page, question.details)
        if question.explain and vector is not None and len(plan.history):
            reasons = explain_rows(plan, vector, [row for row, _ in page], self.encoder, self.catalogue)
            items = [item | {"because": because} for item, because in zip(items, reasons, strict=True)]
        fallback = POPULARITY if vector is None else None
        return self._write_answer(items, started, unknown_ids=plan.unknown_ids, fallback=fallback)

    def _describe(self, ranking: Found, details: bool = False) -> list[dict[str, Any]]:
        """Look up the id and the title of each ranked row; with `details`, its columns."""
        catalogue = self.catalogue
        items: list[dict[str, Any]] = [
            {"item_id": catalogue.item_id(row), "title": catalogue.title(row), "score": score} for row, score in ranking
        ]
        if details:
            columns = [dict(catalogue.record(row).columns) for row, _ in ranking]
            items = [item | {"columns": each} for item, each in zip(items, columns, strict=True)]
        return items

    def _write_answer(self, items: list[dict[str, Any]], started: float, **fields: Any) -> Answer:
        took = round((time.perf_counter() - started) * 1000, 3)
        version = self.recommender.version
        return Answer.model_validate({"items": items, "model_version": version, "took_ms": took, **fields})

    def _all_rows_but(self, rows: Sequence[int]) -> np.ndarray:
        allowed = np.ones(len(self.catalogue.index.living), dtype=bool)
        allowed[list(rows)] = False
        return allowed
