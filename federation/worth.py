"""The worth of each node in a coalition of nodes: what the others have without it, and its Shapley value.

Shapley 1953, "A Value for n-Person Games"; for data, Ghorbani and Zou 2019, arXiv:1904.02868.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import factorial

Coalition = frozenset[int]
Value = Callable[[Coalition], float]
"""A function from a coalition to what it reaches."""


def coalitions(nodes: Sequence[int], shapley: bool) -> list[Coalition]:
    """List the coalitions whose values are needed: all 2ⁿ for Shapley values, otherwise all nodes and all but one."""
    everyone = frozenset(nodes)
    if not shapley:
        return [everyone, *(everyone - {node} for node in nodes)]
    return [frozenset(some) for size in range(len(nodes) + 1) for some in combinations(nodes, size)]


def leave_one_out(nodes: Sequence[int], value: Value) -> dict[int, float]:
    """Compute what all nodes lose without each: v(N) - v(N \\ {i}), by node."""
    everyone = frozenset(nodes)
    return {node: value(everyone) - value(everyone - {node}) for node in nodes}


def shapley_values(nodes: Sequence[int], value: Value) -> dict[int, float]:
    """Compute each node's gain, averaged over all orders in which nodes can join; the values sum to v(N) - v(∅).

    φᵢ = Σ_S |S|! (n - |S| - 1)! / n! · (v(S ∪ {i}) - v(S)), over the coalitions S without i.
    """
    everyone, count = frozenset(nodes), len(nodes)

    def gain(node: int) -> float:
        return sum(
            factorial(len(some)) * factorial(count - len(some) - 1) * (value(some | {node}) - value(some))
            for some in _subsets(everyone - {node})
        ) / factorial(count)

    return {node: gain(node) for node in nodes}


def _subsets(nodes: Iterable[int]) -> list[Coalition]:
    return coalitions(sorted(nodes), shapley=True)
