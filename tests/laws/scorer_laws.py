"""The laws of a scorer. A test class of one scorer inherits them and provides the fixture `scorer`."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.ranking import rank
from fedrec.recsys.model.scoring import Scorer

ITEMS = 24
"""Items of the toy world, on which the scorers are fitted."""


class ScorerLaws:
    """What holds for any function from histories to a score of every item, on the toy world."""

    tolerance: ClassVar[float] = 0.0
    """The difference that a batch may make to a score: above zero if a matrix product of another shape may round
    otherwise."""
    of_no_events: ClassVar[float | None] = None
    """The score of every item after an empty history; None: it depends on the item."""

    @pytest.fixture
    def scorer(self) -> Scorer:
        raise NotImplementedError("a class of laws is inherited, with a fixture `scorer`")

    @pytest.fixture
    def histories(self, shard: Shard) -> list[np.ndarray]:
        return [shard.history(user, "test") for user in range(len(shard))]

    def test_every_item_gets_a_finite_score_from_every_history(
        self, scorer: Scorer, histories: list[np.ndarray]
    ) -> None:
        scores = scorer(histories)
        assert (scores.shape, scores.dtype) == ((len(histories), ITEMS), torch.float32)
        assert scores.isfinite().all()

    def test_a_history_scores_the_same_in_any_batch(self, scorer: Scorer, histories: list[np.ndarray]) -> None:
        together = scorer(histories)
        self._agree(torch.cat([scorer([history]) for history in histories]), together)
        self._agree(scorer(histories[::-1]).flip(0), together)

    def test_the_same_question_has_the_same_answer_and_changes_no_history(
        self, scorer: Scorer, histories: list[np.ndarray]
    ) -> None:
        before = [history.copy() for history in histories]
        assert torch.equal(scorer(histories), scorer(histories))
        assert all(map(np.array_equal, histories, before))

    def test_an_empty_history_has_finite_scores(self, scorer: Scorer) -> None:
        (scores,) = scorer([np.zeros(0, dtype=np.int64)])
        assert scores.isfinite().all()
        if self.of_no_events is not None:
            assert scores.tolist() == [self.of_no_events] * ITEMS

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_ranks_count_unseen_items_and_ties_against_the_scorer(
        self, scorer: Scorer, shard: Shard, split: str
    ) -> None:
        """By definition: items that the user has not seen and whose score is no lower than the held-out one's."""
        users = range(len(shard))
        scores = scorer([shard.history(user, split) for user in users])
        targets = shard.held_out(users, split).tolist()
        assert rank(scorer, shard, users, split).ranks.tolist() == [
            self._rank(row, shard.history(user, split), target)
            for user, row, target in zip(users, scores, targets, strict=True)
        ]

    @staticmethod
    def _rank(scores: Tensor, seen: np.ndarray, target: int) -> int:
        others = set(range(ITEMS)) - set(seen.tolist()) - {target}
        return sum(bool(scores[item] >= scores[target]) for item in others)

    def _agree(self, one: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(one, other, atol=self.tolerance, rtol=0)


class SavedScorerLaws(ScorerLaws):
    """What holds, too, for a scorer that can be saved: the fixture `reloaded` gives it as it is read again."""

    @pytest.fixture
    def reloaded(self) -> Scorer:
        raise NotImplementedError("a class of laws is inherited, with a fixture `reloaded`")

    def test_a_saved_scorer_scores_the_same(
        self, scorer: Scorer, reloaded: Scorer, histories: Sequence[np.ndarray]
    ) -> None:
        assert torch.equal(scorer(histories), reloaded(histories))
