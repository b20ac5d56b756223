"""How much work a question asks for, known before any of it is done."""

from fedrec.serving.schema import Question

PAGE = 1_000
"""Items whose search and answer take about as long as the rest of a plain question."""

LISTED = 1_000
"""Ids (of a history, of `exclude`, of `include`) or values of filters that take about as long to look up."""

VARIED = 100
"""Items that take about as long to choose by variety, or to tell the reasons of."""

READ, LEFT_OUT = 50, 5
"""Events of a history that a model reads, as a rule; and how many of them are left out in turn in that time."""


def cost(question: Question) -> int:
    """Count the work in plain questions: 1 for a short history, text or vector, more for each thing beyond.

    It depends on the question alone, not on the catalogue or the model. The history of a remembered `user` is not
    known here, and counts as one of `READ` events.
    """
    shown = question.offset + question.k
    events = READ if question.history is None else len(question.history)
    values = sum(len(wanted) if isinstance(wanted, list) else 1 for wanted in question.filters.values())
    listed = len(question.history or ()) + len(question.exclude) + len(question.include or ()) + values
    total = 1 + shown // PAGE + listed // LISTED
    if question.diversity:
        total += 1 + shown // VARIED
    if question.explain:
        total += -(-min(events, READ) // LEFT_OUT) + question.k // VARIED
    return total
