"""A ledger of given noise, and settings of private runs."""

from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.ledger import Ledger

PRIVATE = {"epsilon": 8.0, "delta": 1e-3}
PAIRS = PRIVATE | {"method": "closed-form", "features": "pairs", "pair_neighbours": 4}


def planned(noise: float = 1.0, rounds: int = 3, statistics: int = 1, population: int = 100) -> Ledger:
    """A ledger with given noise, whose guarantee is what that noise keeps."""
    plan = Releases(rounds, 0.1 if rounds else 0.0, noise if rounds else 0.0, statistics, noise if statistics else 0.0)
    return Ledger(plan.spent(1e-3), 1e-3, population, plan, clip=1.0, statistic_clip=1.0)
