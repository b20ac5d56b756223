"""A bound on exposure: no item is shown to far more users than its popularity accounts for.

Some users who promote an item send changes that no rule tells from honest ones by their numbers alone. What they are
after shows in the adapter: their item is in the top ten of users who have no reason to see it. The server can see this
by itself. It has the adapter and the public catalogue, so that it ranks the items for invented users, whose histories
it draws by the catalogue's popularity. An item is over its bound if it is shown to more of them than

    max(exposure, FACTOR · 10 · the item's share of all popularity),

since 10 times this share is what an item is shown if the lists of all users together are as the histories are. Then the
adapter takes the shortest step, to first order, that lowers the item's log-probability for these users, until the item
is within its bound.

The bound looks at the effect of a round and not at its answers: it works under secure aggregation, however many users
lie, and after noise it is computation on what was released. Its limits are in docs/robustness.md.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.popularity import POPULARITY
from fedrec.data.randomness import Stream, random_stream
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel

INVENTED = 512
"""Invented users for whom the server ranks."""
EVENTS = 12
"""Events of an invented user, at most."""
LISTED = 10
FACTOR = 5.0
"""How much more than by its popularity an item may be shown. Honest runs show some items 4 times as much."""
STEP, PASSES = 0.5, 20
"""How much a pass lowers an item's mean log-probability, and the most passes of a round."""

logger = logging.getLogger("fedrec")


def score_items(model: TwoTowerModel, adapter: Adapter, embeddings: Tensor, histories: Tensor, mask: Tensor) -> Tensor:
    """Score all items for right-aligned histories, with gradients by the adapter: (N, E), (B, L) twice → (B, N)."""
    stack = {name: tensor.unsqueeze(0) for name, tensor in adapter.items()}
    vectors = model.functional_forward(stack, "item", embeddings.unsqueeze(0))[0]  # (N, E)
    return model.functional_forward(stack, "user", vectors[histories], mask)[:, -1] @ vectors.T


def correction_of(setup: TrainingSetup) -> Callable[[Adapter, int], Adapter]:
    """Return what a run does to its adapter after a round: nothing, if it has no bound. Raises `InputError`."""
    return ExposureBound.of(setup).apply if setup.config.server.exposure else lambda adapter, round: adapter


@dataclass(frozen=True, eq=False)
class ExposureBound:
    """What the server knows of its catalogue, and the bound of each item. All tensors are where clients train."""

    model: TwoTowerModel
    embeddings: Tensor  # (N, E)
    histories: Tensor  # (B, L) rows of the invented users' items
    most: Tensor  # (N,) the invented users to whom an item may be shown

    @classmethod
    def of(cls, setup: TrainingSetup) -> Self:
        """Build the bound of a run. Raises `InputError` if the catalogue has no popularity."""
        frame, exposure = setup.dataset.catalogue.frame, setup.config.server.exposure
        if POPULARITY not in frame.columns:
            raise InputError(
                f"setting exposure = {exposure:g}: the catalogue has no popularity to compare with; prepare the data "
                "with it, or set exposure = 0"
            )
        share = frame[POPULARITY].to_numpy().astype(float)
        share /= max(share.sum(), 1.0)
        known = np.flatnonzero(share)
        rng, length = random_stream(Stream.INVENTED_USERS, setup.config.seed), min(EVENTS, setup.config.model.history)
        drawn = [rng.choice(known, min(length, len(known)), False, share[known]) for _ in range(INVENTED)]
        bounds = np.maximum(exposure, FACTOR * LISTED * share) * INVENTED
        embeddings = setup.device_embeddings.matrix
        rows = torch.from_numpy(np.stack(drawn)).to(embeddings.device)
        return cls(setup.device_model, embeddings, rows, torch.from_numpy(bounds).to(embeddings.device))

    @cached_property
    def _mask(self) -> Tensor:
        return torch.ones_like(self.histories, dtype=torch.bool)

    def apply(self, adapter: Adapter, round: int) -> Adapter:
        """Return the adapter with each item within its bound, and log the items that were not."""
        lowered: Tensor | None = None
        moved = {name: tensor.to(self.embeddings.device) for name, tensor in adapter.items()}
        for _ in range(PASSES):
            shown = self.show(moved)
            over = shown.sum(0) > self.most
            if not over.any():
                break
            lowered = over if lowered is None else lowered | over
            moved = self._lower(moved, shown & over)
        if lowered is None:
            return adapter
        logger.info("round %s: %s items are shown more than their popularity accounts for", round, int(lowered.sum()))
        return {name: tensor.cpu() for name, tensor in moved.items()}

    @torch.inference_mode()
    def show(self, adapter: Adapter) -> Tensor:
        """Return the items that each invented user is shown: (B, N) of bool."""
        scores = score_items(self.model, adapter, self.embeddings, self.histories, self._mask)
        scores.scatter_(1, self.histories, -torch.inf)
        top = scores.topk(min(LISTED, scores.shape[1])).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)

    def _lower(self, adapter: Adapter, pairs: Tensor) -> Adapter:
        """Lower the mean log-probability of some items for some users by `STEP`: pairs (B, N) of bool."""
        trained = {name: tensor.clone().requires_grad_() for name, tensor in adapter.items()}
        users, items = pairs.nonzero(as_tuple=True)
        rows, owners = users.unique(return_inverse=True)
        scores = score_items(self.model, trained, self.embeddings, self.histories[rows], self._mask[rows])
        chances = torch.log_softmax(scores / self.model.config.temperature, dim=1)[owners, items]
        slopes = torch.autograd.grad(chances.mean(), list(trained.values()))
        steepness = sum(float(slope.double().square().sum()) for slope in slopes)
        scale = STEP / max(steepness, 1e-30)
        return {name: tensor - scale * slope for (name, tensor), slope in zip(adapter.items(), slopes, strict=True)}
