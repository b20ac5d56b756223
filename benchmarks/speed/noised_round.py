"""The cost of differential privacy: seconds of a round in one process whose sum gets noise, beside one without.

The server's part is whole: the release is entered into the ledger on the disk, and then the noise is drawn.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import worlds
from benchmarks.speed.clock import alternate
from benchmarks.speed.secure_aggregation import Way, request_rounds
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport
from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.config import PrivacyConfig
from fedrec.federation.privacy.ledger import Ledger, Spent
from fedrec.federation.privatise import Privatiser

CLIENTS, TURNS = 128, 9
PRIVACY = PrivacyConfig(epsilon=8.0)


def measure_noise(config: RunConfig, clients: int = CLIENTS) -> dict[str, Any]:
    """Measure rounds with and without noise over one node, in turns: the medians, and their ratios."""
    config = replace(config, nodes=1, privacy=PRIVACY)
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        world = SyntheticConfig(users=clients, items=2000, interactions=20 * clients, seed=0, longest=100)
        data = worlds.make_world(world, Path(name) / "world", config)
        wanted = Releases(TURNS + 1, 1.0, 0.0, 0, 0.0)
        Ledger.plan_run(PRIVACY, wanted, clients, config.clip, Spent()).save(Path(name))
        noised = _add_noise(request_rounds(data, config, False), Privatiser.open(Path(name), config))
        ways = {"open": Way(request_rounds(data, config, False)), "noised": Way(noised)}
        seconds = alternate({kind: way.run_round for kind, way in ways.items()}, TURNS)
    figures = {kind: way.figures(seconds[kind]) for kind, way in ways.items()}
    names = ("seconds", "processor_seconds")
    ratios = {f"{name}_ratio": round(figures["noised"][name] / figures["open"][name], 3) for name in names}
    return {"clients": clients, "nodes": 1, "epsilon": PRIVACY.epsilon, **figures, **ratios}


def _add_noise(rounds: Iterator[RoundReport], privatiser: Privatiser) -> Iterator[RoundReport]:
    """Release the sum of each round, with noise."""
    for report in rounds:
        total = report.updates[0]
        privatiser.release_round(total, privatiser.config.clip, total.deltas)
        yield report
