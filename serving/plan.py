"""First stage of an answer: look up a question's ids and filters in the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedrec.serving.index.filters import ColumnError
from fedrec.serving.live_catalogue import LiveCatalogue
from fedrec.serving.popularity import require_popularity
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.questions import Question, Range

NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Plan:
    """A question in rows of the catalogue."""

    question: Question
    history: np.ndarray  # rows, oldest first; empty without a history
    unknown_ids: list[str]
    allowed: np.ndarray | None  # mask of the rows that may be returned; None: all

    @property
    def depth(self) -> int:
        """The number of items to rank: the page, and all pages before it."""
        return self.question.offset + self.question.k


def plan_question(question: Question, catalogue: LiveCatalogue) -> Plan | UnanswerableError:
    """Plan a question; return the refusal if it cannot be answered."""
    try:
        return _plan_question(question, catalogue)
    except UnanswerableError as refusal:
        return refusal
    except ColumnError as error:
        return UnanswerableError(f"filters.{error.column}", error.detail)


def _plan_question(question: Question, catalogue: LiveCatalogue) -> Plan:
    history, unknown = _find_rows(question.history or [], catalogue)
    excluded, unknown_excluded = _find_rows(question.exclude, catalogue)
    if question.exclude_seen and len(history):
        excluded = np.concatenate([excluded, history])
    included, unknown_included = (None, []) if question.include is None else _find_rows(question.include, catalogue)
    if question.vector is not None:
        _check_vector(question.vector, catalogue.index.width)
    if question.history is not None and question.query is None and not len(history):
        require_popularity(catalogue)
    allowed = _allowed_rows(question, excluded, included, catalogue)
    return Plan(question, history, [*unknown, *unknown_excluded, *unknown_included], allowed)


def _find_rows(ids: Sequence[str], catalogue: LiveCatalogue) -> tuple[np.ndarray, list[str]]:
    """Return the rows of the ids on offer, in their order, and the other ids."""
    if not ids:
        return NO_ROWS, []
    rows = [catalogue.find_row(item_id) for item_id in ids]
    unknown = [item_id for item_id, row in zip(ids, rows, strict=True) if row is None]
    return np.array([row for row in rows if row is not None], dtype=np.int64), unknown


def _check_vector(vector: Sequence[float], width: int) -> None:
    if len(vector) != width:
        raise UnanswerableError("vector", f"has {len(vector)} numbers, but this model needs {width}")
    if not any(vector):
        raise UnanswerableError("vector", "is all zeros, and so has no direction; give another")


def _allowed_rows(
    question: Question, excluded: np.ndarray, included: np.ndarray | None, catalogue: LiveCatalogue
) -> np.ndarray | None:
    if included is None and not question.filters and not len(excluded):
        return None
    allowed = np.ones(len(catalogue.index.living), dtype=bool)
    if included is not None:
        allowed[:] = False
        allowed[included] = True
    if question.filters:
        allowed &= catalogue.filter_rows(
            {name: each.model_dump() if isinstance(each, Range) else each for name, each in question.filters.items()}
        )
    allowed[excluded] = False
    return allowed
