"""Privacy at the server: a place between the aggregate of a round and the server's step."""

from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Update


def privatise(total: Update | None, config: RunConfig, round: int) -> Update | None:
    """Return the aggregate of a round as the server may use it; today, as it is.

    Noise for central differential privacy belongs here: once per round, after the sum, and before anything is read
    from it. Each client's change is in the sum with an L2 norm of at most `config.clip`, which is the sensitivity of
    `deltas`; with a noise multiplier z, each of their numbers gets a draw of N(0, (z · clip)²) (DP-FedAvg, McMahan et
    al. 2018, arXiv:1710.06963). The metrics in `sums` have a sensitivity of their own and need their own noise. The
    draws must come from the operating system's generator, not from the run's seed, which the nodes know. A `total` of
    None (no node answered) stays None.

    The statistics of the closed form come through here too, once a run. No clip bounds them, only the number of a
    user's events that count, so that they need a sensitivity of their own.
    """
    return total
