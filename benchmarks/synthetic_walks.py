"""A synthetic federation of any size, streamed: walks over a catalogue whose texts tell half of the story.

Each item has a public text vector, and a hidden taste vector that is the text's with noise. A user starts anywhere and
goes from item to item: mostly to one of a few successors that are alike in taste, and otherwise anywhere. So near texts
hint at who follows whom, and only histories tell which of the near items do. No user is kept in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedrec.data.randomness import salt_of
from fedrec.data.shard import Shard

ITEMS, WIDTH, CLUSTERS = 4_000, 64, 250
NEAR, SUCCESSORS = 20, 5
"""The nearest items by taste, of which few are an item's successors."""
TEXT_NOISE, FAITHFUL = 0.5, 0.6
"""The noise of a text around its taste, and the share of steps to a successor."""
SHORTEST, LONGEST = 4, 12
ZIPF = 50
"""Items at the head of the popularity that are about equally popular."""
PART = 20_000
RANKED = 4_000
"""Users who are ranked, the first ones."""


@dataclass(frozen=True)
class Walks:
    """Users who walk; a user's walk depends on the seed and the user's number alone."""

    users: int
    seed: int = 0

    @cached_property
    def _tastes(self) -> np.ndarray:
        """Unit vectors of the items' tastes, in clusters: (N, E)."""
        generator = np.random.default_rng([self.seed, 1])
        centres = generator.normal(size=(CLUSTERS, WIDTH))
        tastes = centres[generator.integers(0, CLUSTERS, ITEMS)] + generator.normal(size=(ITEMS, WIDTH)) * 0.7
        return tastes / np.linalg.norm(tastes, axis=1, keepdims=True)

    @cached_property
    def embeddings(self) -> Tensor:
        """The items' text vectors: (N, E)."""
        generator = np.random.default_rng([self.seed, 2])
        noise = generator.normal(size=(ITEMS, WIDTH)) * TEXT_NOISE / WIDTH**0.5
        return torch.from_numpy(self._tastes + noise).float()

    @cached_property
    def _successors(self) -> np.ndarray:
        """The items that follow each item: (N, S)."""
        likeness = self._tastes @ self._tastes.T
        np.fill_diagonal(likeness, -1)
        near = np.argsort(-likeness, axis=1)[:, :NEAR]
        generator = np.random.default_rng([self.seed, 3])
        chosen = np.argsort(generator.random(near.shape), axis=1)[:, :SUCCESSORS]
        return np.take_along_axis(near, chosen, axis=1)

    @cached_property
    def _popularity(self) -> np.ndarray:
        """The cumulated probabilities of items that are drawn from anywhere, by Zipf's law: (N,)."""
        shares = 1 / (np.random.default_rng([self.seed, 5]).permutation(ITEMS) + ZIPF)
        return np.cumsum(shares) / shares.sum() - 1e-12

    @cached_property
    def ranked(self) -> Shard:
        """The first users, whose held-out items are ranked."""
        return self._part(0, min(RANKED, self.users))

    def parts(self) -> Iterator[Shard]:
        """Iterate over all users' histories."""
        for start in range(0, self.users, PART):
            yield self._part(start, min(PART, self.users - start))

    def _part(self, start: int, count: int) -> Shard:
        """Let some users walk. A part begins at a multiple of its largest size, so that users are the same in all."""
        generator = np.random.default_rng([self.seed, 4, start // PART])
        walks = np.empty((PART, LONGEST), dtype=np.int64)
        walks[:, 0] = np.searchsorted(self._popularity, generator.random(PART))
        for step in range(1, LONGEST):
            successor = self._successors[walks[:, step - 1], generator.integers(0, SUCCESSORS, PART)]
            anywhere = np.searchsorted(self._popularity, generator.random(PART))
            walks[:, step] = np.where(generator.random(PART) < FAITHFUL, successor, anywhere)
        lengths = generator.integers(SHORTEST, LONGEST + 1, PART)[:count]
        events = walks[:count][np.arange(LONGEST) < lengths[:, None]]
        ends = np.cumsum(lengths)
        salts = np.array([salt_of(f"walker-{start + user}") for user in range(count)], dtype=np.uint64)
        return Shard(starts=ends - lengths, ends=ends, items=events, salts=salts)
