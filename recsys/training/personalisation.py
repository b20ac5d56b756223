"""What a client can do by itself: train a private copy of an adapter on its own events, keep it, be ranked with it.

From the adapter as it starts, this is the same model trained on each client alone: what a federation must beat.
From a federated adapter it is personalisation by local fine-tuning (Yu et al. 2020, arXiv:2002.04758); where only
some parts are the client's own, personal layers over shared ones (Arivazhagan et al. 2019, arXiv:1912.00818;
Collins et al. 2021, arXiv:2102.07078).
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
from fedrec.data.shard import Cohort, Shard
from fedrec.recsys.evaluation.ranking import Ranking, mask_seen, metric_means, metric_sums, ranks_of
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.lora import Adapter, Stack, with_changes
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.training.local_training import FitConfig, local_sgd

CLIENTS, EVENTS, CANDIDATES = 32, 4096, 4096
"""At a time, at most: clients that hold a copy of the adapter, events they train on, items they score."""

SCORE = "ndcg@10"
"""The validation metric that chooses."""


@dataclass(frozen=True)
class PersonalConfig:
    """How a client trains its private copy of an adapter."""

    steps: Annotated[int, Ge(0)] = 10  # each on another window of a history that is longer than one
    fit: FitConfig = field(
        default_factory=FitConfig
    )  # the length of a step, its negatives and precision; not the number of steps
    parts: tuple[str, ...] = ("item", "user")  # beginnings of the names of what is the client's own
    seed: Annotated[int, Ge(0)] = 0

    def described(self) -> dict[str, Any]:
        """What tells one trial from another, ready for JSON."""
        return {"parts": list(self.parts), "rate": self.fit.local_rate, "steps": self.steps}


def grid(
    fit: FitConfig, steps: Sequence[int], rates: Sequence[float], parts: Sequence[tuple[str, ...]], seed: int = 0
) -> list[PersonalConfig]:
    """All combinations. No steps at all is one of them, once: the adapter as it was given may be the best."""
    walked = [
        PersonalConfig(count, replace(fit, local_rate=rate), part, seed)
        for part, rate, count in product(parts, rates, sorted(set(steps) - {0}))
    ]
    return [PersonalConfig(0, fit, parts[0], seed), *walked]


@dataclass(frozen=True, eq=False)
class Clients:
    """Clients who each start from the same adapter and go on by themselves; nothing of them leaves this object."""

    model: Model
    adapter: Adapter
    shard: Shard
    embeddings: Tensor  # (N, E), on the adapter's device

    def rank(self, config: PersonalConfig, split: str) -> Ranking:
        """Every client's held-out item by the client's own copy, over the full catalogue.

        Whatever the split, a copy is trained on training events only. Raises `InputError` for a part that is none.
        """
        return self._along(config, split, [config.steps])[config.steps]

    def tune(self, configs: Sequence[PersonalConfig]) -> tuple[PersonalConfig, list[dict[str, Any]]]:
        """The config that is best on validation, the earlier one among equals, and every trial, ready for JSON.

        Configs that differ in their steps alone are stops on one path, which is walked once.
        """
        paths: dict[PersonalConfig, list[int]] = {}
        for config in configs:
            paths.setdefault(replace(config, steps=0), []).append(config.steps)
        found = {path: self._along(path, "validation", stops) for path, stops in paths.items()}
        means = [metric_means(metric_sums(found[replace(c, steps=0)][c.steps].ranks)) for c in configs]
        best = max(range(len(configs)), key=lambda trial: means[trial][SCORE])
        trials = [c.described() | {"validation": m} for c, m in zip(configs, means, strict=True)]
        return configs[best], trials

    def _along(self, config: PersonalConfig, split: str, stops: Sequence[int]) -> dict[int, Ranking]:
        """Rankings after so many steps each, all on one path."""
        for part in config.parts:
            if not any(name.startswith(part) for name in self.adapter):
                raise InputError(f"parts: {part!r} begins no name of the adapter; its names are {list(self.adapter)}")
        everyone = self.shard.training_windows(range(len(self.shard)), self.model.config.history + 1, config.seed, 0)
        everyone = everyone.check_rows(len(self.embeddings))

        def walk(part: tuple[np.ndarray, Cohort]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
            users, length = part[0], part[1].items.shape[-1]
            crops = (self.shard.training_windows(users, length, config.seed, step) for step in range(max(stops)))
            stream = (config.seed, 0)
            path = local_sgd(self.model, self.adapter, crops, self.embeddings, config.fit, stream, config.parts)
            changes: Iterator[Stack] = chain([{}], (fitted.deltas for fitted in path))
            return users, {step: self._ranks(users, c, split) for step, c in enumerate(changes) if step in stops}

        ranks = {stop: np.zeros(len(self.shard), dtype=np.int64) for stop in stops}
        for users, found in parallel_map(walk, everyone.blocks(EVENTS, CLIENTS)):
            for stop in stops:
                ranks[stop][users] = found[stop]
        return {stop: Ranking(r, math.nan) for stop, r in ranks.items()}

    @torch.inference_mode()
    def _ranks(self, users: np.ndarray, changes: Stack, split: str) -> np.ndarray:
        """Ranks of some users' held-out items, each by its own adapter: (C,)."""
        histories = [self.shard.history(user, split) for user in users]
        read = Cohort.from_histories(histories, self.shard.salts[users], self.model.config.history)
        items, mask = (torch.from_numpy(c[:, 0]).to(self.embeddings.device) for c in (read.items, read.mask))  # (C, L)
        stack = with_changes(self.adapter, changes, len(users))
        vectors = self.model.under(stack, "item", self.embeddings[items])  # (C, L, E)
        taste = self.model.under(stack, "user", vectors, mask)[:, -1:]  # (C, 1, E)
        scores = [
            (taste @ self.model.under(stack, "item", some.expand(len(users), -1, -1)).mT)[:, 0]
            for some in self.embeddings.split(CANDIDATES)
        ]
        return ranks_of(mask_seen(torch.cat(scores, 1), histories), self.shard.held_out(users, split))
