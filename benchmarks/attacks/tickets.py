"""A server guesses the ids behind the tickets of a census."""

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import OFF, RANDOM_SALTS
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.data.randomness import salt_of, ticket_of

KEY = 6


def measure(world: World, case: Case) -> Figures:
    """Derive the tickets of the ids 1 to `guesses`, and look them up in the census."""
    salts = draw_salts(world) if case.defence.random_salts else [salt_of(user) for user in world.dataset.users]
    census = {ticket_of(salt) for salt in salts}
    found = sum(ticket_of(salt_of(str(number))) in census for number in range(1, world.size.guesses + 1))
    return {"found": found / len(census), "users": len(census), "guesses": world.size.guesses}


def draw_salts(world: World) -> list[int]:
    """Draw salts at random, as a node does that derives none from ids."""
    return world.generator(KEY).integers(2**63, size=world.users, dtype=np.uint64).tolist()


def cases(size: Size) -> list[Case]:
    """List the two ways to salt."""
    return [Case("salts from ids", OFF, control=True), Case("salts from ids", RANDOM_SALTS)]


TICKETS = Attack(
    name="tickets",
    title="Users, from their tickets",
    attacker="The server, which receives a ticket of each user in the census and guesses what ids look like: numbers.",
    does="A ticket is a hash of the salt. If the salt is a hash of the id, each guessed id has one ticket, and the "
    "attack looks it up.",
    conclusion="A hash of an id that can be guessed is the id. With salts that a node draws at random, a ticket says "
    "nothing.",
    columns=(
        Column("found", "users found", percent=True),
        Column("users", "users", count=True),
        Column("guesses", "ids tried", count=True),
    ),
    bar=Bar("found", 0.5),
    cases=cases,
    measure=measure,
)
