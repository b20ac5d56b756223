"""The loop over a Grid: draw → send → absorb → save. There is no other; every scale and the network use this one."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.server import Roster, State, sample_clients, server_step
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.evaluation.ranking import metric_means
from fedrec.recsys.model.lora import Adapter

SCORE = "ndcg@10"
"""The validation metric that chooses the round to keep."""

REASON = 400
"""Characters that are kept of the reason of a refusal: some of it comes from the node."""

Observer = Callable[[dict[str, Any]], None]
"""Told each round's record as it is logged."""

logger = logging.getLogger("fedrec")


@dataclass
class RoundReport:
    """What came back from one exchange: the sum of the good answers, and an account of the rest."""

    clients_asked: int = 0
    clients_answered: int = 0
    clients_refused: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    refusals: list[str] = field(default_factory=list)  # a node, and why its answer is not in the sum
    absences: list[str] = field(default_factory=list)  # a node, and how long was waited for its answer
    updates: list[Update] = field(default_factory=list)

    @property
    def total(self) -> Update | None:
        return reduce(add, self.updates) if self.updates else None

    @property
    def metrics(self) -> dict[str, float] | None:
        """Of an evaluation: means over the users that were ranked, or None if nobody was."""
        return metric_means(self.total.sums) if self.total and self.total.sums["users"] else None

    def account(self) -> dict[str, Any]:
        names = ("clients_asked", "clients_answered", "clients_refused", "bytes_down", "bytes_up")
        return {name: getattr(self, name) for name in (*names, "refusals", "absences")}


def run(grid: Grid, roster: Roster, state: State, config: RunConfig, folder: Path, observe: Observer) -> State:
    """Go on from `state` to the last round. State and log are saved each round; `observe` sees each record.

    Nodes that come later are asked from the next round on; whoever validates is drawn of those who were there first.
    With the same users from the first round to the last, an interrupted run comes to the same model.
    """
    first, validated = roster, sample_clients(roster, config.validation_users, config.seed, 0, config.node_share)
    if state.roster not in ("", roster.fingerprint):
        logger.warning("the nodes host other users than before; going on with these %s", len(roster))
    asked = set(map(int, roster.nodes))
    while state.round < config.rounds:
        started = time.perf_counter()
        number = state.round + 1
        roster = with_new_nodes(grid, roster, asked, config)
        drawn = sample_clients(roster, config.clients_per_round, config.seed, number, config.node_share)
        order = Order(number, drawn, config.clip, best=state.best_round, run=state.run)
        tally = request_updates(grid, wire.TRAIN, orders_per_node(roster, order), state.adapter, config)
        total = tally.total
        state = replace(server_step(state, total, config), roster=roster.fingerprint)
        if not all(tensor.isfinite().all() for tensor in state.adapter.values()):
            raise InputError(
                f"round {number} moved the adapter beyond what float32 can hold; train again, into another folder, "
                f"with a lower server_rate than {config.server.server_rate:g}"
            )
        trained = time.perf_counter() - started
        metrics = None
        if "validation" not in config.measured:
            state = state.kept() if total else state
        elif number % config.validate_every == 0 or number == config.rounds:
            order = Order(number, validated, split="validation", run=state.run)
            evaluation = request_updates(grid, wire.EVALUATE, orders_per_node(first, order), state.adapter, config)
            metrics = evaluation.metrics
            tally.bytes_down += evaluation.bytes_down
            tally.bytes_up += evaluation.bytes_up
            tally.refusals += evaluation.refusals
            tally.absences += evaluation.absences
            state = state.validated(metrics[SCORE]) if metrics else state
        record = {
            "round": number,
            **learned(total),
            "validation": metrics,
            "users": len(roster),
            **tally.account(),
            "seconds": round(time.perf_counter() - started, 3),
            "clients_per_second": round(tally.clients_answered / trained, 1),
        }
        round_log.append(folder, record)
        state.save(folder)
        observe(record)
    return state


def learned(total: Update | None) -> dict[str, Any]:
    """A record's figures of the sum of a round: means over the clients that have a loss, and a count of the others."""
    if total is None:
        return {"loss": None, "clipped": None, "clients_diverged": 0, "clients_without_examples": 0}
    sums = total.sums
    with_loss = sums["learners"] - sums["diverged"]
    return {
        "loss": sums["loss"] / with_loss if with_loss else None,
        "clipped": sums["clipped"] / with_loss if with_loss else None,
        "clients_diverged": int(sums["diverged"]),
        "clients_without_examples": total.users - int(sums["learners"]),
    }


def take_census(grid: Grid, config: RunConfig, stamp: Mapping[str, str], poll: float = 1.0) -> Roster:
    """Wait until `config.nodes` nodes are there, and ask each for its users' tickets.

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
    """The roster with the nodes that have come since: each is asked for its users once, and noted in `asked`."""
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
    """The roster with the nodes of a census, and which of them joined.

    If two nodes claim a user, the one that came later is left out. Of two that came together neither can be told for
    the liar, and the one with the lower number stays: if one folder was given to both by mistake, that is right.
    """
    joined: list[int] = []
    for node, tickets in census.items():
        try:
            roster = roster.joined(node, tickets)
            joined.append(node)
        except InputError as error:
            logger.warning("node %s is left out: %s", node, error)
    return roster, joined


def _census(grid: Grid, nodes: Sequence[int], stamp: Mapping[str, str], config: RunConfig) -> dict[int, np.ndarray]:
    """The tickets of those nodes that can take part."""
    census: dict[int, np.ndarray] = {}
    for node, reply in send_and_receive(grid, wire.CENSUS, {node: RecordDict() for node in nodes}, "0", config).items():
        try:
            content, room = _content(reply), wire.max_census_bytes(config.node_users)
            if (received := wire.payload_bytes(content)) > room:
                raise ValueError(f"its census has {received:,} bytes, where {room:,} are enough for {_most(config)}")
            tickets = wire.decode_census(content, stamp)
            if len(tickets) > config.node_users:
                raise ValueError(f"it brings {len(tickets):,} users, beyond {_most(config)}")
            census[node] = tickets
        except ValueError as error:
            logger.warning("node %s is left out: %s", node, _reason(error))
    return census


def _most(config: RunConfig) -> str:
    return f"node_users = {config.node_users}"


def orders_per_node(roster: Roster, order: Order) -> dict[int, Order]:
    """An order to places of the roster, as one for each node that hosts some of them."""
    return {node: replace(order, users=users) for node, users in roster.per_node(order.users).items()}


def request_updates(
    grid: Grid, kind: str, orders: Mapping[int, Order], adapter: Adapter, config: RunConfig
) -> RoundReport:
    """Send each node its order and take in what comes back in time. A bad answer is refused and counted."""
    tally = RoundReport(clients_asked=sum(len(order.users) for order in orders.values()))
    contents = {node: wire.encode_order(order, adapter) for node, order in orders.items()}
    tally.bytes_down = sum(wire.payload_bytes(content) for content in contents.values())
    number = next((str(order.round) for order in orders.values()), "")
    template = adapter if kind == wire.TRAIN else {}
    room = wire.max_answer_bytes(template)
    replies = send_and_receive(grid, kind, contents, number, config)
    for node in sorted(contents.keys() - replies.keys()):
        tally.absences.append(f"node {node}: no answer within {config.round_timeout:g} s")
        logger.warning("round %s: %s", number, tally.absences[-1])
    for node, reply in replies.items():
        order = orders[node]
        try:
            content = _content(reply)
            tally.bytes_up += (received := wire.payload_bytes(content))
            if received > room:
                raise ValueError(f"answered with {received:,} bytes, where {room:,} are enough")
            tally.updates.append(
                validate_update(wire.decode_update(content, template, config.bits), order, template, config)
            )
            tally.clients_answered += len(order.users)
        except ValueError as error:
            tally.clients_refused += len(order.users)
            tally.refusals.append(f"node {node}: {_reason(error)}")
            logger.warning("round %s: refused node %s: %s", order.round, node, _reason(error))
    return tally


def send_and_receive(
    grid: Grid, kind: str, contents: Mapping[int, RecordDict], number: str, config: RunConfig
) -> dict[int, Message]:
    """One message to each node; the first reply of each that was asked, in the order of the nodes."""
    messages = [Message(content, node, kind, group_id=number) for node, content in contents.items()]
    answers = list(grid.send_and_receive(messages, timeout=config.round_timeout))
    # by what they answer: where a node is lost, the SuperLink answers in its place, and under its own number
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    replies: dict[int, Message] = {}
    for reply in answers:
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is not None and (reply.has_error() or reply.metadata.src_node_id == node):
            replies.setdefault(node, reply)
        else:
            logger.warning(
                "round %s: refused an answer from node %s, which was not asked", number, reply.metadata.src_node_id
            )
    return dict(sorted(replies.items()))


def _reason(error: ValueError) -> str:
    """A line of a refusal, which may hold text of the node's, however long and on however many lines that is."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text if len(text) <= REASON else f"{text[:REASON]}…"


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise ValueError(f"failed with {reply.error.reason or reply.error.code}")
    return reply.content
