"""The work that a question takes, estimated before any of it is done."""

from fedrec.serving.schema.questions import Question

ITEMS_PER_UNIT = 1_000
"""Items whose search and answer take about as long as the rest of a plain question."""

IDS_PER_UNIT = 1_000
"""Ids (of a history, of `exclude`, of `include`) or filter values whose lookup takes about as long."""

RERANKED_PER_UNIT = 100
"""Items that take about as long to diversify, or to explain."""

EVENTS_READ, EVENTS_PER_UNIT = 50, 5
"""Events of a history that a model reads, as a rule; and how many of them take about as long to leave out in turn."""


def question_cost(question: Question) -> int:
    """Count the work in plain questions: 1 for a short history, a text or a vector, more for each option beyond.

    It depends on the question alone, not on the catalogue or the model. The history of a stored `user` is not known
    here, and counts as `EVENTS_READ` events.
    """
    ranked = question.offset + question.k
    events = EVENTS_READ if question.history is None else len(question.history)
    values = sum(len(wanted) if isinstance(wanted, list) else 1 for wanted in question.filters.values())
    ids = len(question.history or ()) + len(question.exclude) + len(question.include or ()) + values
    total = 1 + ranked // ITEMS_PER_UNIT + ids // IDS_PER_UNIT
    if question.diversity:
        total += 1 + ranked // RERANKED_PER_UNIT
    if question.explain:
        total += -(-min(events, EVENTS_READ) // EVENTS_PER_UNIT) + question.k // RERANKED_PER_UNIT
    return total
