"""Runs and baselines beside each other, user by user."""

from dataclasses import dataclass

import numpy as np

from fedrec.baselines import FittedBaseline
from fedrec.data.dataset import Dataset
from fedrec.recsys.evaluation import significance
from fedrec.recsys.evaluation.ranking import per_user
from fedrec.run import Run

Ranked = Run | FittedBaseline
"""Anything that ranks every user's held-out item."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """A metric of the same users under two models, `a` and `b`."""

    metric: str
    users: int
    a: float  # mean over the users
    b: float
    difference: float  # a − b
    interval: tuple[float, float]  # its 95 % interval, by the paired bootstrap
    p: float  # one-sided: the share of resamples in which a is not better than b

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"{self.metric} over {self.users:,} users: {self.a:.4f} against {self.b:.4f}, difference "
            f"{self.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, one-sided p = {self.p:.4f})"
        )


def compare(
    a: Ranked,
    b: Ranked,
    dataset: Dataset,
    metric: str = "ndcg@10",
    protocol: str = "full",
    split: str = "test",
    seed: int = 0,
) -> Comparison:
    """Compare two models on the users of a dataset, by the paired bootstrap.

        print(fedrec.compare(run, ease, films, metric="ndcg@10"))

    `metric` is `mrr`, `recall@k`, `hr@k` or `ndcg@k`; `seed` is of the resamples. Raises `InputError` for another one.
    """
    values_a, values_b = (per_user(model.user_ranks(dataset, protocol, split), metric) for model in (a, b))
    result = significance.compare(values_a, values_b, np.random.default_rng(seed))
    return Comparison(
        metric,
        result.users,
        float(values_a.mean()),
        float(values_b.mean()),
        result.difference,
        (result.low, result.high),
        result.p,
    )


def evaluate(model: Ranked, dataset: Dataset, protocol: str = "full", split: str = "test") -> dict[str, float]:
    """Return the metrics of a run or a fitted baseline on a dataset.

        fedrec.evaluate(run, films)["ndcg@10"]

    See `Run.evaluate`. Raises `InputError`.
    """
    return model.evaluate(dataset, protocol, split)
