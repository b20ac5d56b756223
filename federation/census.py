"""The census: which nodes take part in a run, and which users each of them hosts."""

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import content_of, one_line, send_and_receive
from fedrec.federation.roster import Roster

logger = logging.getLogger("fedrec")


def take_census(grid: Grid, config: RunConfig, stamp: Mapping[str, str], poll: float = 1.0) -> Roster:
    """Wait until `config.nodes` nodes have connected, and ask each for its users' tickets.

    A node that cannot take part is left out, whatever it answered, and the run begins with the others. Raises
    `InputError` if they do not come within the round's timeout, or none has a user.
    """
    deadline = time.monotonic() + config.round_timeout
    while len(nodes := sorted(grid.get_node_ids())) < config.nodes:
        if time.monotonic() > deadline:
            raise InputError(
                f"{len(nodes)} of nodes = {config.nodes} connected in time; start the rest, or ask for fewer"
            )
        time.sleep(poll)
    roster, joined = _joined(Roster.empty(stamp), _census(grid, nodes, stamp, config))
    if not len(roster):
        raise InputError("no node answered with users; see the nodes' logs")
    if len(joined) < config.nodes:
        logger.warning(
            "%s of nodes = %s can take part; going on with these %s users", len(joined), config.nodes, len(roster)
        )
    return roster


def with_new_nodes(grid: Grid, roster: Roster, asked: set[int], config: RunConfig) -> Roster:
    """Return the roster with the nodes that have connected since; each is asked once, and added to `asked`."""
    new = sorted(set(grid.get_node_ids()) - asked)
    asked.update(new)
    if not new:
        return roster
    census = _census(grid, new, roster.stamp, config)
    roster, joined = _joined(roster, census)
    for node in joined:
        logger.info("node %s has joined, with %s users", node, len(census[node]))
    return roster


def _joined(roster: Roster, census: Mapping[int, np.ndarray]) -> tuple[Roster, list[int]]:
    """Return the roster with the nodes of a census, and the nodes that joined.

    If two nodes claim a user, the one that came later is left out. Of two that came together neither can be told for
    the liar, and the one with the lower number stays: if one folder was given to both by mistake, that is right.
    """
    joined: list[int] = []
    for node, tickets in census.items():
        try:
            roster = roster.with_node(node, tickets)
            joined.append(node)
        except InputError as error:
            logger.warning("node %s is left out: %s", node, error)
    return roster, joined


def _census(grid: Grid, nodes: Sequence[int], stamp: Mapping[str, str], config: RunConfig) -> dict[int, np.ndarray]:
    """Request the tickets of nodes; nodes that cannot take part are left out."""
    census: dict[int, np.ndarray] = {}
    for node, reply in send_and_receive(grid, wire.CENSUS, {node: RecordDict() for node in nodes}, "0", config).items():
        try:
            content, room = content_of(reply), wire.max_census_bytes(config.node_users)
            if (received := wire.payload_bytes(content)) > room:
                raise ValueError(f"its census has {received:,} bytes, where {room:,} are enough for {_most(config)}")
            tickets = wire.decode_census(content, stamp)
            if len(tickets) > config.node_users:
                raise ValueError(f"it brings {len(tickets):,} users, beyond {_most(config)}")
            census[node] = tickets
        except ValueError as error:
            logger.warning("node %s is left out: %s", node, one_line(error))
    return census


def _most(config: RunConfig) -> str:
    return f"node_users = {config.node_users}"
