"""The loop over the grid, where nodes fail: bad answers are refused and counted, and the round goes on."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.federation import client_app, round_log, wire
from fedrec.federation import setup as training_setup
from fedrec.federation.census import take_census
from fedrec.federation.client_app import NodeFailure, guarded
from fedrec.federation.config import to_flat
from fedrec.federation.exchange import RoundReport
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Update
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.sampling import sample_clients
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.evaluation.ranking import metric_sums
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.toy_world import COOKING, small_config, toy_interactions, toy_items, toy_stamp
from tests.support.unreliable_grid import Tamper, trained, unreliable


def changed(reply: Message, change: Callable[[Update], Update]) -> Message:
    reply.content = wire.encode_update(change(wire.decode_update(reply.content)))
    return reply


def filled(value: float) -> Tamper:
    return lambda reply: changed(
        reply, lambda u: replace(u, deltas={n: torch.full_like(t, value) for n, t in u.deltas.items()})
    )


def without(record: str) -> Tamper:
    def tamper(reply: Message) -> Message:
        del reply.content[record]
        return reply

    return tamper


def garbage(content: bytes) -> Tamper:
    def tamper(reply: Message) -> Message:
        reply.content.array_records["deltas"]["item.up"] = Array("float32", (384, 4), "numpy.ndarray", content)
        return reply

    return tamper


def count_of(**changes: float | list[int]) -> Tamper:
    def tamper(reply: Message) -> Message:
        reply.content["count"] = MetricRecord(dict(reply.content.metric_records["count"]) | changes)
        return reply

    return tamper


def numbers(kind: str) -> Tamper:
    def tamper(reply: Message) -> Message:
        record = reply.content.array_records["deltas"]
        reply.content["deltas"] = ArrayRecord({n: Array(array.numpy().astype(kind)) for n, array in record.items()})
        return reply

    return tamper


def error(reply: Message, reason: str) -> Message:
    request = Message(RecordDict(), 2, wire.TRAIN)
    request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return Message(Error(code=3, reason=reason), reply_to=request)


def failing(reply: Message) -> Message:
    return error(reply, "out of memory")


def lost(reply: Message) -> Message:
    """As the SuperLink answers in the place of a node that is gone, and under its own number."""
    answer = error(reply, "node unavailable")
    answer.metadata.__dict__["_src_node_id"] = 1
    return answer


def huge(reply: Message) -> Message:
    reply.content["more"] = ArrayRecord({"much": Array(np.zeros(30_000))})
    return reply


REFUSED: dict[str, tuple[Tamper, str]] = {
    "nan": (filled(float("nan")), "not finite"),
    "infinite": (filled(float("inf")), "not finite"),
    "too long": (filled(100.0), "a sum of length"),
    "wrong shape": (
        lambda reply: changed(reply, lambda u: replace(u, deltas={n: t[:1] for n, t in u.deltas.items()})),
        "has shape",
    ),
    "other names": (
        lambda reply: changed(reply, lambda u: replace(u, deltas={f"{n}!": t for n, t in u.deltas.items()})),
        "other tensors",
    ),
    "old round": (lambda reply: changed(reply, lambda u: replace(u, round=0)), "round 0"),
    "more users": (lambda reply: changed(reply, lambda u: replace(u, users=u.users + 1)), "users"),
    "nan metric": (lambda reply: changed(reply, lambda u: replace(u, sums=u.sums | {"loss": float("nan")})), "metric"),
    "another metric": (lambda r: changed(r, lambda u: replace(u, sums=u.sums | {"extra": 1.0})), "other metrics"),
    "no metrics": (lambda r: changed(r, lambda u: replace(u, sums={})), "other metrics"),
    "large metric": (lambda r: changed(r, lambda u: replace(u, sums=u.sums | {"clipped": 1e9})), "1e+09"),
    "no learner": (lambda r: changed(r, lambda u: replace(u, sums=u.sums | {"learners": 0.0})), "0 users who learned"),
    "a large loss": (lambda r: changed(r, lambda u: replace(u, sums=u.sums | {"loss": 1e308})), "1e+308"),
    "no deltas": (without("deltas"), "cannot be decoded"),
    "no count": (without("count"), "cannot be decoded"),
    "a fraction of a round": (count_of(round=1.0), "float where a whole number belongs"),
    "a list for a count": (count_of(users=[6]), "list where a whole number belongs"),
    "whole numbers": (numbers("int64"), "deltas of torch.int64"),
    "garbage": (garbage(b"no array at all"), "cannot be decoded"),
    "no bytes": (garbage(b""), "cannot be decoded"),
    "a zip": (garbage(b"PK\x03\x04"), "cannot be decoded"),
    "an error": (failing, "out of memory"),
    "an error of many lines": (lambda reply: error(reply, "one\ntwo \x1b[" + 9999 * "!"), f"one two ?[{300 * '!'}"),
    "a lost node": (lost, "node unavailable"),
    "a huge answer": (huge, "bytes, where"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bad_answer_is_refused_and_counted(toy: Path, model: TwoTowerModel, tmp_path: Path, fault: str) -> None:
    """The round goes on with the rest, as if the bad node had never answered."""
    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    tamper, said = REFUSED[fault]
    state = trained(unreliable(toy, config, tamper), config, model, tmp_path / "bad")
    (record,) = round_log.read(tmp_path / "bad")
    assert (record["clients_asked"], record["clients_answered"], record["clients_refused"]) == (12, 6, 6)
    assert "node 2" in record["refusals"][0]
    assert said in record["refusals"][0]
    assert "\n" not in record["refusals"][0]
    assert len(record["refusals"][0]) < 500
    silent = trained(unreliable(toy, config, lambda reply: None), config, model, tmp_path / "silent")
    for name, tensor in silent.adapter.items():
        assert tensor.isfinite().all()
        assert torch.equal(tensor, state.adapter[name]), name


def test_a_lost_answer_is_absent_from_the_sum(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    trained(unreliable(toy, config, lambda reply: None), config, model, tmp_path)
    (record,) = round_log.read(tmp_path)
    assert (record["clients_asked"], record["clients_answered"], record["clients_refused"]) == (12, 6, 0)
    assert record["absences"] == ["node 2: no answer within 3600 s"]


def test_an_answer_from_a_node_that_was_not_asked_is_refused(
    toy: Path, model: TwoTowerModel, tmp_path: Path, caplog
) -> None:
    def from_a_stranger(reply: Message) -> Message:
        reply.metadata.__dict__["_src_node_id"] = 77
        return reply

    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    trained(unreliable(toy, config, from_a_stranger), config, model, tmp_path)
    assert round_log.read(tmp_path)[0]["clients_answered"] == 6
    assert "node 77, which was not asked" in caplog.text


def test_a_round_that_nobody_answers_is_logged_and_changes_nothing(
    toy: Path, model: TwoTowerModel, tmp_path: Path
) -> None:
    class Silent(LocalGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            return [r for r in super().send_and_receive(messages) if r.metadata.message_type != wire.TRAIN]

    config = small_config(rounds=2)
    state = trained(Silent.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path)
    assert [record["loss"] for record in round_log.read(tmp_path)] == [None, None]
    assert [record["clients_without_examples"] for record in round_log.read(tmp_path)] == [0, 0]
    for name, tensor in model.adapter().items():
        assert torch.equal(state.adapter[name], tensor), name


def test_the_log_holds_a_line_a_round(run: Path) -> None:
    records = round_log.read(run)
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert [record["validation"] is not None for record in records] == [False, True, False, True]
    adapter_bytes = 4 * (4 * 384 * 4 + 2 * (2 * 384 + 384 * 2))
    for record in records:
        assert record["clients_asked"] == record["clients_answered"] == 6
        down = adapter_bytes * (2 if record["validation"] else 1)  # to train, and to validate
        assert down < record["bytes_down"] < down + 10_000
        assert adapter_bytes < record["bytes_up"] < 2 * adapter_bytes + 10_000
        assert record["loss"] > 0


def test_the_log_is_rewound_to_the_saved_round(tmp_path: Path) -> None:
    (tmp_path / round_log.FILE).write_text('{"round": 1}\n{"round": 2}\n{"round": 3}\n{"rou')
    round_log.rewind(tmp_path, 2)
    assert (tmp_path / round_log.FILE).read_text() == '{"round": 1}\n{"round": 2}\n'


@pytest.fixture(scope="module")
def short(toy: Path, embeddings: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world with three users more, of three events each: one to train on, and nothing to predict from it."""
    rows = [(f"short-{user}", f"film-{COOKING[user + step]}", step) for user in range(3) for step in range(3)]
    folder = tmp_path_factory.mktemp("short") / "short"
    extra = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frames = Frames(pl.concat([toy_interactions(), extra]), toy_items())
    write_dataset(frames, folder, name="short", rules=Rules(salts="by-id"))
    return folder


def test_users_with_nothing_to_learn_from_change_neither_loss_nor_step(
    toy: Path, short: Path, model: TwoTowerModel, tmp_path: Path
) -> None:
    config = small_config(rounds=2, clients_per_round=99, optimizer="fedavg", server_rate=1.0, nodes=2)
    states = [
        trained(LocalGrid.over(TrainingSetup(Dataset.open(data), config)), config, model, tmp_path / data.name)
        for data in (toy, short)
    ]
    without, beside = (round_log.read(tmp_path / data.name) for data in (toy, short))
    assert [record["clients_answered"] for record in (without[0], beside[0])] == [12, 15]
    assert [record["clients_without_examples"] for record in (without[0], beside[0])] == [0, 3]
    assert [record["loss"] for record in beside] == [record["loss"] for record in without]
    assert [record["clipped"] for record in beside] == [record["clipped"] for record in without]
    for name, tensor in states[0].adapter.items():
        assert not torch.equal(tensor, model.adapter()[name]) or name.endswith("lora_A"), name
        assert torch.equal(tensor, states[1].adapter[name]), name


def test_where_everybody_diverged_there_is_no_loss(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    config = small_config(rounds=2, server_rate=1e30, clients_per_round=12, validate_every=9)
    trained(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path)
    first, second = round_log.read(tmp_path)
    assert first["loss"] > 0
    assert (second["loss"], second["clipped"], second["clients_diverged"]) == (None, None, 12)
    assert (round_log.without_loss(first), round_log.without_loss(second)) == ("", " (clients: 12 diverged)")


def test_an_adapter_beyond_float32_ends_the_run_and_says_why(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    config = small_config(server_rate=1e39)
    with pytest.raises(InputError, match=r"round 1 moved the adapter beyond .* lower server_rate than 1e\+39"):
        trained(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path)


def test_a_federation_that_does_not_come_together_says_so(toy: Path) -> None:
    config = small_config(nodes=1, round_timeout=0.01)
    with pytest.raises(InputError, match="1 of nodes = 2 connected"):
        take_census(
            LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), replace(config, nodes=2), toy_stamp(), poll=0.01
        )


def test_a_census_of_the_wrong_kind_is_left_out() -> None:
    for tickets in (np.array([1.5]), np.array([[1]], dtype=np.uint64)):
        with pytest.raises(ValueError, match="census"):
            wire.decode_census(wire.encode_census(tickets, toy_stamp()), toy_stamp())


@pytest.mark.parametrize("name", ["catalogue", "sha256"])
def test_a_node_with_another_catalogue_or_encoder_is_left_out(name: str) -> None:
    content = wire.encode_census(np.array([1], dtype=np.uint64), toy_stamp() | {name: "another"})
    with pytest.raises(ValueError, match=f"its {name} is 'another'"):
        wire.decode_census(content, toy_stamp())


class Counted(LocalGrid):
    """A network on which node 2 answers a census, and an evaluation, as it likes."""

    census: np.ndarray | None = None
    sums: dict[str, float] = {}  # noqa: RUF012

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        for reply in super().send_and_receive(messages, timeout=timeout):
            lies = reply.metadata.src_node_id == 2
            if lies and reply.metadata.message_type == wire.CENSUS and self.census is not None:
                reply.content = wire.encode_census(self.census, toy_stamp())
            if lies and reply.metadata.message_type == wire.EVALUATE:
                changed(reply, lambda update: replace(update, sums=update.sums | self.sums))
            yield reply


OTHERS = np.arange(100, dtype=np.uint64)


@pytest.mark.parametrize(
    ("tickets", "said"),
    [
        (lambda first: np.array([7, 7], dtype=np.uint64), "a census with a ticket twice"),
        (lambda first: np.append(OTHERS[:5], first[:1]), r"the same users as node 1 \(1 of its 6\)"),
        (lambda first: OTHERS[:21], r"brings 21 users, beyond node_users = 20"),
        (lambda first: np.arange(5000, dtype=np.uint64), r"40,\d+ bytes, where 16,544 are enough for node_users = 20"),
    ],
    ids=["twice", "another's", "too many", "too large to decode"],
)
def test_a_census_that_lies_leaves_its_node_out_and_the_run_begins(
    toy: Path, caplog: pytest.LogCaptureFixture, tickets: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    config = small_config(nodes=3, node_users=20)
    grid = Counted.over(TrainingSetup(Dataset.open(toy), config))
    honest = take_census(grid, config, toy_stamp())
    grid.census = tickets(honest.tickets[honest.nodes == 1])
    roster = take_census(grid, config, toy_stamp())
    assert (len(honest), len(roster), set(roster.nodes.tolist())) == (12, 8, {1, 3})
    assert re.search(f"node 2 is left out: .*{said}", caplog.text)
    assert "2 of nodes = 3 can take part; going on with these 8 users" in caplog.text


def test_a_node_that_made_users_up_fills_its_share_of_the_round_and_of_the_validation(toy: Path) -> None:
    """It says that it has 100 users beside the eight of the others."""
    config = small_config(rounds=1, nodes=3, node_share=0.5, validation_users=6, validate_every=1)
    grid = Counted.over(TrainingSetup(Dataset.open(toy), config))
    grid.census = OTHERS + 10
    roster = take_census(grid, config, toy_stamp())
    assert len(roster) == 4 + 100 + 4
    drawn = [sample_clients(roster, 6, config.seed, round, config.node_share) for round in (0, 1)]
    assert [max(map(len, roster.per_node(users).values())) <= 3 for users in drawn] == [True, True]


@pytest.mark.parametrize("lie", [{"users": 0.0}, {"ndcg@10": 6.0}, {"mrr": 0.0}])
def test_a_validation_that_lies_does_not_choose_the_round(
    toy: Path, model: TwoTowerModel, tmp_path: Path, lie: dict[str, float]
) -> None:
    config = small_config(rounds=1, nodes=2, validate_every=1)
    grid = Counted.over(TrainingSetup(Dataset.open(toy), config))
    grid.sums = lie
    trained(grid, config, model, tmp_path)
    (record,) = round_log.read(tmp_path)
    assert "node 2: a sum of" in record["refusals"][0]
    assert record["validation"]["users"] == 6


def test_a_validation_in_which_nobody_is_ranked_has_no_score() -> None:
    nobody = metric_sums(np.zeros(0))
    assert RoundReport(updates=[Update(1, 6, {}, nobody)]).metrics is None
    assert RoundReport(updates=[Update(1, 6, {}, nobody), Update(1, 6, {}, metric_sums(np.zeros(2)))]).metrics == {
        "users": 2,
        **{name: 1.0 for name in nobody if name != "users"},
    }


class Late(LocalGrid):
    """A network that node 2 joins with the third round, and leaves with the fifth."""

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node == 1 or self.round > 2]

    round = 1

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        self.round = max(self.round, *(int(message.metadata.group_id) + 1 for message in messages))
        return [reply for reply in super().send_and_receive(messages) if self.round < 6 or reply_of_first(reply)]


def reply_of_first(reply: Message) -> bool:
    return reply.metadata.src_node_id == 1


def test_a_node_that_comes_late_is_asked_from_then_on(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    """And one that is gone is missed, but not waited for."""
    config = small_config(rounds=6, nodes=2, clients_per_round=12, validate_every=2)
    grid = Late.over(TrainingSetup(Dataset.open(toy), config))
    state = trained(grid, replace(config, nodes=1), model, tmp_path)
    records = round_log.read(tmp_path)
    assert [record["users"] for record in records] == [6, 6, 12, 12, 12, 12]
    assert [record["clients_asked"] for record in records] == [6, 6, 12, 12, 12, 12]
    assert [record["clients_answered"] for record in records] == [6, 6, 12, 12, 6, 6]
    assert [record["validation"]["users"] for record in records if record["validation"]] == [6, 6, 6]
    assert (
        state.roster
        == take_census(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, toy_stamp()).fingerprint
    )


def test_a_late_node_that_cannot_take_part_is_left_out_and_asked_once(
    toy: Path, model: TwoTowerModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(rounds=5, nodes=2, clients_per_round=12)
    grid = Late(client_app.app, [{"data": str(toy), "simulated": True}] * 2, to_flat(config))
    trained(grid, replace(config, nodes=1), model, tmp_path)
    assert [record["users"] for record in round_log.read(tmp_path)] == [12] * 5
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert left_out == [
        "node 2 is left out: it hosts the same users as node 1 (12 of its 12); give each node its own part of them"
    ]


def test_a_run_that_is_resumed_with_other_users_goes_on_and_says_so(
    toy: Path, model: TwoTowerModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = small_config(rounds=2, nodes=2, clients_per_round=12)
    state = trained(unreliable(toy, half, lambda reply: reply), half, model, tmp_path)
    config = small_config(rounds=4, clients_per_round=12)
    grid = LocalGrid(client_app.app, [{"data": str(toy), "part": 0, "parts": 2, "simulated": True}], to_flat(config))
    assert "other users" not in caplog.text
    roster = take_census(grid, config, toy_stamp())
    done = run(grid, roster, state, config, RoundLog(tmp_path))
    assert "other users than before; resuming with these 6" in caplog.text
    assert (done.round, done.roster) == (4, roster.fingerprint)


def test_a_census_needs_no_model(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer to open than all the rest of an answer."""
    monkeypatch.setattr(training_setup, "TwoTowerModel", lambda *_: pytest.fail("the model was built"))
    config = small_config()
    assert len(take_census(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, toy_stamp())) == 12


def test_a_failure_on_a_node_tells_the_server_its_kind_only() -> None:
    with pytest.raises(NodeFailure) as failure, guarded():
        raise IndexError("row 1700 of a history")
    assert str(failure.value) == "IndexError; the node's log tells more"
    assert failure.value.__cause__ is None


def test_central_mode_is_one_client_that_owns_the_cohort(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    """Without clipping, and with all items as negatives, its one local step is the mean of its users' steps."""
    shared = {"rounds": 3, "optimizer": "fedavg", "server_rate": 0.1, "clip": 1e6, "clients_per_round": 12}
    shared["negatives"] = 24
    federated, central = (
        trained(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path / config.mode)
        for config in (small_config(**shared), small_config(**shared, mode="central"))
    )
    for name, tensor in federated.adapter.items():
        torch.testing.assert_close(central.adapter[name], tensor, atol=2e-5, rtol=0)


def test_training_learns_the_toy_world(toy: Path, tmp_path: Path) -> None:
    """Full participation for a few rounds brings the loss well down."""
    run = open_run(
        tmp_path / "run", Dataset.open(toy), small_config(rounds=20, clients_per_round=12, clip=5.0), resume=False
    )
    records: list[dict] = []
    train(LocalGrid.over(run.setup), run, records.append)
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["finished"]
    assert card["best_round"] in range(2, 21, 2)


def test_metric_records_hold_numbers_only() -> None:
    """A history could not be smuggled out as a metric by mistake: text is not accepted."""
    with pytest.raises(TypeError):
        MetricRecord({"loss": "film-soup"})  # type: ignore[dict-item]
