"""What a node refuses to do: orders are validated whole, in every field, before its users are touched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import Tensor

from fedrec.federation import client_app, wire
from fedrec.federation.config import to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.toy_world import small_config

Change = Callable[[RecordDict], None]


@dataclass(frozen=True)
class Asked:
    """A node of twelve users in a run of four rounds, and what it can be asked."""

    node: Node
    adapter: dict[str, Tensor]

    def answer(self, training: bool, change: Change) -> object:
        """To an order for two users, as it arrives after a change on its way."""
        order = Order(2, np.array([7, 0]), *((1.0, "train") if training else (0.0, "validation")), best=1, run="0a9f")
        content = wire.encode_order(order, self.adapter)
        change(content)
        order, adapter = wire.decode_order(content)
        return self.node.train(order, adapter) if training else self.node.evaluate(order, adapter)


@pytest.fixture(scope="module")
def asked(toy: Path, model: TwoTowerModel, embeddings: Tensor) -> Asked:
    return Asked(Node.open(toy, small_config()), model.adapter())


def field(**changes: Any) -> Change:
    """Other values in fields of the order; None for a field that is not there."""

    def change(content: RecordDict) -> None:
        found = dict(content.config_records["order"]) | changes
        content["order"] = ConfigRecord({name: value for name, value in found.items() if value is not None})

    return change


def tensor(name: str, changed: Callable[[np.ndarray], np.ndarray] | None) -> Change:
    """Another array in the adapter, or none."""

    def change(content: RecordDict) -> None:
        found = {key: array.numpy() for key, array in content.array_records["adapter"].items()}
        array = found.pop(name, np.zeros(1, dtype=np.float32))
        found |= {name: changed(array)} if changed else {}
        content["adapter"] = ArrayRecord({key: Array(array) for key, array in found.items()})

    return change


def filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.full_like(array, value)


def garbage(content: RecordDict) -> None:
    content.array_records["adapter"]["item.up"] = Array("float32", (384, 4), "numpy.ndarray", b"no array at all")


def without(record: str) -> Change:
    def change(content: RecordDict) -> None:
        del content[record]

    return change


def one_more(content: RecordDict) -> None:
    content["more"] = ConfigRecord({"x": 1})


EITHER: dict[str, tuple[Change, str]] = {
    "round 0": (field(round=0, best=0), "round = 0 is not 1 to 4"),
    "a negative round": (field(round=-3), "round = -3 is not 1 to 4"),
    "a round beyond the run's": (field(round=5), "round = 5 is not 1 to 4"),
    "a truth as round": (field(round=True), "round is bool, not int"),
    "half a round": (field(round=1.5), "round is float, not int"),
    "a round as text": (field(round="1"), "round is str, not int"),
    "rounds": (field(round=[1]), "round is list, not int"),
    "a best round to come": (field(best=2), "best = 2 is not a round before 2"),
    "a negative best round": (field(best=-1), "best = -1 is not a round before 2"),
    "nobody": (field(users=[]), "users is not a list of at least one"),
    "one as a number": (field(users=7), "users is not a list of whole numbers"),
    "users as text": (field(users=["7"]), "users is not a list of whole numbers"),
    "half a user": (field(users=[7.5]), "users is not a list of whole numbers"),
    "users as truths": (field(users=[True, False]), "users is not a list of whole numbers"),
    "a user from the end": (field(users=[7, 7 - 12]), "users names one beyond 0 to 11"),
    "a user too many": (field(users=[0, 12]), "users names one beyond 0 to 11"),
    "a user far beyond": (field(users=[2**62]), "users names one beyond 0 to 11"),
    "a user twice": (field(users=[3, 0, 3]), "users names one twice"),
    "a clip as text": (field(clip="1"), "clip is str, not float"),
    "a whole clip": (field(clip=1), "clip is int, not float"),
    "another protocol": (field(protocol="sampled-1"), "protocol = 'sampled-1' is not among"),
    "another split": (field(split="everything"), "split = 'everything' is not among"),
    "a run that is no id": (field(run="../keep"), "run = '../keep' is not up to 32 hexadecimal digits"),
    "a long run": (field(run="a" * 33), "is not up to 32 hexadecimal digits"),
    "no split": (field(split=None), "field 'split' is missing"),
    "no users": (field(users=None), "field 'users' is missing"),
    "one field more": (field(mood=0.0), "field 'mood' is missing, or is none of an order's"),
    "noise that the run has not": (field(noise=1.0), "noise = 1, and such an order has none"),
    "no order": (without("order"), "not the two records"),
    "no adapter": (without("adapter"), "not the two records"),
    "one record more": (one_more, "not the two records"),
    "garbage": (garbage, "adapter cannot be decoded (ValueError)"),
    "an adapter of another shape": (tensor("item.down", lambda a: np.zeros((9, 384), a.dtype)), "shape (9, 384) where"),
    "a tensor less": (tensor("item.down", None), "adapter has other tensors: ['item.down']"),
    "a tensor more": (tensor("item.more", lambda array: array), "adapter has other tensors: ['item.more']"),
    "other numbers": (tensor("item.down", lambda array: array.astype("float64")), "torch.float64 where torch.float32"),
    "not a number": (tensor("item.up", filled(np.nan)), "adapter item.up holds values that are not finite"),
    "infinite": (tensor("item.up", filled(np.inf)), "adapter item.up holds values that are not finite"),
}
TO_TRAIN: dict[str, tuple[Change, str]] = {
    "a negative clip": (field(clip=-1e6), "clip = -1e+06 is not above 0 and at most 1"),
    "no clip": (field(clip=0.0), "clip = 0 is not above 0 and at most 1"),
    "a larger clip": (field(clip=1.5), "clip = 1.5 is not above 0 and at most 1, as this run promised"),
    "an infinite clip": (field(clip=float("inf")), "clip = inf is not"),
    "a clip that is no number": (field(clip=float("nan")), "clip = nan is not"),
    "a held-out split": (field(split="test"), "split = 'test' is not among ('train',)"),
    "a ranking's protocol": (field(protocol="sampled-99"), "protocol = 'sampled-99' is not among ('full',)"),
}
TO_EVALUATE: dict[str, tuple[Change, str]] = {
    "a clip": (field(clip=1.0), "clip = 1, and such an order has none"),
    "the split that is trained on": (field(split="train"), "split = 'train' is not among ('test', 'validation')"),
}


@pytest.mark.parametrize("fault", EITHER | TO_TRAIN)
def test_an_order_to_train_is_refused_with_the_field_and_its_limit(asked: Asked, fault: str) -> None:
    change, said = (EITHER | TO_TRAIN)[fault]
    with pytest.raises(OrderRefused) as refused:
        asked.answer(True, change)
    assert str(refused.value).startswith("an order is refused: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("fault", EITHER | TO_EVALUATE)
def test_an_order_to_evaluate_is_refused_with_the_field_and_its_limit(asked: Asked, fault: str) -> None:
    change, said = (EITHER | TO_EVALUATE)[fault]
    with pytest.raises(OrderRefused) as refused:
        asked.answer(False, change)
    assert said in str(refused.value)


@pytest.mark.parametrize("training", [True, False])
def test_an_order_within_the_terms_is_followed(asked: Asked, training: bool) -> None:
    for change in (field(), field(run=None), field(best=0), field(users=list(range(12)))):
        asked.answer(training, change)
    if training:
        asked.answer(True, field(clip=0.25))


def test_a_split_that_the_run_trains_on_is_not_ranked(toy: Path, asked: Asked) -> None:
    node = Asked(Node.open(toy, small_config(held_out=1)), asked.adapter)
    with pytest.raises(OrderRefused, match=r"split = 'validation' is not among \('test',\), with held_out = 1"):
        node.answer(False, field())
    node.answer(False, field(split="test"))


def test_the_server_is_told_why_its_order_is_refused(toy: Path, asked: Asked) -> None:
    """A refusal names what the server sent and what the run promised, so it goes out as it is."""
    config = small_config()
    LocalGrid(client_app.app, [], {})  # Flower's messages are of a run, which a grid sets
    content = wire.encode_order(Order(1, np.array([0]), clip=2.0), asked.adapter)
    context = Context(1, 1, {"data": str(toy), "persistent": False, "simulated": True}, RecordDict(), to_flat(config))
    with pytest.raises(OrderRefused, match="clip = 2 is not above 0 and at most 1, as this run promised"):
        client_app.app(Message(content, 1, wire.TRAIN), context)


def test_a_refused_order_leaves_what_is_kept_alone(toy: Path) -> None:
    node = Node.open(toy, small_config(method="fedmf"))
    adapter = node.setup.method.adapter()
    node.train(Order(1, np.array([0]), clip=1.0, run="ab"), adapter)
    for wrong in ({"run": "cd", "users": np.array([-1])}, {"run": "cd", "clip": -1.0}):
        with pytest.raises(OrderRefused):
            node.train(Order(**{"round": 2, "users": np.array([0]), "clip": 1.0} | wrong), adapter)
    assert node.states.at("ab", 1).keys() == {0}
    with pytest.raises(OrderRefused, match="not finite"):
        node.train(Order(2, np.array([0]), clip=1.0), {"items": torch.full_like(adapter["items"], torch.nan)})
