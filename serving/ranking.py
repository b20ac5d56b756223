"""Third stage of an answer: search the index, and rank."""

from collections.abc import Callable, Sequence

import numpy as np

from fedrec.recsys.nearest import Found
from fedrec.serving.index.diversity import maximal_marginal_relevance, pool_size
from fedrec.serving.index.vector_index import SearchRequest
from fedrec.serving.live_catalogue import LiveCatalogue
from fedrec.serving.plan import Plan
from fedrec.serving.popularity import rank_by_popularity

Search = Callable[[Sequence[SearchRequest]], list[Found]]
"""Runs several searches: `Index.search_each` or `Index.search_all`."""


def rank_items(
    plans: Sequence[Plan], vectors: Sequence[np.ndarray | None], catalogue: LiveCatalogue, search: Search
) -> list[Found]:
    """Rank the items for each question, the pages before its own included."""
    requests = [
        SearchRequest(vector, pool_size(plan.depth) if plan.question.diversity else plan.depth, plan.allowed)
        for plan, vector in zip(plans, vectors, strict=True)
        if vector is not None
    ]
    nearest = iter(search(requests))
    return [
        rank_by_popularity(catalogue, plan.allowed, plan.depth)
        if vector is None
        else _diversify(plan, next(nearest), catalogue)
        for plan, vector in zip(plans, vectors, strict=True)
    ]


def _diversify(plan: Plan, ranking: Found, catalogue: LiveCatalogue) -> Found:
    if not plan.question.diversity:
        return ranking
    vectors = catalogue.index.tower_vectors(np.array([row for row, _ in ranking], dtype=np.int64))
    return maximal_marginal_relevance(ranking, vectors, plan.question.diversity, plan.depth)
