"""Explanations: the history items that contribute most to each score."""

from collections.abc import Sequence

import numpy as np

from fedrec.recsys.nearest import exact_scores
from fedrec.serving.encoding import QuestionEncoder, mix_vectors
from fedrec.serving.live_catalogue import LiveCatalogue
from fedrec.serving.plan import Plan
from fedrec.serving.schema.answers import Weight

MAX_REASONS = 3
"""History items in an explanation, at most."""


def explain_rows(
    plan: Plan, vector: np.ndarray, rows: Sequence[int], encoder: QuestionEncoder, catalogue: LiveCatalogue
) -> list[list[Weight]]:
    """Return, for each row, the history items without which its score would be lowest.

    Each item is left out in turn, and the question's vector (W,) recomputed, of towers and closed form together. Items
    beyond the user model's length have no influence.
    """
    items = list(dict.fromkeys(plan.history[-encoder.recommender.length :].tolist()))
    reduced = [plan.history[plan.history != item] for item in items]
    without = encoder.encode_histories(reduced, catalogue.index)  # of an empty history: a vector of zeros
    if plan.question.query is not None:
        text = encoder.encode_texts([plan.question.query])[0]
        without = [mix_vectors(taste, text, plan.question.mix) for taste in without]
    vectors = catalogue.index.vectors(np.array(rows, dtype=np.int64))  # (k, W)
    scores = exact_scores(vectors, np.stack([vector, *without], axis=1))  # (k, 1 + n)
    weights = scores[:, :1] - scores[:, 1:]  # (k, n)
    return [_largest_weights(items, row, catalogue) for row in weights]


def _largest_weights(items: Sequence[int], weights: np.ndarray, catalogue: LiveCatalogue) -> list[Weight]:
    return [
        Weight(
            item_id=catalogue.item_id(items[place]),
            title=catalogue.title(items[place]),
            weight=float(weights[place]),
        )
        for place in np.argsort(-weights, kind="stable")[:MAX_REASONS]
    ]
