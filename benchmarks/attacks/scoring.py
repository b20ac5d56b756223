"""Scores of guesses: how well an attacker's ranking of items, or of users, tells the true ones."""

import numpy as np
from scipy.stats import rankdata

Figures = dict[str, float]
"""What a case of an attack measured, by the names of the attack's columns."""


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Compute the probability that a true entry is scored above another one, ties by half: (n,), (n,) of bool.

    NaN if all entries are of one kind. Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    true = int(truth.sum())
    others = len(truth) - true
    if not true or not others:
        return float("nan")
    return float((rankdata(scores)[truth].sum() - true * (true + 1) / 2) / (true * others))


def precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Compute the share of true entries among the best, as many as are true: (n,), (n,) of bool."""
    best = np.argsort(-scores, kind="stable")[: int(truth.sum())]
    return float(truth[best].mean()) if len(best) else float("nan")


def found_at_one_percent(scores: np.ndarray, truth: np.ndarray) -> float:
    """Compute the share of true entries above the score that one in a hundred of the others passes."""
    return float((scores[truth] > np.quantile(scores[~truth], 0.99)).mean())


def compare_to_popularity(scores: np.ndarray, popularity: np.ndarray, truth: np.ndarray) -> Figures:
    """Score guesses of items, and those by popularity alone: (N,) thrice."""
    return {
        "auc": auc(scores, truth),
        "precision": precision(scores, truth),
        "popularity_auc": auc(popularity, truth),
        "popularity_precision": precision(popularity, truth),
    }


def average(rows: list[Figures]) -> Figures:
    """Average the figures of several victims, NaN left out."""
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
