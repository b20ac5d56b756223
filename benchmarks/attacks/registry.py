"""The attacks by name."""

from benchmarks.attacks.attack import Attack
from benchmarks.attacks.breaches import BREACHED
from benchmarks.attacks.flip import FLIP
from benchmarks.attacks.free_riders import FREE_RIDERS
from benchmarks.attacks.history import HISTORY
from benchmarks.attacks.intruder import INTRUDER
from benchmarks.attacks.leverage import LEVERAGE
from benchmarks.attacks.members import MEMBERS
from benchmarks.attacks.orders import ORDERS
from benchmarks.attacks.promotion import PROMOTION
from benchmarks.attacks.sums import SUMS
from benchmarks.attacks.tickets import TICKETS
from benchmarks.attacks.traps import TRAPS
from benchmarks.attacks.vector import VECTOR
from fedrec.data.errors import InputError

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        *(HISTORY, SUMS, VECTOR, TRAPS, ORDERS, BREACHED, TICKETS),
        *(MEMBERS, PROMOTION, FLIP, FREE_RIDERS, INTRUDER, LEVERAGE),
    )
}
EVERY = "all"
"""The name that stands for all attacks."""


def attacks_named(name: str) -> list[Attack]:
    """Return the attack of a name, or all. Raises `InputError` with the names if there is none."""
    if name == EVERY:
        return list(ATTACKS.values())
    if name not in ATTACKS:
        raise InputError(f"`name` = {name!r} is no attack; choose one of {', '.join([*ATTACKS, EVERY])}")
    return [ATTACKS[name]]
