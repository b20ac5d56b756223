"""The table of every attack with every defence on and off, from the cases that the attacks have measured.

A cell names a case, by its words and its defence, or says in words why the defence does not apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.attacks.attack import Attack, Column
from benchmarks.attacks.breaches import BREACHED
from benchmarks.attacks.defences import EXPOSURE
from benchmarks.attacks.flip import FLIP
from benchmarks.attacks.free_riders import BOUNDED_USERS, FREE_RIDERS
from benchmarks.attacks.history import HISTORY
from benchmarks.attacks.members import MEMBERS
from benchmarks.attacks.orders import ORDERS
from benchmarks.attacks.printing import format_figure
from benchmarks.attacks.promotion import PROMOTION
from benchmarks.attacks.results import AttackResult, CaseResult
from benchmarks.attacks.sums import SUMS
from benchmarks.attacks.tickets import TICKETS
from benchmarks.attacks.traps import TRAPS
from benchmarks.attacks.vector import VECTOR


class Measured(NamedTuple):
    """The case of a cell."""

    about: str
    defence: str = "none"


Cell = Measured | str
"""A case, or words."""

DEFENCES = ("none", "policy", "secure aggregation", "noise, ε = 8", "robust rules, bounds")
"""The columns. Secure aggregation: the server sees the sum over the whole cohort alone. Noise: in that sum."""


@dataclass(frozen=True)
class Row:
    """An attack, the figure that says how far it gets, the one of a guesser, and a cell for each of `DEFENCES`."""

    title: str
    attack: Attack
    figure: str
    cells: Sequence[Cell]
    guesser: str = ""

    @property
    def column(self) -> Column:
        """The figure's column in the attack's own table."""
        return next(column for column in self.attack.columns if column.name == self.figure)


NO_ANSWER = "does not apply: the answers are honest"
NOT_SENT = "does not apply: it bounds what a node is asked"
ONE_SUM = "as without: of masked sums only the sum is known"
OUTSIDE = "does not apply: outside of training"
SINGLE = "sum of 1 user, at the start"
ALONE = "one user in a sum of {} users, at the start"
CLOSED = "one user in a sum of all users, features text"
DIFFERENCE = "one user, by two sums of 128 and 127 users, features text"
PROMOTED = "5 % of the users, crafted changes, a dead item"

ROWS = (
    Row(
        "A user's items, from the user's own change",
        HISTORY,
        "auc",
        (
            Measured(SINGLE),
            Measured(SINGLE, "policy"),
            Measured(ALONE.format(128)),
            Measured(SINGLE, "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "A user's items, from a sum over 16 users, and over a cohort of 128",
        HISTORY,
        "auc",
        (
            Measured(ALONE.format(16)),
            Measured(ALONE.format(16), "policy"),
            Measured(ALONE.format(128)),
            Measured(ALONE.format(128), "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "A user's items, from the user's own sums",
        SUMS,
        "auc",
        (
            Measured("sum of 1 user, features text"),
            Measured("sum of 1 user, features text", "policy"),
            Measured(CLOSED),
            Measured(CLOSED, "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "A user's items, from the difference of two sums",
        SUMS,
        "auc",
        (
            Measured(DIFFERENCE),
            Measured(DIFFERENCE, "policy"),
            "as without: both sums are exact",
            Measured(DIFFERENCE, "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "Rare items in a sum of 128, by trap neurons",
        TRAPS,
        "auc",
        (
            Measured("sum of 128 users"),
            Measured("sum of 128 users", "policy"),
            "as without: it is a sum over 128",
            Measured("sum of 128 users", "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "The same, by traps that pass the policy",
        TRAPS,
        "auc",
        (
            Measured("sum of 128 users, traps that pass the policy"),
            Measured("sum of 128 users, traps that pass the policy", "policy"),
            "as without: it is a sum over 128",
            Measured("sum of 128 users, traps that pass the policy", "policy, noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_auc",
    ),
    Row(
        "The held-out item, from 12 orders",
        ORDERS,
        "found",
        (
            Measured("12 orders of one user"),
            Measured("12 orders of one user", "policy"),
            Measured("12 orders of 17 users, and of 16 of them"),
            Measured("12 orders of one user", "noise, ε = 8"),
            NO_ANSWER,
        ),
        "popularity_found",
    ),
    Row(
        "Requests beyond the policy, of those asked",
        BREACHED,
        "obeyed",
        (
            Measured("requests beyond the policy"),
            Measured("requests beyond the policy", "policy"),
            *["does not apply"] * 3,
        ),
        "asked",
    ),
    Row(
        "The person behind a ticket",
        TICKETS,
        "found",
        (
            Measured("salts from ids"),
            Measured("salts from ids", "random salts"),
            *["does not apply: tickets are in the census"] * 3,
        ),
    ),
    Row(
        "The recent history, from a user vector",
        VECTOR,
        "recent",
        (Measured("vector of the closed form"), *[OUTSIDE] * 4),
        "popularity_recent",
    ),
    Row(
        "Membership in a closed form",
        MEMBERS,
        "auc",
        (
            Measured("closed form, 512 features"),
            "as without: it bounds no model",
            "as without: the sum is exact",
            Measured("closed form, 512 features", "noise, ε = 8"),
            "does not apply: sums are added",
        ),
    ),
    Row(
        "Membership in towers",
        MEMBERS,
        "auc",
        (
            Measured("towers after 40 rounds"),
            "as without: it bounds no model",
            "as without: the sum is exact",
            Measured("towers after 40 rounds", "noise, ε = 8"),
            "as without: a centre is no noise",
        ),
    ),
    Row(
        "A promoted item, by crafted changes of 5 % of the users: shown to",
        PROMOTION,
        "shown",
        (
            Measured(PROMOTED),
            NOT_SENT,
            ONE_SUM,
            Measured(PROMOTED, "noise, ε = 8"),
            Measured(PROMOTED, EXPOSURE.name),
        ),
        "shown_before",
    ),
    Row(
        "The same, by one lying node of 20: shown to",
        PROMOTION,
        "shown",
        (
            Measured("5 % of the users on one node of 20, crafted changes, a dead item"),
            NOT_SENT,
            ONE_SUM,
            "as by phones",
            Measured("5 % of the users on one node of 20, crafted changes, a dead item", EXPOSURE.name),
        ),
        "shown_before",
    ),
    Row(
        "Changes of 5 % with the opposite sign: NDCG@10 lost",
        FLIP,
        "ndcg_lost",
        (
            Measured("5 % of the users"),
            NOT_SENT,
            ONE_SUM,
            Measured("5 % of the users", "noise, ε = 8"),
            Measured("5 % of the users", "geometric median over users"),
        ),
    ),
    Row(
        "Ten times all users, invented by one node: NDCG@10 lost",
        FREE_RIDERS,
        "ndcg_lost",
        (
            Measured("10 times all users, all invented"),
            NOT_SENT,
            ONE_SUM,
            Measured("10 times all users, all invented", "noise, ε = 8"),
            Measured("10 times all users, all invented", BOUNDED_USERS.name),
        ),
    ),
)
"""The rows of the table."""


def cells_of(row: Row, results: Mapping[str, AttackResult]) -> list[str]:
    """Return the cells of a row: its title, the guesser's figure, and one for each defence."""
    measured = results[row.attack.name].cases if row.attack.name in results else ()
    found = [_find(cell, measured) if isinstance(cell, Measured) else cell for cell in row.cells]
    first = found[0]
    guessed = first.figures.get(row.guesser) if isinstance(first, CaseResult) and row.guesser else None
    return [row.title, format_figure(guessed, row.column), *(_format(cell, row.column) for cell in found)]


def _find(cell: Measured, cases: Sequence[CaseResult]) -> CaseResult | str:
    found = (case for case in cases if (case.about, case.defence) == cell)
    return next(found, "not measured")


def _format(cell: CaseResult | str, column: Column) -> str:
    if isinstance(cell, str):
        return cell
    return "refused" if cell.refused else format_figure(cell.figures.get(column.name), column)
