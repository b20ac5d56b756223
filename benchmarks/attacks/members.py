"""Somebody who has the released model tells who was in its training."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import LARGE_NOISE, OFF, PRIVATE, Defence
from benchmarks.attacks.poisoned_run import PHONES
from benchmarks.attacks.scoring import Figures, auc, found_at_one_percent
from benchmarks.attacks.sums import NoiseOnSums, sums_of
from benchmarks.attacks.world import Size, World, rounds_of, towers_of
from fedrec.data.randomness import DrawKey
from fedrec.federation.node import Node
from fedrec.recsys.model.lora import stacked
from fedrec.recsys.training.local_training import LocalTrainer, training_blocks

KEY = 7
PROBES = 8
"""Events of a user whose prediction is looked at."""

Signals = Callable[[World, Case, Sequence[np.ndarray]], np.ndarray]
"""A function that trains a model on each of some sets of users, and returns how well each model predicts every user:
(models, U)."""


def measure(world: World, case: Case) -> Figures:
    """Train the released model on half of the users, shadow models on other halves, and guess the half."""
    rng = world.generator(KEY)
    members = np.zeros((1 + int(case.options["shadows"]), world.users), dtype=bool)
    for half in members:
        half[rng.permutation(world.users)[: world.users // 2]] = True
    signals = SIGNALS[str(case.options["part"])](world, case, [np.flatnonzero(half) for half in members])
    scores, plain = likelihood_ratios(signals, members[1:]), signals[0]
    truth = members[0]
    return {
        "auc": auc(scores, truth),
        "found": found_at_one_percent(scores, truth),
        "uncalibrated_auc": auc(plain, truth),
    }


def likelihood_ratios(signals: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Score users by their log-likelihood ratio of being members: (1 + shadows, U), (shadows, U) → (U,).

    For each user, the signal of the shadow models that saw the user, and of those that did not, are normal with one
    variance over all users: the attack LiRA with few shadow models (Carlini et al. 2022, arXiv:2112.03570).
    """
    shadows = signals[1:]
    total = np.nanmean(shadows, axis=0)

    def mean_over(which: np.ndarray) -> np.ndarray:
        counts = which.sum(0)
        return np.where(counts > 0, np.where(which, shadows, 0).sum(0) / np.maximum(counts, 1), total)

    inside, outside = mean_over(members), mean_over(~members)
    variance = np.square(shadows - np.where(members, inside, outside)).mean() + 1e-12
    gap = np.median(inside - outside)  # the same for all users: of one user, few shadow models tell it badly
    middle = outside + gap / 2
    return (signals[0] - middle) * gap / variance


def signals_of_towers(world: World, case: Case, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Train towers on each set of users; the signal of a user is the negative loss of a window of the history."""
    config = world.configure(case.defence, {**PHONES, **rounds_of(world.size.poisoned_rounds)})
    setup = world.setup(config)
    towers, shard = towers_of(setup), world.dataset.shard
    trainer = LocalTrainer(towers.model, world.embeddings, config.fit)
    cohort = shard.training_windows(range(world.users), config.model.history + 1, config.seed, 0)
    signals = np.zeros((len(sets), world.users))
    for number, users in enumerate(sets):
        nodes = [Node(shard.select(users), setup)]
        adapter = world.train(nodes, config, f"members-{case.defence.name}-{number}").adapter
        losses = np.zeros(world.users)
        places = {int(salt): place for place, salt in enumerate(shard.salts)}
        for block in training_blocks(cohort, world.embeddings.device):
            with torch.inference_mode():
                found = trainer.client_losses(stacked(adapter, len(block)), block, DrawKey(0, 0))
            losses[[places[int(salt)] for salt in block.salts]] = found.numpy()
        signals[number] = -losses
    return signals


def signals_of_closed_form(world: World, case: Case, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Solve a closed form for each set of users; the signal is the mean z-score of some next events in the history."""
    options = {name: value for name, value in case.options.items() if name not in ("part", "shadows")}
    config = world.configure(case.defence, {"method": "closed-form"} | options)
    node = Node(world.dataset.shard, world.setup(config))
    noise, probes = NoiseOnSums.of(world, node, case.defence), draw_probes(world, node)
    signals = np.zeros((len(sets), world.users))
    for number, users in enumerate(sets):
        total = noise.add(sums_of(node, users), world.generator(KEY, number)).deltas
        solution = node.setup.closed_form.solver(total, noise.deviation).solve(config.search_space.middle)
        vectors_of = node.setup.closed_form.user_vectors(solution)
        signals[number] = probes.mean_scores(vectors_of, node.setup.closed_form.candidates)
    return signals


class Probes:
    """Some events of each user, with the histories before them."""

    def __init__(self, histories: list[np.ndarray], targets: np.ndarray, owners: np.ndarray, users: int) -> None:
        self._histories, self._targets, self._owners, self._users = histories, targets, owners, users

    def mean_scores(self, vectors_of: Callable[[Sequence[np.ndarray]], Tensor], candidates: Tensor) -> np.ndarray:
        """Compute each user's mean z-score of the probed events among all items: (U,)."""
        scores = vectors_of(self._histories) @ candidates.T  # (P, N)
        own = scores.gather(1, torch.from_numpy(self._targets).unsqueeze(1))[:, 0]
        z = ((own - scores.mean(1)) / scores.std(1).clamp(min=1e-12)).numpy()
        counts = np.bincount(self._owners, minlength=self._users)
        return np.bincount(self._owners, weights=z, minlength=self._users) / np.maximum(counts, 1)


def draw_probes(world: World, node: Node) -> Probes:
    """Draw at most `PROBES` events of each user that have an event before them."""
    histories, targets, owners = list[np.ndarray](), list[int](), list[int]()
    for user in range(world.users):
        events = node.setup.closed_form.summed_events(node.shard, user).astype(np.int64)
        ends = np.arange(1, len(events))
        for end in world.generator(KEY, 1, user).permutation(ends)[:PROBES]:
            histories.append(events[:end])
            targets.append(int(events[end]))
            owners.append(user)
    return Probes(histories, np.array(targets), np.array(owners), world.users)


SIGNALS: dict[str, Signals] = {"towers": signals_of_towers, "closed form": signals_of_closed_form}


def cases(size: Size) -> list[Case]:
    """List the models, and noise on the sums that they were solved from."""

    def case(width: int, defence: Defence = OFF) -> Case:
        options = {"part": "closed form", "shadows": size.shadows, "feature_width": width}
        return Case(f"closed form, {width} features", defence, options, defence is OFF)

    def towers(defence: Defence) -> Case:
        options = {"part": "towers", "shadows": size.shadows // 2}
        return Case(f"towers after {size.poisoned_rounds} rounds", defence, options)

    closed_forms = [case(512, defence) for defence in (OFF, PRIVATE, LARGE_NOISE)]
    return [*closed_forms, towers(OFF), towers(PRIVATE)]


MEMBERS = Attack(
    name="members",
    title="Who was in the training of a released model",
    attacker="Somebody who has the model and a user's history, and histories of other users to train models of the "
    "same kind on.",
    does="The released model is trained on half of the users. The attacker trains shadow models on other halves, "
    "looks how well each predicts a user's own next events, and compares the released model with the shadow models "
    "that saw the user and those that did not (LiRA).",
    conclusion="A model predicts its own users better than others, and shadow models tell by how much better it would "
    "be. A closed form with hundreds of features tells nearly all. Only noise on the sums that it is solved from "
    "bounds this, and privacy accounting says by how much.",
    columns=(
        Column("auc", "AUC"),
        Column("found", "found at 1 % false alarms", percent=True),
        Column("uncalibrated_auc", "AUC without shadow models"),
    ),
    bar=Bar("auc", 0.6),
    cases=cases,
    measure=measure,
)
