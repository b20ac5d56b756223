"""Flower's own simulation runtime with our apps, one node per user, for comparison in `fedrec bench`."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from fedrec.federation import client_app
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run


@dataclass(frozen=True)
class VirtualNode:
    """Our ClientApp on a simulated node; the simulation's partition number selects its users."""

    data: Path
    config: RunConfig

    def __call__(self, message: Message, context: Context) -> Message:
        part, parts = (context.node_config[name] for name in ("partition-id", "num-partitions"))
        node_config = {"data": str(self.data), "part": part, "parts": parts, "persistent": False, "simulated": True}
        ours = replace(context, node_config=node_config, run_config=to_flat(self.config))
        return client_app.app(message, ours)


def simulate(data: Path, config: RunConfig, stamp: dict[str, str], state: State, folder: Path, cores: int) -> State:
    """Run `config.rounds` rounds over `config.nodes` simulated nodes and return the final state.

    Needs the package `flwr[simulation]`. The rounds' log is written to `folder`.
    """
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    ended: list[State] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        roster = take_census(grid, config, stamp)
        ended.append(run(grid, roster, state, config, RoundLog(folder)))

    # by default a node takes two cores, and waits for ever if there is only one
    resources: dict[str, Any] = {"init_args": {"num_cpus": cores}, "client_resources": {"num_cpus": min(2, cores)}}
    node: Any = VirtualNode(data, config)
    run_simulation(app, node, config.nodes, backend_config=resources)
    return ended[0]
