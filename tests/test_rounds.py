"""The loop over the grid, where nodes fail: bad answers are refused and counted, and the round goes on."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from data.errors import InputError
from federation import client, client_app, log, wire
from federation.client_app import NodeFailure, guarded
from federation.config import RunConfig, knobs
from federation.local import LocalGrid
from federation.rounds import run, take_census
from federation.server import State
from federation.train import open_run, train
from federation.update import Update
from recsys.model import Model
from tests.world import small_config, toy_stamp

Tamper = Callable[[Message], Message | None]


class Unreliable(LocalGrid):
    """A network on which the answers of node 2 are changed, or lost where `tamper` gives None."""

    tamper: Tamper

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        for reply in super().send_and_receive(messages, timeout=timeout):
            hit = reply.metadata.src_node_id == 2 and reply.metadata.message_type == wire.TRAIN
            changed = self.tamper(reply) if hit else reply
            if changed is not None:
                yield changed


def unreliable(data: Path, config: RunConfig, tamper: Tamper) -> Unreliable:
    grid = Unreliable.over(data, config)
    grid.tamper = tamper
    return grid


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
    "no deltas": (without("deltas"), "cannot be decoded"),
    "no count": (without("count"), "cannot be decoded"),
    "garbage": (garbage(b"no array at all"), "cannot be decoded"),
    "no bytes": (garbage(b""), "cannot be decoded"),
    "a zip": (garbage(b"PK\x03\x04"), "cannot be decoded"),
    "an error": (failing, "out of memory"),
    "a lost node": (lost, "node unavailable"),
    "a huge answer": (huge, "bytes, where"),
}


def trained(grid: LocalGrid, config: RunConfig, model: Model, folder: Path) -> State:
    folder.mkdir(exist_ok=True)
    start = State.start(model.adapter(), config.server)
    return run(grid, take_census(grid, config, toy_stamp()), start, config, folder, lambda record: None)


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bad_answer_is_refused_and_counted(toy: Path, model: Model, tmp_path: Path, fault: str) -> None:
    """The round goes on with the rest, as if the bad node had never answered."""
    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    tamper, said = REFUSED[fault]
    state = trained(unreliable(toy, config, tamper), config, model, tmp_path / "bad")
    (record,) = log.read(tmp_path / "bad")
    assert (record["clients_asked"], record["clients_answered"], record["clients_refused"]) == (12, 6, 6)
    assert "node 2" in record["refusals"][0]
    assert said in record["refusals"][0].replace("\n", " ")
    silent = trained(unreliable(toy, config, lambda reply: None), config, model, tmp_path / "silent")
    for name, tensor in silent.adapter.items():
        assert tensor.isfinite().all()
        assert torch.equal(tensor, state.adapter[name]), name


def test_a_lost_answer_is_absent_from_the_sum(toy: Path, model: Model, tmp_path: Path) -> None:
    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    trained(unreliable(toy, config, lambda reply: None), config, model, tmp_path)
    (record,) = log.read(tmp_path)
    assert (record["clients_asked"], record["clients_answered"], record["clients_refused"]) == (12, 6, 0)
    assert record["absences"] == ["node 2: no answer within 3600 s"]


def test_an_answer_from_a_node_that_was_not_asked_is_refused(toy: Path, model: Model, tmp_path: Path, caplog) -> None:
    def from_a_stranger(reply: Message) -> Message:
        reply.metadata.__dict__["_src_node_id"] = 77
        return reply

    config = small_config(rounds=1, nodes=2, clients_per_round=12)
    trained(unreliable(toy, config, from_a_stranger), config, model, tmp_path)
    assert log.read(tmp_path)[0]["clients_answered"] == 6
    assert "node 77, which was not asked" in caplog.text


def test_a_round_that_nobody_answers_is_logged_and_changes_nothing(toy: Path, model: Model, tmp_path: Path) -> None:
    class Silent(LocalGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            return [r for r in super().send_and_receive(messages) if r.metadata.message_type != wire.TRAIN]

    config = small_config(rounds=2)
    state = trained(Silent.over(toy, config), config, model, tmp_path)
    assert [record["loss"] for record in log.read(tmp_path)] == [None, None]
    for name, tensor in model.adapter().items():
        assert torch.equal(state.adapter[name], tensor), name


def test_the_log_holds_a_line_a_round(run: Path) -> None:
    records = log.read(run)
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
    (tmp_path / log.FILE).write_text('{"round": 1}\n{"round": 2}\n{"round": 3}\n{"rou')
    log.rewind(tmp_path, 2)
    assert (tmp_path / log.FILE).read_text() == '{"round": 1}\n{"round": 2}\n'


def test_a_federation_that_does_not_come_together_says_so(toy: Path) -> None:
    config = small_config(nodes=1, round_timeout=0.01)
    with pytest.raises(InputError, match="1 of nodes = 2 connected"):
        take_census(LocalGrid.over(toy, config), replace(config, nodes=2), toy_stamp(), poll=0.01)


def test_a_census_of_the_wrong_kind_is_left_out() -> None:
    for tickets in (np.array([1.5]), np.array([[1]], dtype=np.uint64)):
        with pytest.raises(ValueError, match="census"):
            wire.decode_census(wire.encode_census(tickets, toy_stamp()), toy_stamp())


@pytest.mark.parametrize("name", ["catalogue", "sha256"])
def test_a_node_with_another_catalogue_or_encoder_is_left_out(name: str) -> None:
    content = wire.encode_census(np.array([1], dtype=np.uint64), toy_stamp() | {name: "another"})
    with pytest.raises(ValueError, match=f"its {name} is 'another'"):
        wire.decode_census(content, toy_stamp())


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


def test_a_node_that_comes_late_is_asked_from_then_on(toy: Path, model: Model, tmp_path: Path) -> None:
    """And one that is gone is missed, but not waited for."""
    config = small_config(rounds=6, nodes=2, clients_per_round=12, validate_every=2)
    grid = Late.over(toy, config)
    state = trained(grid, replace(config, nodes=1), model, tmp_path)
    records = log.read(tmp_path)
    assert [record["users"] for record in records] == [6, 6, 12, 12, 12, 12]
    assert [record["clients_asked"] for record in records] == [6, 6, 12, 12, 12, 12]
    assert [record["clients_answered"] for record in records] == [6, 6, 12, 12, 6, 6]
    assert [record["validation"]["users"] for record in records if record["validation"]] == [6, 6, 6]
    assert state.roster == take_census(LocalGrid.over(toy, config), config, toy_stamp()).fingerprint


def test_a_late_node_that_cannot_take_part_is_left_out_and_asked_once(
    toy: Path, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(rounds=5, nodes=2, clients_per_round=12)
    grid = Late(client_app.app, [{"data": str(toy)}, {"data": str(toy)}], knobs(config))
    trained(grid, replace(config, nodes=1), model, tmp_path)
    assert [record["users"] for record in log.read(tmp_path)] == [12] * 5
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert left_out == ["node 2 is left out: two nodes host the same users; give each node its own part of them"]


def test_a_run_that_is_resumed_with_other_users_goes_on_and_says_so(
    toy: Path, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = small_config(rounds=2, nodes=2, clients_per_round=12)
    state = trained(unreliable(toy, half, lambda reply: reply), half, model, tmp_path)
    config = small_config(rounds=4, clients_per_round=12)
    grid = LocalGrid(client_app.app, [{"data": str(toy), "part": 0, "parts": 2}], knobs(config))
    assert "other users" not in caplog.text
    roster = take_census(grid, config, toy_stamp())
    done = run(grid, roster, state, config, tmp_path, lambda record: None)
    assert "other users than before; going on with these 6" in caplog.text
    assert (done.round, done.roster) == (4, roster.fingerprint)


def test_a_census_needs_no_model(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer to open than all the rest of an answer."""
    monkeypatch.setattr(client, "shared_model", lambda *_: pytest.fail("the model was opened"))
    client_app.open_node.cache_clear()
    config = small_config()
    assert len(take_census(LocalGrid.over(toy, config), config, toy_stamp())) == 12


def test_a_failure_on_a_node_tells_the_server_its_kind_only() -> None:
    with pytest.raises(NodeFailure) as failure, guarded():
        raise IndexError("row 1700 of a history")
    assert str(failure.value) == "IndexError; the node's log tells more"
    assert failure.value.__cause__ is None


def test_central_mode_is_one_client_that_owns_the_cohort(toy: Path, model: Model, tmp_path: Path) -> None:
    """Without clipping, and with all items as negatives, its one local step is the mean of its users' steps."""
    shared = {"rounds": 3, "optimizer": "fedavg", "server_rate": 0.1, "clip": 1e6, "clients_per_round": 12}
    shared["negatives"] = 24
    federated, central = (
        trained(LocalGrid.over(toy, config), config, model, tmp_path / config.mode)
        for config in (small_config(**shared), small_config(**shared, mode="central"))
    )
    for name, tensor in federated.adapter.items():
        torch.testing.assert_close(central.adapter[name], tensor, atol=2e-5, rtol=0)


def test_training_learns_the_toy_world(toy: Path, tmp_path: Path) -> None:
    """Full participation for a few rounds brings the loss well down."""
    config = open_run(tmp_path / "run", toy, small_config(rounds=20, clients_per_round=12, clip=5.0), resume=False)
    records: list[dict] = []
    train(LocalGrid.over(toy, config), tmp_path / "run", toy, config, records.append)
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["finished"]
    assert card["best_round"] in range(2, 21, 2)


def test_metric_records_hold_numbers_only() -> None:
    """A history could not be smuggled out as a metric by mistake: text is not accepted."""
    with pytest.raises(TypeError):
        MetricRecord({"loss": "film-soup"})  # type: ignore[dict-item]
