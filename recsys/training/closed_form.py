"""The closed form as a federated method: nodes send sums once, and the server solves for weights.

Shapes: N items, E embedding, M features, M' targets; with features `ids` and `pairs`, M = M' = N.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from fedrec.recsys.closed_form.model import ClosedForm, LinearModel, Solution, TextFeatures
from fedrec.recsys.closed_form.norm_bounds import Bounds, NormBounds
from fedrec.recsys.closed_form.packing import SCALE, pack, packed_shapes, unpack
from fedrec.recsys.closed_form.pairs import PAIRS, PairGate, PairSums, PairWeights, pair_bounds
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solve import RidgePath, decoding, target_gram
from fedrec.recsys.closed_form.statistics import GRAM, Accumulator, FeatureSums, ItemSums, Statistics, sum_statistics
from fedrec.recsys.hardware import workers
from fedrec.recsys.model.lora import Adapter

WEIGHTS, SHARE = "closed.weights", "closed.share"
"""The names of the closed form's tensors in an adapter: the weights (M, M'), and the share of a blend (1,)."""

MAX_ITEMS = 8192
"""Items that features `ids` and `pairs` are offered for: a table over the pairs of more takes more than 1 GiB."""


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
    clip: float = 0.0  # the largest L2 norm of a user's statistics, in squared lengths of a feature; 0: not clipped

    @cached_property
    def features(self) -> Tensor | None:
        """The features of all items, as contexts and as targets: (N, M); None for one-hot features."""
        return self.feature_map(self.embeddings) if self.config.features == "text" else None

    @cached_property
    def feature_map(self) -> FourierFeatures:
        """The random features of text embeddings; their whitening is fitted to the items that training may use."""
        width, bandwidth = self.config.feature_width, self.config.feature_bandwidth
        return FourierFeatures.draw(self._whitening, width, bandwidth, self.seed)

    @cached_property
    def _whitening(self) -> Whitening:
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
            return pair_bounds(self.pair_gate, self.config.kernel, self.config.statistic_events, self.clip)
        if self.clip:
            return NormBounds.clipped(packed_shapes(self.width, self.width), self.clip * self.width / 2 / SCALE)
        return SumBounds.of(self.config, len(self.embeddings))

    @property
    def clipped(self) -> NormBounds | None:
        """The bounds to which a user's statistics are clipped; None if they are not."""
        return self.bounds if self.clip and isinstance(self.bounds, NormBounds) else None

    @property
    def width(self) -> int:
        """The number of features of an item, as a context and as a target."""
        return self.config.feature_width if self.config.features == "text" else len(self.embeddings)

    def weights_template(self) -> Adapter:
        """Return the shapes of the solution as it travels, without numbers."""
        shapes = {WEIGHTS: (self.width, self.width), SHARE: (1,)}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    def groups(self, users: np.ndarray) -> list[np.ndarray]:
        """Split users into groups whose sums are computed side by side: one per worker; of ids one, for the memory."""
        return [users] if self.features is None else np.array_split(users, min(workers(), len(users)))

    def sum_users(self, shard: Shard, users: np.ndarray) -> UserSums:
        """Sum the statistics of users (U,), over their newest training events. The same users sum up to the same
        numbers in any grouping."""
        histories = [self.summed_events(shard, user) for user in users]
        return UserSums(self._sum(histories), sum(len(history) > 1 for history in histories))

    def _sum(self, histories: Sequence[np.ndarray]) -> Statistics:
        """Sum the statistics of histories, as they travel; each history's are clipped if the run clips."""
        if self.is_paired:
            return sum_statistics(PairSums(self.pair_gate, self.config.kernel, self.clipped), histories)
        if (clipped := self.clipped) is None:
            return pack(sum_statistics(self._accumulator(), histories))
        total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in clipped.shapes.items()}
        for history in histories:
            own = clipped.clip(pack(sum_statistics(self._accumulator(), [history])))
            for name, tensor in own.items():
                total[name] += tensor
        return total

    def summed_events(self, shard: Shard, user: int) -> np.ndarray:
        """Return the events of a user that the sums are computed from, oldest first: rows of the catalogue."""
        return shard.training_events(user, self.held_out)[-self.config.statistic_events :]

    def _accumulator(self) -> Accumulator:
        if self.features is None:
            return ItemSums(self.width, self.config.kernel)
        return FeatureSums(self.features, self.features, self.config.kernel)

    def solver(self, total: Statistics, deviation: float = 0.0) -> "Solver | PairSolver":
        """Prepare the solutions of sums over users, as they travel, with noise of a standard deviation in them."""
        if self.is_paired:
            return PairSolver(PairWeights.of(self.pair_gate, total[PAIRS], deviation))
        rows = torch.from_numpy(self.trainable_rows)
        gram = None if self.features is None else target_gram(self.features, rows)
        floor = 2 * deviation * SCALE * self.width**0.5  # the largest eigenvalue of the noise in `gram` (Wigner)
        return Solver(RidgePath.of(unpack(total)), gram, 1.0 if self.features is None else self.width / 2, floor)

    def cut(self, solution: Adapter, total: Statistics) -> Adapter:
        """Cut a solution of sums, as they travel, to the rank that is served."""
        cut = self._solution(solution, total).cut(self.features, self.config.served_rank)
        return solution | {WEIGHTS: cut.weights.float()}

    def artifact(self, solution: Adapter, total: Statistics, tower_vectors: Tensor) -> ClosedForm:
        """Build what an artifact holds of a solution, beside the item vectors (N, E) of its towers."""
        features = None if self.features is None else TextFeatures(self.feature_map, self.features)
        rank = self.config.served_rank
        return ClosedForm.build(self.config, self._solution(solution, total), features, tower_vectors, rank)

    def _solution(self, solution: Adapter, total: Statistics) -> Solution:
        gram = None if self.is_paired else unpack(total)[GRAM]
        return Solution(solution[WEIGHTS], gram, float(solution[SHARE]))

    def user_vectors(self, adapter: Adapter) -> Callable[[Sequence[np.ndarray]], Tensor]:
        """Return a function from B histories to user vectors (B, M'); of texts, no event vectors are computed."""
        if self.features is None:
            return LinearModel(self.config.kernel, adapter[WEIGHTS], self.candidates).user_vectors
        contexts = LinearModel(self.config.kernel, self.features, self.features)
        return lambda histories: contexts.user_vectors(histories) @ adapter[WEIGHTS]

    @cached_property
    def candidates(self) -> Tensor:
        """The candidate vectors of all items: (N, M')."""
        return torch.eye(self.width) if self.features is None else self.features

    @cached_property
    def candidate_covariance(self) -> Tensor:
        """The covariance of the candidate vectors: (M', M')."""
        return covariance(self.candidates)


@dataclass(frozen=True, eq=False)
class Solver:
    """The solutions of some sums, for all hyperparameters."""

    path: RidgePath
    target_gram: Tensor | None  # (M', M'); None for one-hot targets, which need no decoding
    scale: float  # the mean of |φ|² over items: the unit of the penalties, so that they mean the same at any width
    floor: float = 0.0  # the least penalty: below it, noise in the sums would be taken for signal

    def solve(self, chosen: Hyperparameters) -> Adapter:
        """Solve for one choice: `closed.weights` and `closed.share`, float32."""
        weights = self.path.weights(max(chosen.ridge * self.scale, self.floor))
        if self.target_gram is not None:
            weights = weights @ decoding(self.target_gram, chosen.decode * self.scale)
        return {WEIGHTS: weights.float(), SHARE: torch.tensor([chosen.share])}


@dataclass(frozen=True, eq=False)
class PairSolver:
    """The solutions of some counts of pairs, for all weights of the texts."""

    weights: PairWeights

    def solve(self, chosen: Hyperparameters) -> Adapter:
        """Solve for one choice: `closed.weights` and `closed.share`, float32."""
        return {WEIGHTS: self.weights.table(chosen.ridge).float(), SHARE: torch.tensor([chosen.share])}


def check_catalogue(config: ClosedFormConfig, items: int) -> None:
    """Raise `InputError` if a table over N = `items` items is too large."""
    if config.features != "text" and items > MAX_ITEMS:
        raise InputError(
            f"setting features = {config.features!r}: a table of {items:,} items is too large, at most "
            f"{MAX_ITEMS:,} fit; use features = 'text', whose sums do not grow with the catalogue"
        )
