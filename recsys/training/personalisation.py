"""Training on each client alone: a private copy of an adapter, and the ranking of held-out items with it.

From the initial adapter this trains the same model on each client alone: the baseline that a federation must beat.
From a federated adapter it is personalisation by local fine-tuning (Yu et al. 2020, arXiv:2002.04758); if only some
parts are trained, it is personal layers over shared ones (Arivazhagan et al. 2019, arXiv:1912.00818; Collins et al.
2021, arXiv:2102.07078).

Shapes: C clients, U users, L events, N items, E embedding.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort, Shard
from fedrec.recsys.evaluation.ranking import Ranking, count_ranks, mask_seen, metric_means, metric_sums
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.lora import Adapter, Stack, with_changes
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import FitConfig, LocalTrainer

MAX_CLIENTS, MAX_EVENTS, MAX_CANDIDATES = 32, 4096, 4096
"""The maximum clients of a block, events that they train on, and items that are scored at a time."""

SELECTION_METRIC = "ndcg@10"
"""The validation metric that selects the config."""


@dataclass(frozen=True)
class PersonalConfig:
    """The hyperparameters of a client's private copy of an adapter."""

    steps: Annotated[int, Ge(0)] = 10  # each samples another window of a history that is longer than one window
    fit: FitConfig = field(default_factory=FitConfig)  # of a step; its `local_steps` has no effect
    parts: tuple[str, ...] = ("item", "user")  # beginnings of the names of the private parameters
    seed: Annotated[int, Ge(0)] = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the hyperparameters that differ between trials, ready for JSON."""
        return {"parts": list(self.parts), "rate": self.fit.local_rate, "steps": self.steps}


def config_grid(
    fit: FitConfig, steps: Sequence[int], rates: Sequence[float], parts: Sequence[tuple[str, ...]], seed: int = 0
) -> list[PersonalConfig]:
    """Return all combinations. Zero steps is one of them, once: the adapter without any change may be the best."""
    trained = [
        PersonalConfig(count, replace(fit, local_rate=rate), part, seed)
        for part, rate, count in product(parts, rates, sorted(set(steps) - {0}))
    ]
    return [PersonalConfig(0, fit, parts[0], seed), *trained]


@dataclass(frozen=True, eq=False)
class Clients:
    """Clients that each start from the same adapter and train alone. Their copies never leave this object."""

    model: TwoTowerModel
    adapter: Adapter
    shard: Shard
    embeddings: Tensor  # (N, E), on the adapter's device

    def rank(self, config: PersonalConfig, split: str) -> Ranking:
        """Rank the held-out item of each client that has one by the client's own copy, over the full catalogue.

        A copy is trained on training events only, for either split. Raises `InputError` if a part of the config is the
        beginning of no parameter's name.
        """
        return self._rank_after(config, split, [config.steps])[config.steps]

    def tune(self, configs: Sequence[PersonalConfig]) -> tuple[PersonalConfig, list[dict[str, Any]]]:
        """Select the config that is best on validation, the earlier one among equals; return it and every trial.

        Trials are ready for JSON. Configs that differ in their steps alone share one path, which is trained once.
        """
        paths: dict[PersonalConfig, list[int]] = {}
        for config in configs:
            paths.setdefault(replace(config, steps=0), []).append(config.steps)
        rankings = {path: self._rank_after(path, "validation", stops) for path, stops in paths.items()}
        means = [metric_means(metric_sums(rankings[replace(c, steps=0)][c.steps].ranks)) for c in configs]
        best = max(range(len(configs)), key=lambda trial: means[trial][SELECTION_METRIC])
        trials = [c.as_dict() | {"validation": m} for c, m in zip(configs, means, strict=True)]
        return configs[best], trials

    def _rank_after(self, config: PersonalConfig, split: str, stops: Sequence[int]) -> dict[int, Ranking]:
        """Rank after each of these numbers of steps, along one path of training."""
        self._check_parts(config.parts)
        trainer = LocalTrainer(self.model, self.embeddings, config.fit, config.parts)
        ranked = self.shard.ranked(range(len(self.shard)), split)
        everyone = self.shard.training_windows(ranked, self.model.config.history + 1, config.seed, 0)
        everyone = everyone.check_rows(len(self.embeddings))

        def ranks_along_path(block: tuple[np.ndarray, Cohort]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
            users, length = ranked[block[0]], block[1].items.shape[-1]
            windows = (self.shard.training_windows(users, length, config.seed, step) for step in range(max(stops)))
            path = trainer.local_sgd(self.adapter, windows, DrawKey(config.seed, round=0))
            changes: Iterator[Stack] = chain([{}], (updates.deltas for updates in path))
            return block[0], {
                step: self._rank_held_out(users, c, split) for step, c in enumerate(changes) if step in stops
            }

        ranks = {stop: np.zeros(len(ranked), dtype=np.int64) for stop in stops}
        for places, block_ranks in parallel_map(ranks_along_path, everyone.blocks(MAX_EVENTS, MAX_CLIENTS)):
            for stop in stops:
                ranks[stop][places] = block_ranks[stop]
        return {stop: Ranking(r, math.nan) for stop, r in ranks.items()}

    def _check_parts(self, parts: tuple[str, ...]) -> None:
        """Raise `InputError` if a part is the beginning of no parameter's name."""
        for part in parts:
            if not any(name.startswith(part) for name in self.adapter):
                raise InputError(f"`parts`: {part!r} begins no name of the adapter; its names are {list(self.adapter)}")

    @torch.inference_mode()
    def _rank_held_out(self, users: np.ndarray, changes: Stack, split: str) -> np.ndarray:
        """Rank some users' held-out items, each by its own adapter: (C,)."""
        # User vectors of the histories
        histories = [self.shard.history(user, split) for user in users]
        cohort = Cohort.from_histories(histories, self.shard.salts[users], self.model.config.history)
        items, mask = (
            torch.from_numpy(c[:, 0]).to(self.embeddings.device) for c in (cohort.items, cohort.mask)
        )  # (C, L)
        stack = with_changes(self.adapter, changes, len(users))
        vectors = self.model.functional_forward(stack, "item", self.embeddings[items])  # (C, L, E)
        user_vectors = self.model.functional_forward(stack, "user", vectors, mask)[:, -1:]  # (C, 1, E)

        # Scores of all items by each client's own item tower, and the ranks
        scores = [
            (user_vectors @ self.model.functional_forward(stack, "item", e.expand(len(users), -1, -1)).mT)[:, 0]
            for e in self.embeddings.split(MAX_CANDIDATES)
        ]
        return count_ranks(mask_seen(torch.cat(scores, 1), histories), self.shard.held_out(users, split))
