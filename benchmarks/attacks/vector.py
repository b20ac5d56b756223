"""An endpoint reads the recent history from a user vector that it is asked with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import LARGE_NOISE, OFF, SMALL_NOISE, Defence
from benchmarks.attacks.matching import pursue
from benchmarks.attacks.scoring import Figures, average
from benchmarks.attacks.sums import sums_of
from benchmarks.attacks.world import Size, World, towers_of
from fedrec.recsys.training.closed_form import ClosedFormMethod

KEY = 3
RECENT = 10
"""The events at a history's end that are guessed, by as many guesses."""


class Served(NamedTuple):
    """What an endpoint has: a vector of each item, and the user vectors that devices send."""

    items: Tensor  # (N, d)
    users: Tensor  # (B, d)


def measure(world: World, case: Case) -> Figures:
    """Guess the recent events of victims from their vectors."""
    victims = world.generator(KEY).choice(world.users, min(2 * world.size.victims, world.users), replace=False)
    histories = [world.dataset.shard.history(user, "test") for user in victims]
    served = SERVED[str(case.options["part"])](world, histories)
    rng, rows = world.generator(KEY, 1), []
    for history, vector in zip(histories, served.users, strict=True):
        noise = torch.from_numpy(rng.standard_normal(len(vector)))
        noisy = vector.double() + case.defence.noise * vector.norm() * noise / noise.norm()
        rows.append(_score(world, history, pursue(served.items, noisy, RECENT)))
    return average(rows)


def _score(world: World, history: np.ndarray, guesses: list[int]) -> Figures:
    """Compare guesses, the surest first, with the last events of a history."""
    recent = set(history[-RECENT:].tolist())
    popular = set(np.argsort(-world.popularity, kind="stable")[:RECENT].tolist())
    return {
        "newest": float(guesses[0] == history[-1]),
        "recent": len(recent & set(guesses)) / len(recent),
        "popularity_recent": len(recent & popular) / len(recent),
    }


def serve_towers(world: World, histories: Sequence[np.ndarray]) -> Served:
    """Compute the vectors of trained towers."""
    encode, items = towers_of(world.setup(world.config)).encoder(world.trained())
    return Served(items, encode(histories))


def serve_closed_form(world: World, histories: Sequence[np.ndarray]) -> Served:
    """Compute the closed form's part of the vectors, from the sums of some users: the attack needs no good solution."""
    config = world.configure(settings={"method": "closed-form"})
    node = world.node(config)
    method: ClosedFormMethod = node.setup.closed_form
    total = sums_of(node, world.draw_cohorts(64, 1, KEY)[0]).deltas
    solution = method.solver(total).solve(config.search_space.middle)
    cut = method.cut(solution, total, config.search_space.middle)
    model = method.artifact(cut, total, world.embeddings).model
    return Served(model.events, model.user_vectors(histories))


SERVED = {"towers": serve_towers, "closed form": serve_closed_form}


def cases(size: Size) -> list[Case]:
    """List both parts of a vector, with noise of some length on it."""

    def case(part: str, defence: Defence = OFF) -> Case:
        return Case(f"vector of the {part}", defence, {"part": part}, part == "closed form" and defence is OFF)

    return [case(part, defence) for part in SERVED for defence in (OFF, SMALL_NOISE, LARGE_NOISE)]


VECTOR = Attack(
    name="vector",
    title="The recent history, from a user vector",
    attacker="An endpoint, or whoever reads its traffic: it has the item vectors, and receives a vector that a device "
    "computed from its own history.",
    does="A user vector is a sum of the vectors of recent events, with falling weights. Orthogonal matching pursuit "
    "takes it apart: the item that explains most is the newest event, and so on with what is left.",
    conclusion="A user vector is the recent history in other words. A device that does not trust the endpoint ranks by "
    "itself. Noise on the vector takes from the answer what it takes from the attack.",
    columns=(
        Column("newest", "newest event named first", percent=True),
        Column("recent", "of the last ten, in ten guesses", percent=True),
        Column("popularity_recent", "popularity", percent=True),
    ),
    bar=Bar("recent", 0.5),
    cases=cases,
    measure=measure,
)
