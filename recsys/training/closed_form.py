"""The closed form as a federated method: nodes send sums once, and the server solves for weights.

Shapes: N items, E embedding, K decays, M features, M' targets; with features `ids` and `pairs`, M = M' = N.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add, matmul
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.closed_form.bounds import SumBounds
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.features import FourierFeatures, Whitening
from fedrec.recsys.closed_form.fusion import covariance
from fedrec.recsys.closed_form.model import (
    ClosedForm,
    CutSolution,
    ItemTexts,
    Solution,
    TextFeatures,
    centre_targets,
    decayed_sums,
)
from fedrec.recsys.closed_form.new_items import TargetRegression, scale_scores, scale_vectors
from fedrec.recsys.closed_form.norm_bounds import Bounds, NormBounds
from fedrec.recsys.closed_form.packing import SCALE, pack, packed_shapes, place_items, unpack
from fedrec.recsys.closed_form.pairs import PAIRS, PairGate, PairSums, PairWeights, pair_bounds
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solutions import SHARE, WEIGHTS, NewItems, PairSolver, Solver
from fedrec.recsys.closed_form.solve import RidgePath, item_popularity, positive_part, target_gram
from fedrec.recsys.closed_form.statistics import (
    CROSS,
    GRAM,
    Accumulator,
    FeatureSums,
    ItemSums,
    Statistics,
    sum_statistics,
)
from fedrec.recsys.closed_form.text_prior import factor_texts, feature_weights, text_weights
from fedrec.recsys.hardware import workers
from fedrec.recsys.model.lora import Adapter

TEXT_RIDGE = 1.0
"""The ridge of the text weights that a solution is pulled towards; a text's squared length is 1. Of their regression on
features, in items."""


class UserSums(NamedTuple):
    """The sums over some users, as they travel (closed_form/packing.py)."""

    statistics: Statistics
    learners: int  # users with an event and one before it


@dataclass(frozen=True, eq=False)
class ClosedFormMethod:
    """Ridge regressions of the next item on a decayed history, from the sums of all users. All tensors are on the
    processor."""

    embeddings: Tensor  # (N, E)
    trainable_rows: np.ndarray  # rows of the items that training may use
    config: ClosedFormConfig
    seed: int
    held_out: int  # events at each history's end that do not count
    fitted: FourierFeatures | None = None  # of texts, from the run whose sums are changed; None: fitted to `embeddings`
    clip: float = 0.0  # the largest L2 norm of a user's statistics, in squared lengths of a feature; 0: not clipped

    @cached_property
    def features(self) -> Tensor | None:
        """The features of all items, as contexts and as targets: (N, M); None for one-hot features."""
        return self.feature_map(self.embeddings) if self.config.features == "text" else None

    @cached_property
    def feature_map(self) -> FourierFeatures:
        """The random features of text embeddings, fitted to the items that training may use."""
        if self.fitted:
            return self.fitted
        known, config = self.embeddings[self.trainable_rows], self.config
        return FourierFeatures.fit(known, self._whitening, config.feature_width, config.feature_bandwidths, self.seed)

    @cached_property
    def _whitening(self) -> Whitening:
        if self.fitted:
            return self.fitted.whitening
        return Whitening.fit(self.embeddings[self.trainable_rows], self.config.whitening)

    @cached_property
    def pair_gate(self) -> PairGate:
        """The pairs that features `pairs` count."""
        return PairGate.by_text(self._whitening(self.embeddings), self.config.pair_neighbours)

    @property
    def is_paired(self) -> bool:
        """Whether the sums are counts of pairs."""
        return self.config.features == PAIRS

    @cached_property
    def bounds(self) -> Bounds:
        """The shapes and bounds of the sums as they travel."""
        if self.is_paired:
            return pair_bounds(self.pair_gate, self.config.stack.kernels[0], self.config.statistic_events, self.clip)
        if self.clip:
            return NormBounds.clipped(packed_shapes(self.context_width, self.width), self.clip * self.width / 2 / SCALE)
        return SumBounds.of(self.config, len(self.embeddings))

    @property
    def clipped(self) -> NormBounds | None:
        """The bounds to which a user's statistics are clipped; None if they are not."""
        return self.bounds if self.clip and isinstance(self.bounds, NormBounds) else None

    @property
    def width(self) -> int:
        """The number of features of an item, as a part of a context and as a target: M = M'."""
        return self.config.feature_width if self.config.features == "text" else len(self.embeddings)

    @property
    def context_width(self) -> int:
        """The width of a context, which has the features of an item once for each decay: KM."""
        return len(self.config.decays) * self.width

    def weights_template(self) -> Adapter:
        """Return the shapes of the solution as it travels, without numbers."""
        shapes = {WEIGHTS: (self.context_width, self.width), SHARE: (1,)}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    def groups(self, users: np.ndarray) -> list[np.ndarray]:
        """Split users into groups whose sums are computed side by side: one per worker; of ids one, for the memory."""
        return [users] if self.features is None else np.array_split(users, min(workers(), len(users)))

    def sum_users(self, shard: Shard, users: np.ndarray, to_choose: bool = False) -> UserSums:
        """Sum the statistics of users (U,), over their newest training events. The same users sum up to the same
        numbers in any grouping.

        The sums are those of the finished model or, if that is to be chosen with others, those.
        """
        histories = [self.summed_events(shard, user, to_choose) for user in users]
        return UserSums(self._sum(histories), sum(len(history) > 1 for history in histories))

    def _sum(self, histories: Sequence[np.ndarray]) -> Statistics:
        """Sum the statistics of histories, as they travel; each history's are clipped if the run clips."""
        if self.is_paired:
            return sum_statistics(PairSums(self.pair_gate, self.config.stack.kernels[0], self.clipped), histories)
        if (clipped := self.clipped) is None:
            return pack(sum_statistics(self._accumulator(), histories))
        total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in clipped.shapes.items()}
        for history in histories:
            own = clipped.clip(pack(sum_statistics(self._accumulator(), [history])))
            for name, tensor in own.items():
                total[name] += tensor
        return total

    def summed_events(self, shard: Shard, user: int, to_choose: bool = False) -> np.ndarray:
        """Return the events of a user that the sums are computed from, oldest first: rows of the catalogue."""
        held_out = self.held_out if to_choose else min(self.held_out, self.config.final_held_out)
        return shard.training_events(user, held_out)[-self.config.statistic_events :]

    def _accumulator(self) -> Accumulator:
        if self.features is None:
            return ItemSums(self.width, self.config.stack)
        return FeatureSums(self.features, self.features, self.config.stack)

    def with_more_items(self, total: Statistics, rows: np.ndarray) -> Statistics:
        """Move sums, as they travel, to this catalogue from one whose items have the rows (n,) here.

        Over texts they stay as they are: no number in them belongs to an item. Raises `InputError` for counts of
        pairs.
        """
        if self.is_paired:
            raise InputError(
                "sums over features = 'pairs' are counts between the items that the run was trained on, and more items "
                "have other neighbours; train again"
            )
        return place_items(total, torch.from_numpy(rows), self.width) if self.features is None else total

    @cached_property
    def text_weights(self) -> Tensor | None:
        """The weights between items that their texts give, (M, M'), if the search pulls towards them."""
        if not any(self.config.priors):
            return None
        rows = self.trainable_rows
        if self.features is None or self.target_gram is None:
            return text_weights(self.embeddings, TEXT_RIDGE, rows)
        factors = factor_texts(self.embeddings, TEXT_RIDGE, rows)
        return feature_weights(factors, self.features, self.target_gram, rows, TEXT_RIDGE * self._penalty_unit)

    @cached_property
    def target_gram(self) -> Tensor | None:
        """ΨᵀΨ over the items that training may use, (M', M'); None for one-hot targets."""
        return None if self.features is None else target_gram(self.features, torch.from_numpy(self.trainable_rows))

    @property
    def _penalty_unit(self) -> float:
        """The mean of an item's |φ|²: the unit of the penalties, so that they mean the same at any width."""
        return 1.0 if self.features is None else self.width / 2

    def solver(self, total: Statistics, deviation: float = 0.0) -> Solver | PairSolver:
        """Prepare the solutions of sums over users, as they travel, with noise of a standard deviation in them."""
        if self.is_paired:
            return PairSolver(PairWeights.of(self.pair_gate, total[PAIRS], deviation))
        # the largest eigenvalue of the noise in `gram` (Wigner)
        floor = 2 * deviation * SCALE * self.context_width**0.5
        sums = unpack(total)
        path = RidgePath.of(sums, self.text_weights)
        if self.features is not None:
            return Solver(path, self.target_gram, self._penalty_unit, floor)
        popularity = item_popularity(sums[GRAM], self.width)
        return Solver(path, None, self._penalty_unit, floor, popularity, self._new_items(self.known_items(total)))

    def _new_items(self, known: np.ndarray) -> NewItems | None:
        """Prepare to fill in, over ids, all items but those `known`; None if there are no others."""
        rows = np.setdiff1d(np.arange(self.width), known)
        if not len(rows):
            return None
        places, texts = (torch.from_numpy(rows), torch.from_numpy(known)), self._whitening(self.embeddings[rows])
        return NewItems(*places, texts, self._fit_targets(known), self.config.new_item_scale)

    def known_items(self, total: Statistics) -> np.ndarray:
        """Find the rows (n,) of the items that were a target; if sums do not tell, of those that training may use."""
        if self.config.features != "ids":
            return self.trainable_rows
        were_targets = total[CROSS].any(0).nonzero().squeeze(1).numpy()
        return np.intersect1d(were_targets, self.trainable_rows)

    @cached_property
    def text_targets(self) -> TargetRegression:
        """The target vectors of new items over texts: (n, E) → (n, M')."""
        assert self.target_gram is not None, "one-hot targets are scaled by a solution"
        known = self.trainable_rows
        return scale_vectors(self._fit_targets(known), self.target_gram, len(known), self.config.new_item_scale)

    def _fit_targets(self, known: np.ndarray) -> TargetRegression:
        return TargetRegression.fit(self.embeddings, self._whitening, torch.from_numpy(known), self.features)

    def cut(self, solution: Adapter, total: Statistics, chosen: Hyperparameters) -> CutSolution:
        """Cut a solution of sums, as they travel, to the rank that is served.

        Weights over ids that were pulled to a prior count as if each item had λ + κ events more, as in the solution:
        otherwise the cut would give up what the texts say of items with few events. A `gram` of texts that was sent in
        few bits, or has noise in it, has directions in which contexts would have a length below zero; there it is
        zero, as in the solution.
        """
        gram = None if self.is_paired else unpack(total)[GRAM]
        if gram is not None and self.features is not None:
            gram = positive_part(gram)
        elif gram is not None and chosen.prior:
            gram.diagonal().add_(chosen.ridge + chosen.prior)
        targets = None if self.features is None else self.candidates
        return Solution(solution[WEIGHTS], gram, float(solution[SHARE])).cut(targets, self.config.served_rank)

    def artifact(self, solution: CutSolution, total: Statistics, tower_vectors: Tensor) -> ClosedForm:
        """Build what an artifact holds of a solution of sums, beside the item vectors (N, E) of its towers."""
        if self.features is not None:
            features = TextFeatures(self.feature_map, self.features, self.candidates)
            texts = ItemTexts(self._whitening, self.text_targets, features)
        else:
            known, right = self.known_items(total), solution.right
            # the user vectors of a cut are uncorrelated, and their squares are those of its candidates
            roots = solution.left.T if self.is_paired else right * (right - right.mean(0)).norm(dim=0)  # (N, k)
            fitted = self._fit_targets(known)
            targets = scale_scores(fitted, roots, torch.from_numpy(known), self.config.new_item_scale)
            texts = ItemTexts(self._whitening, targets, None)
        return ClosedForm.build(self.config, solution, texts, tower_vectors)

    def user_vectors(self, adapter: Adapter) -> Callable[[Sequence[np.ndarray]], Tensor]:
        """Return a function from B histories to user vectors (B, M'); of texts, no event vectors are computed."""
        kernels, features = self.config.stack.kernels, self.features
        if features is None:
            rows = centre_targets(adapter[WEIGHTS].T).T.split(self.width)
            return lambda histories: decayed_sums(kernels, rows, histories)
        weights = adapter[WEIGHTS].split(self.width)  # of each decay: (M, M')

        def weigh_contexts(histories: Sequence[np.ndarray]) -> Tensor:
            contexts = (decayed_sums([kernel], [features], histories) for kernel in kernels)  # (B, M) each
            return reduce(add, map(matmul, contexts, weights))

        return weigh_contexts

    @cached_property
    def candidates(self) -> Tensor:
        """The candidate vectors of all items: (N, M'). Over texts, items that training may not use are new ones."""
        if self.features is None:
            return torch.eye(self.width)
        new = np.setdiff1d(np.arange(len(self.features)), self.trainable_rows)
        if not len(new):
            return self.features
        predicted = self.text_targets(self._whitening(self.embeddings[new]))
        return self.features.index_copy(0, torch.from_numpy(new), predicted.float())

    @cached_property
    def candidate_covariance(self) -> Tensor:
        """The covariance of the candidate vectors: (M', M')."""
        return covariance(self.candidates)
