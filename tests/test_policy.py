"""The policy of a node: what is beyond it is refused before data are touched, whatever the server asks.

Each attack has a control: a node without a policy, on which it succeeds.
"""

import itertools
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation import client_app, wire
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import FIELDS, NodePolicy, load_policy
from fedrec.federation.policy.order_book import OrderBook
from fedrec.federation.setup import TrainingSetup
from tests.support.cli import Fedrec, is_refused
from tests.support.real_node import FOR_TOYS, Ask, RealNode
from tests.support.toy_world import small_config

TRAIN, STATISTICS = Ask(wire.TRAIN, range(8)), Ask(wire.STATISTICS, range(8))
KEYS = Ask(wire.SECURE, range(8))
VALIDATE, TEST = Ask(wire.EVALUATE, range(8)), Ask(wire.EVALUATE, range(8), {"split": "test"})
DAY = date(2026, 3, 1)


@dataclass(frozen=True)
class Fault:
    """What a server asks beyond one field of a policy: the last question is the one that is refused."""

    policy: str  # of one line
    asks: list[Ask]
    settings: dict[str, Any]
    reason: str


CLOSED = {"method": "closed-form", "feature_width": 8}
SECURE = {"secure": True, "secure_clients": 4, "nodes": 3}
FAULTS = {
    "smallest_cohort": Fault("smallest_cohort = 9", [TRAIN], {}, "users are 8, and smallest_cohort = 9"),
    "smallest_open_statistics": Fault(
        "smallest_open_statistics = 9",
        [STATISTICS],
        CLOSED,
        "statistics of 8 users without secure aggregation, and smallest_open_statistics = 9",
    ),
    "questions": Fault('questions = ["train", "test"]', [TRAIN, TEST, VALIDATE], {}, "it asks for validation"),
    "orders_per_user_and_day": Fault(
        "orders_per_user_and_day = 2",
        [TRAIN, VALIDATE, TRAIN],
        {},
        "in 2 of the day's, and orders_per_user_and_day = 2",
    ),
    "rankings_per_user_and_day": Fault(
        "rankings_per_user_and_day = 1", [TRAIN, TEST, VALIDATE], {}, "and rankings_per_user_and_day = 1"
    ),
    "memory_days": Fault(
        "memory_days = 2",
        [VALIDATE, Ask(wire.EVALUATE, range(9))],
        {},
        "users are 1 more than the users who were asked",
    ),
    "methods": Fault('methods = ["closed-form"]', [TRAIN], {}, "method = 'fedrec', and methods = ['closed-form']"),
    "statistic_features": Fault(
        'statistic_features = ["text"]',
        [replace(STATISTICS, changes={"round": 1})],
        CLOSED | {"features": "ids"},
        "features = 'ids', and statistic_features = ['text']",
    ),
    "held_out": Fault("held_out = [2]", [TRAIN], {"held_out": 1}, "held_out = '1', and held_out = [2]"),
    "encoders": Fault('encoders = ["other/encoder"]', [TRAIN], {}, "and encoders = ['other/encoder']"),
    "largest_clip": Fault("largest_clip = 0.5", [TRAIN], {}, "clip = 1.0, and largest_clip = 0.5"),
    "most_local_steps": Fault("most_local_steps = 1", [TRAIN], {"local_steps": 2}, "local_steps = 2, and most"),
    "fewest_negatives": Fault(
        "fewest_negatives = 16", [TRAIN], {"negatives": 1}, "negatives = 1, and fewest_negatives = 16, with 24 items"
    ),
    "largest_item_rank": Fault("largest_item_rank = 3", [TRAIN], {}, "item_rank = 4, and largest_item_rank = 3"),
    "largest_user_rank": Fault("largest_user_rank = 3", [TRAIN], {}, "user_rank = 4, and largest_user_rank = 3"),
    "largest_lora_rank": Fault("largest_lora_rank = 1", [TRAIN], {}, "lora_rank = 2, and largest_lora_rank = 1"),
    "largest_epsilon": Fault("largest_epsilon = 8", [TRAIN], {}, "no epsilon is claimed, and largest_epsilon = 8"),
    "smallest_noise": Fault("smallest_noise = 1.0", [TRAIN], {}, "its nodes add no noise, and smallest_noise = 1"),
    "require_secure": Fault("require_secure = true", [TRAIN], {}, "secure = False, and require_secure = True"),
    "smallest_secure_threshold": Fault(
        "smallest_secure_threshold = 0.9",
        [KEYS],
        SECURE | {"secure_threshold": 0.8},
        "secure_threshold = 0.8, and smallest_secure_threshold = 0.9",
    ),
    "fewest_secure_clients": Fault(
        "fewest_secure_clients = 5", [KEYS], SECURE, "secure_clients = 4, and fewest_secure_clients = 5"
    ),
    "largest_leverage": Fault("largest_leverage = 0.1", [TRAIN], {}, "item.down singles out an item, by"),
    "largest_row_norm": Fault("largest_row_norm = 0.1", [TRAIN], {}, "and largest_row_norm = 0.1"),
}
"""A fault for each field of a policy."""


def with_field(field: str, line: str) -> str:
    """The policy for toys, with another line for one field."""
    return "\n".join([*(one for one in FOR_TOYS.splitlines() if not one.startswith(field)), line])


def test_every_field_has_a_fault() -> None:
    assert set(FAULTS) == set(FIELDS)


@pytest.mark.parametrize("field", FAULTS)
def test_what_is_beyond_a_field_is_refused_and_is_obeyed_without_a_policy(
    toy: Path, tmp_path: Path, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault, config = FAULTS[field], small_config(**FAULTS[field].settings)
    node = RealNode.of(toy, tmp_path / "node", with_field(field, fault.policy))
    *before, refusal = node.obeys(fault.asks, config)
    assert before == [""] * len(before)
    assert refusal.startswith("this node's policy refuses the ")
    assert fault.reason in refusal
    assert field in refusal
    assert refusal in caplog.messages, "the owner of the node is told, too"
    assert replace(node, simulated=True).obeys(fault.asks, config) == [""] * len(fault.asks)


def test_a_plain_run_is_obeyed(toy: Path, tmp_path: Path) -> None:
    node = RealNode.of(toy, tmp_path / "node")
    assert node.obeys([TRAIN, VALIDATE, TRAIN, VALIDATE, TEST], small_config()) == [""] * 5
    assert node.obeys([STATISTICS], small_config(**CLOSED)) == [""]


def test_a_run_with_secure_aggregation_is_obeyed_under_a_policy_that_requires_it(toy: Path, tmp_path: Path) -> None:
    node = RealNode.of(toy, tmp_path / "node", with_field("require_secure", "require_secure = true"))
    assert node.obeys([KEYS], small_config(**SECURE)) == [""]
    (refusal,) = node.obeys([TRAIN], small_config(**SECURE))
    assert "this node answers with masked sums alone" in refusal


def test_a_small_node_takes_no_part_in_open_statistics(toy: Path, tmp_path: Path) -> None:
    """It says so at the run's first message: a hybrid would ask for them after hundreds of rounds."""
    node = RealNode.of(toy, tmp_path / "node", with_field("smallest_open_statistics", "smallest_open_statistics = 13"))
    for config in (small_config(**CLOSED), small_config(method="hybrid", feature_width=8)):
        (refusal,) = node.obeys([TRAIN], config)
        assert "refuses the run: statistics of 12 users without secure aggregation" in refusal
    assert node.obeys([TRAIN], small_config()) == [""], "no sums, no refusal"
    assert node.obeys([KEYS], small_config(**CLOSED, **SECURE)) == [""], "masked sums"


def test_an_owner_can_allow_counts_of_pairs(toy: Path, tmp_path: Path) -> None:
    """They are not among the defaults: without noise, each count names two items of a user."""
    config = small_config(method="closed-form", features="pairs", pair_neighbours=4)
    (refusal,) = RealNode.of(toy, tmp_path / "a").obeys([STATISTICS], config)
    assert "features = 'pairs', and statistic_features = ['text']" in refusal
    allowed = with_field("statistic_features", 'statistic_features = ["text", "pairs"]')
    assert RealNode.of(toy, tmp_path / "b", allowed).obeys([STATISTICS], config) == [""]


def test_a_node_without_a_file_has_the_defaults(toy: Path, tmp_path: Path) -> None:
    """All twelve users of the toy world are too few, and one user is."""
    node = RealNode.of(toy, tmp_path / "node", None)
    config = small_config(negatives=24, item_rank=1)
    for users in (range(12), range(1)):
        (refusal,) = node.obeys([Ask(wire.TRAIN, users)], config)
        assert refusal.endswith(f"users are {len(users)}, and smallest_cohort = 16")


def test_a_run_is_refused_before_the_histories_are_opened(toy: Path, tmp_path: Path) -> None:
    node = RealNode.of(toy, tmp_path / "node", "largest_clip = 0.5")
    (node.folder / "shard" / "items.npy").write_bytes(b"nothing that can be opened")
    (refusal,) = node.obeys([TRAIN], small_config(), {"item.up": torch.zeros(1)})
    assert "clip = 1.0, and largest_clip = 0.5" in refusal
    with pytest.raises(InputError, match="prepare the data again"):
        replace(node, simulated=True).answer(TRAIN, small_config(), {"item.up": torch.zeros(1)})


def test_other_nodes_of_a_secure_sum_count(toy: Path, tmp_path: Path) -> None:
    """Each has a user at least: a node of one user answers within a secure sum of sixteen nodes."""
    guard = NodeGuard(NodePolicy(), OrderBook(tmp_path / "keep" / "orders.db"))
    one, tickets = Order(1, np.array([0]), clip=1.0), Shard.load(toy).tickets()
    guard.admit("train", one, tickets, nodes=16)
    guard.admit("validation", one, tickets, nodes=16)
    with pytest.raises(OrderRefused, match="users are 1 in a sum of 15 nodes, and smallest_cohort = 16"):
        guard.admit("train", one, tickets, nodes=15)


def test_groups_of_secure_sums_do_not_part_those_that_the_server_sees(toy: Path, tmp_path: Path) -> None:
    """Else single users, each answered for within a secure sum, would be groups to compose any two sums of."""
    guard = NodeGuard(NodePolicy(smallest_cohort=4), OrderBook(tmp_path / "keep" / "orders.db"))
    tickets = Shard.load(toy).tickets()
    for user in range(12):
        guard.admit("test", Order(1, np.array([user]), split="test"), tickets, nodes=4)
    guard.admit("test", Order(1, np.arange(4), split="test"), tickets, nodes=1)
    with pytest.raises(OrderRefused, match="users are 1 more than the users who were asked for test together"):
        guard.admit("test", Order(1, np.arange(5), split="test"), tickets, nodes=1)


# ---- the faults of an evaluation


def test_a_held_out_item_is_found_by_evaluations_of_one_user_and_not_under_a_policy(toy: Path, tmp_path: Path) -> None:
    """The attacker knows the other events, and tries each item in the place of the one that is held out."""
    config, user = small_config(), 4
    setup = TrainingSetup(Dataset.open(toy), config)
    shard, truth = setup.dataset.shard, int(setup.dataset.shard.held_out([user], "validation")[0])
    generator, start = torch.Generator().manual_seed(0), setup.method.adapter()
    crafted = [{n: t + 0.3 * torch.randn(t.shape, generator=generator) for n, t in start.items()} for _ in range(12)]
    ask = Ask(wire.EVALUATE, range(user, user + 1))

    def answers_if(item: int, adapter: dict[str, torch.Tensor]) -> dict[str, float]:
        items = shard.items.copy()
        items[shard.ends[user] - 2] = item
        return Node(Shard(shard.starts, shard.ends, items, shard.salts), setup).evaluate(ask.order(), adapter).sums

    def attack(node: RealNode) -> set[int]:
        left = set(range(24)) - set(shard.history(user, "validation").tolist())
        for adapter in crafted:
            told = node.answer(ask, config, adapter).sums
            left = {item for item in left if answers_if(item, adapter) == told}
        return left

    node = RealNode.of(toy, tmp_path / "node")
    assert attack(replace(node, simulated=True)) == {truth}
    assert all("smallest_cohort = 4" in refusal for refusal in node.obeys([ask] * 12, config, crafted[0]))


def test_two_evaluations_that_differ_in_a_user_tell_nothing_of_the_user(toy: Path, tmp_path: Path) -> None:
    config, many, more = small_config(), Ask(wire.EVALUATE, range(8)), Ask(wire.EVALUATE, range(9))
    node, adapter = RealNode.of(toy, tmp_path / "node"), TrainingSetup(Dataset.open(toy), config).method.adapter()
    freely = replace(node, simulated=True)
    alone, with_them, without = (
        freely.answer(ask, config, adapter).sums for ask in (Ask(wire.EVALUATE, range(8, 9)), more, many)
    )
    assert all(with_them[name] - without[name] == pytest.approx(alone[name]) for name in alone), "the attack works"
    nearly = {name: tensor + 1e-6 for name, tensor in adapter.items()}
    assert node.obeys([many], config, adapter) == [""]
    for near in (range(9), range(7), range(1, 9), range(4)):
        for used in (adapter, nearly):
            (refusal,) = node.obeys([Ask(wire.EVALUATE, near)], config, used)
            assert "would tell about few by the difference" in refusal
    assert node.obeys([Ask(wire.EVALUATE, range(12)), Ask(wire.EVALUATE, range(8, 12)), many], config) == [""] * 3


def test_orders_to_train_that_differ_in_a_user_are_not_stopped(toy: Path, tmp_path: Path) -> None:
    """A policy does not protect here, since cohorts are sampled anew each round: noise does."""
    config, node = small_config(), RealNode.of(toy, tmp_path / "node")
    adapter = TrainingSetup(Dataset.open(toy), config).method.adapter()
    without, with_them = (node.answer(Ask(wire.TRAIN, range(n)), config, adapter).deltas for n in (8, 9))
    alone = replace(node, simulated=True).answer(Ask(wire.TRAIN, range(8, 9)), config, adapter).deltas
    assert all(torch.equal(with_them[name] - without[name], alone[name]) for name in alone)


def test_statistics_of_one_user_over_ids_name_the_items_and_are_refused(toy: Path, tmp_path: Path) -> None:
    config, user = small_config(method="closed-form", features="ids"), 4
    node, ask = RealNode.of(toy, tmp_path / "node"), Ask(wire.STATISTICS, range(user, user + 1))
    told = replace(node, simulated=True).answer(ask, config, {}).deltas["cross"]
    assert set(told.nonzero().flatten().tolist()) == set(Shard.load(toy).history(user, "train").tolist())
    assert "features = 'ids'" in node.obeys([ask], config)[0]


# ---- the book of orders


@pytest.fixture
def book(tmp_path: Path) -> OrderBook:
    return OrderBook(tmp_path / "keep" / "orders.db")


def tickets(*users: int) -> np.ndarray:
    return np.array([2**64 - 1 - int(user) for user in users], dtype=np.uint64)


def test_orders_are_counted_by_user_and_day(book: OrderBook) -> None:
    policy = NodePolicy(orders_per_user_and_day=2)
    for users in ((1, 2), (2, 3)):
        book.enter(policy, "train", tickets(*users), 1, DAY)
    with pytest.raises(OrderRefused, match="orders_per_user_and_day = 2"):
        book.enter(policy, "train", tickets(1, 2), 1, DAY)
    book.enter(policy, "train", tickets(1, 3), 1, DAY)  # a refused order did not count
    book.enter(policy, "train", tickets(1, 2), 1, DAY + timedelta(1))


def test_groups_are_forgotten_after_their_days(book: OrderBook) -> None:
    policy = NodePolicy(memory_days=3)
    book.enter(policy, "test", tickets(1, 2, 3, 4), 2, DAY)
    book.enter(policy, "test", tickets(1, 2, 3, 4), 2, DAY + timedelta(1))
    book.enter(policy, "validation", tickets(1, 2), 2, DAY)  # another question
    for later in (1, 3):
        with pytest.raises(OrderRefused, match="some, but not all"):
            book.enter(policy, "test", tickets(1, 2), 2, DAY + timedelta(later))
    book.enter(policy, "test", tickets(1, 2), 2, DAY + timedelta(4))


def test_whatever_is_added_and_subtracted_is_about_a_cohort_at_least(book: OrderBook) -> None:
    """By linear algebra: no combination of the answered sums is about fewer than `smallest` of twelve users."""
    policy = NodePolicy(rankings_per_user_and_day=10**6, orders_per_user_and_day=10**6)
    generator, answered = np.random.default_rng(0), []
    for number in range(400):
        size = 4 if number < 2 else generator.integers(1, 13)
        asked = generator.permutation(12)[:size]
        if number % 2:  # nearly what was answered before
            asked = np.union1d(asked[:2], np.flatnonzero(answered[generator.integers(len(answered))]))
        try:
            book.enter(policy, "test", tickets(*asked), 3, DAY)
        except OrderRefused:
            continue
        answered.append(np.isin(np.arange(12), asked).astype(float))
    span = np.array(answered)
    rank = np.linalg.matrix_rank(span)
    assert rank > 1
    for size in (1, 2):
        for few in itertools.combinations(range(12), size):
            for signs in itertools.product((1.0, -1.0), repeat=size):
                about = np.zeros(12)
                about[list(few)] = signs
                assert np.linalg.matrix_rank(np.vstack([span, about])) == rank + 1


KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
import numpy as np
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.order_book import OrderBook
book = OrderBook(Path(sys.argv[1]))
for _ in range(3):
    book.enter(NodePolicy(), "train", np.array([7], dtype=np.uint64), 1, date(2026, 3, 1))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_forgets_no_order(book: OrderBook) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(book.file)], check=False)
    assert done.returncode == -signal.SIGKILL
    seven = np.array([7], dtype=np.uint64)
    with pytest.raises(OrderRefused, match="in 3 of the day's, and orders_per_user_and_day = 3"):
        book.enter(NodePolicy(orders_per_user_and_day=3), "train", seven, 1, DAY)
    book.enter(NodePolicy(orders_per_user_and_day=4), "train", seven, 1, DAY)
    assert book.file.stat().st_mode & 0o777 == 0o600


def test_nodes_that_share_a_folder_share_the_count(book: OrderBook) -> None:
    def enter(_: int) -> bool:
        try:
            book.enter(NodePolicy(orders_per_user_and_day=5), "train", tickets(1), 1, DAY)
        except OrderRefused:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(enter, range(12))) == 5


def test_a_book_that_cannot_be_read_answers_nothing(book: OrderBook) -> None:
    book.file.parent.mkdir()
    book.file.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"orders\.db cannot be used .* this node answers no order"):
        book.enter(NodePolicy(), "train", tickets(1), 1, DAY)


# ---- the file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smallest_cohorts = 3", "'smallest_cohorts' is no field of a policy; the fields are smallest_cohort, "),
        ("smallest_cohort = 0", "smallest_cohort = 0: input should be greater than or equal to 1"),
        ("smallest_cohort = true", "smallest_cohort = True: input should be a valid integer"),
        ('smallest_cohort = "3"', "smallest_cohort = '3': input should be a valid integer"),
        ("largest_clip = nan", "largest_clip = nan: input should be greater than 0"),
        ('questions = ["trian"]', "questions = ['trian']: input should be 'train', "),
        ("held_out = 2", "held_out = 2: input should be a valid array"),
        ("held_out", "node.toml is not TOML"),
    ],
)
def test_a_malformed_file_is_refused_with_field_and_remedy(toy: Path, tmp_path: Path, text: str, said: str) -> None:
    node = RealNode.of(toy, tmp_path / "node", text)
    with pytest.raises(InputError) as refused:
        load_policy(node.folder)
    assert said in str(refused.value)
    assert "node.toml" in str(refused.value)
    with pytest.raises(InputError, match=r"node\.toml"):
        node.answer(TRAIN, small_config(), {})


def test_the_command_shows_what_holds_and_where_it_is_from(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    node = RealNode.of(toy, tmp_path / "node", "smallest_cohort = 5\nlargest_leverage = inf\n")
    found = fedrec("node", "policy", node.folder, "--json").answer
    assert set(found) == set(FIELDS)
    assert found["smallest_cohort"] == {"value": 5, "from": str(node.folder / "node.toml")}
    assert found["largest_leverage"]["value"] == "inf"
    assert found["held_out"] == {"value": [2], "from": "default"}
    assert "smallest_cohort" in fedrec("node", "policy", node.folder).out
    (tmp_path / "strict.toml").write_text("smallest_cohort = 99")
    other = fedrec("node", "policy", node.folder, "--policy", "strict.toml", "--json").answer
    assert other["smallest_cohort"] == {"value": 99, "from": "strict.toml"}
    is_refused(fedrec("node", "policy", node.folder, "--policy", "absent.toml"), "--policy absent.toml does not exist")


def test_the_written_file_changes_nothing_and_is_not_overwritten(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    node = RealNode.of(toy, tmp_path / "node", None)
    assert fedrec("node", "policy", node.folder, "--write").code == 0
    file = node.folder / "node.toml"
    assert load_policy(node.folder).policy == NodePolicy()
    assert not load_policy(node.folder).stated
    is_refused(fedrec("node", "policy", node.folder, "--write"), "node.toml is there already")
    lines = file.read_text().splitlines()
    stated = [line.removeprefix("# ") for line in lines if line.startswith(tuple(f"# {name} = " for name in FIELDS))]
    file.write_text("\n".join(stated))
    assert load_policy(node.folder).stated == set(FIELDS)
    assert load_policy(node.folder).policy == NodePolicy()


def test_a_folder_that_is_prepared_again_keeps_policy_and_book(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    from tests.support.toy_world import toy_interactions

    toy_interactions().write_csv(tmp_path / "events.csv")
    fedrec("node", "split", toy, "--nodes", 1, "--out", "split")
    asked = ["--catalogue", "split/server", "--interactions", "events.csv", "--out", "node"]
    assert fedrec("node", "prepare", *asked).code == 0
    (tmp_path / "node" / "node.toml").write_text(f"{FOR_TOYS}orders_per_user_and_day = 1\n")
    client_app.close_nodes()
    node = RealNode(tmp_path / "node")
    assert node.obeys([TRAIN], small_config()) == [""]
    assert fedrec("node", "prepare", *asked).code == 0
    client_app.close_nodes()
    assert "orders_per_user_and_day = 1" in node.obeys([TRAIN], small_config())[0]


def test_the_process_that_starts_a_node_imports_no_torch() -> None:
    """It lives as long as the node, and reads the policy only to refuse a malformed one at once."""
    code = "import sys, fedrec.federation.policy.node_policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_node_is_started_with_the_file_that_is_named(toy: Path, tmp_path: Path) -> None:
    """As `fedrec node run --policy` tells the ClientApp."""
    node = RealNode.of(toy, tmp_path / "node")
    (tmp_path / "strict.toml").write_text("smallest_cohort = 12\nfewest_negatives = 16\n")
    place = client_app.NodePlace.of({"data": str(node.folder), "policy": str(tmp_path / "strict.toml")})
    opened = client_app.open_node(place, small_config())
    assert opened.guard
    assert opened.guard.policy.smallest_cohort == 12


def test_the_json_of_the_defaults_is_json(toy: Path, fedrec: Fedrec) -> None:
    assert json.loads(fedrec("node", "policy", toy, "--json").out)["smallest_cohort"]["value"] == 16
