"""Flower's own simulation runtime with our apps, each user a node of its own: what `fedrec bench` compares with."""

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
    """Our ClientApp, told by the simulation's own numbers which part of the users it hosts."""

    data: Path
    config: RunConfig

    def __call__(self, message: Message, context: Context) -> Message:
        part, parts = (context.node_config[name] for name in ("partition-id", "num-partitions"))
        node_config = {"data": str(self.data), "part": part, "parts": parts, "persistent": False}
        told = replace(context, node_config=node_config, run_config=to_flat(self.config))
        return client_app.app(message, told)


def simulate(data: Path, config: RunConfig, stamp: dict[str, str], state: State, folder: Path, cores: int) -> State:
    """Run `config.rounds` rounds over `config.nodes` simulated nodes, and return the state after them.

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

    # a node takes two cores unless told otherwise, and waits for ever where there is one
    resources: dict[str, Any] = {"init_args": {"num_cpus": cores}, "client_resources": {"num_cpus": min(2, cores)}}
    node: Any = VirtualNode(data, config)
    run_simulation(app, node, config.nodes, backend_config=resources)
    return ended[0]
