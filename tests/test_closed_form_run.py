"""Runs of the methods `closed-form` and `hybrid`, from the order to the finished folder."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation import closed_form_rounds, round_log, run_statistics, wire
from fedrec.federation.checkpoint import STATE
from fedrec.federation.config import from_flat, from_nested, to_flat
from fedrec.federation.exchange import RoundReport
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.run_statistics import FOLDER, load_nodes, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.closed_form.solutions import SHARE, WEIGHTS
from fedrec.recsys.closed_form.statistics import GRAM
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.recommender import PEFT_WEIGHTS, TOWERS, VECTORS
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.recsys.training.method import FederatedMethod
from fedrec.settings_file import read_settings
from tests.support.closed_form_runs import finished
from tests.support.federation import trial
from tests.support.toy_world import SMALL, shard_of, small_config
from tests.support.unreliable_grid import Tamper, unreliable

CLOSED: dict[str, Any] = {
    "method": "closed-form",
    "ridges": "0.1,1,10",
    "decodes": "0.01,0.1",
    "feature_width": 32,
    "refinements": 0,
}
HYBRID: dict[str, Any] = CLOSED | {"method": "hybrid", "rounds": 2, "validate_every": 1, "blend_shares": "0.3,0.6"}
TEXT: dict[str, Any] = {"features": "text", "feature_width": 64}
IDS: dict[str, Any] = {"features": "ids"}
STACKED: dict[str, Any] = {"decays": "0.5,0.9"}


# ---- what a run leaves


@pytest.mark.parametrize("features", [TEXT, IDS, TEXT | STACKED, IDS | STACKED], ids=str)
def test_whoever_cooks_gets_cooking_films(toy: Path, tmp_path: Path, features: dict[str, Any]) -> None:
    state = finished(toy, tmp_path / "run", **CLOSED | features)
    setup = TrainingSetup(Dataset.open(toy), small_config(**CLOSED | features))
    shard = setup.dataset.shard
    scores = setup.method.scorer(state.best, shard, "test", {})(range(12))
    cooking = np.array([shard.history(user, "test")[0] < 12 for user in range(12)])
    assert cooking.sum() == 6
    best = scores.argmax(-1).numpy() < 12
    assert best.tolist() == cooking.tolist()
    metrics = json.loads((tmp_path / "run" / METRICS).read_text())
    assert metrics["test"]["full"]["ndcg@10"] > 0.7


def test_each_round_is_a_line_and_the_best_candidate_is_kept(toy: Path, tmp_path: Path) -> None:
    state = finished(toy, tmp_path / "run", **HYBRID, nodes=3)
    records = round_log.read(tmp_path / "run")
    assert [record["round"] for record in records] == list(range(1, 2 + 1 + 3 + 1 + 1 + 1))
    towers, sums, candidates = records[:2], records[2], records[3:]
    assert all(record["loss"] for record in towers)
    assert not any("candidate" in record for record in (*towers, sums))
    assert (sums["clients_asked"], sums["clients_answered"], sums["validation"]) == (12, 12, None)
    assert 3 * 4 * (32 * 33 // 2 + 32 * 32) < sums["bytes_up"] < 3 * (8 * (32 * 33 // 2 + 32 * 32) + 2000)
    scores = [record["validation"]["ndcg@10"] for record in candidates]
    best = candidates[int(np.argmax(scores))]
    assert state.chosen
    assert (state.best_score, state.best_round, state.chosen.as_record()) == (
        max(scores),
        best["round"],
        best["candidate"],
    )
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["sums"] == {"chosen": best["candidate"], "held_out": 2, "users": 12, "learners": 12, "nodes_kept": 3}
    assert (card["finished"], card["rounds"], card["best_round"]) == (True, 8, best["round"])
    assert float(state.best[SHARE]) == np.float32(best["candidate"]["share"])


def test_a_hybrids_towers_are_those_of_a_run_without_the_closed_form(toy: Path, tmp_path: Path) -> None:
    hybrid = finished(toy, tmp_path / "hybrid", **HYBRID)
    settings: dict[str, Any] = HYBRID | {"method": "fedrec"}
    alone = finished(toy, tmp_path / "alone", **settings)
    towers, solution = split_adapter(hybrid.best)
    assert solution.keys() == {WEIGHTS, SHARE}
    assert towers.keys() == alone.best.keys()
    assert all(torch.equal(tensor, alone.best[name]) for name, tensor in towers.items())


def test_a_blend_of_one_is_the_closed_form_and_of_none_the_towers(toy: Path, tmp_path: Path, shard: Shard) -> None:
    best = finished(toy, tmp_path / "run", **HYBRID).best
    method = TrainingSetup(Dataset.open(toy), small_config(**HYBRID)).method

    def ranked(share: float) -> list[list[int]]:
        scores = method.scorer(best | {SHARE: torch.tensor([share])}, shard, "test", {})(range(12))
        return scores.argsort(-1, descending=True)[:, :5].tolist()

    towers = method.scorer(split_adapter(best)[0], shard, "test", {})(range(12))
    assert ranked(0.0) == towers.argsort(-1, descending=True)[:, :5].tolist()
    assert ranked(1.0) == ranked(0.999_999)
    assert ranked(0.0) != ranked(1.0)


def test_candidates_beside_the_same_towers_encode_no_history_again(
    toy: Path, tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = finished(toy, tmp_path / "run", **HYBRID).best
    encoded: list[int] = []
    encode = TwoTowerModel.user_vectors

    def counted(model: TwoTowerModel, adapter: Adapter, vectors: Tensor, mask: Tensor) -> Tensor:
        encoded.append(len(vectors))
        return encode(model, adapter, vectors, mask)

    monkeypatch.setattr(TwoTowerModel, "user_vectors", counted)

    def scores(adapter: Adapter, method: FederatedMethod) -> Tensor:
        return method.scorer(adapter, shard, "validation", {})(range(12))

    def fresh() -> FederatedMethod:
        return TrainingSetup(Dataset.open(toy), small_config(**HYBRID)).method

    method, candidate = fresh(), best | {SHARE: torch.tensor([0.9])}
    first, second = scores(best, method), scores(candidate, method)
    assert sum(encoded) == 12
    others = {name: tensor * (1 if name.startswith("closed.") else 1.5) for name, tensor in best.items()}
    third = scores(others, method)
    assert sum(encoded) == 24
    for adapter, found in ((best, first), (candidate, second), (others, third)):
        assert torch.equal(found, scores(adapter, fresh()))


def test_the_kept_sums_give_the_solution_again_and_a_node_can_be_subtracted(toy: Path, tmp_path: Path) -> None:
    state = finished(toy, tmp_path / "run", **CLOSED, nodes=3)
    closed_form = TrainingSetup(Dataset.open(toy), small_config(**CLOSED, nodes=3)).closed_form
    total, nodes = load_total(tmp_path / "run"), load_nodes(tmp_path / "run")
    assert state.chosen
    again = closed_form.solver(total.statistics).solve(state.chosen)
    assert all(torch.equal(tensor, state.best[name]) for name, tensor in again.items())
    assert list(nodes) == [1, 2, 3]
    dataset = Dataset.open(toy)
    kept = np.setdiff1d(np.arange(12), np.arange(1, 12, 3))  # node 2 hosts users 1, 4, 7 and 10
    others = closed_form.sum_users(dataset.shard, kept).statistics
    for name, tensor in others.items():
        assert torch.equal(total.statistics[name] - nodes[2].statistics[name], tensor), name


def test_the_sums_of_very_many_nodes_are_not_kept_apart(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_statistics, "MAX_NODES", 2)
    finished(toy, tmp_path / "run", **CLOSED, nodes=3)
    assert load_nodes(tmp_path / "run") == {}
    assert load_total(tmp_path / "run").users == 12
    assert json.loads((tmp_path / "run" / "card.json").read_text())["sums"]["nodes_kept"] == 0


@pytest.mark.parametrize("held_out", [0, 1])
def test_without_validation_the_middle_is_taken(toy: Path, tmp_path: Path, held_out: int) -> None:
    state = finished(toy, tmp_path / "run", **HYBRID, held_out=held_out)
    assert state.chosen
    assert state.chosen.as_record() == {"ridge": 1.0, "decode": 0.1, "share": 0.6, "prior": 0.0, "discount": 0.0}
    assert (state.round, state.best_round) == (3, 3)
    assert WEIGHTS in state.best
    assert list(json.loads((tmp_path / "run" / METRICS).read_text())) == ["test"] * held_out


def test_damaged_sums_are_told(toy: Path, tmp_path: Path) -> None:
    finished(toy, tmp_path / "run", **CLOSED)
    path = tmp_path / "run" / FOLDER / "total.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"total\.safetensors cannot be read"):
        load_total(tmp_path / "run")
    path.unlink()
    with pytest.raises(InputError, match=r"total\.safetensors is missing"):
        load_total(tmp_path / "run")


# ---- what is summed


def method_of(embeddings: Tensor, rows: np.ndarray, **settings: Any) -> ClosedFormMethod:
    config = small_config(**CLOSED | settings).closed_form
    return ClosedFormMethod(embeddings, rows, config, seed=0, held_out=2)


@pytest.mark.parametrize("features", [TEXT, IDS], ids=str)
def test_the_newest_events_count(embeddings: Tensor, features: dict[str, Any]) -> None:
    long, newest = (shard_of([history]) for history in ([9, 8, 0, 1, 2, 23, 22], [0, 1, 2, 23, 22]))
    method = method_of(embeddings, np.arange(24), statistic_events=3, **features)
    ours, theirs = (method.sum_users(shard, np.array([0])).statistics for shard in (long, newest))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("features", [TEXT, IDS], ids=str)
def test_items_that_training_may_not_use_change_nothing(embeddings: Tensor, features: dict[str, Any]) -> None:
    """Items 20 to 23 are cold: no sum, and no weight of another item, depends on their texts."""
    other = embeddings.clone()
    other[20:] = other[:4]
    shard, rows = shard_of([[0, 1, 2, 3, 4, 20, 21], [5, 6, 7, 8, 22, 23]]), np.arange(20)
    found = []
    for matrix in (embeddings, other):
        method = method_of(matrix, rows, **features)
        sums = method.sum_users(shard, np.arange(2)).statistics
        found.append(sums | method.solver(sums).solve(small_config(**CLOSED).search_space.middle))
        if "features" in features:
            found[-1][WEIGHTS] = found[-1][WEIGHTS][:, :20]
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_user_with_one_event_is_no_learner(embeddings: Tensor) -> None:
    shard = shard_of([[1, 22, 23], [1, 2, 22, 23]])
    found = method_of(embeddings, np.arange(24)).sum_users(shard, np.arange(2))
    assert found.learners == 1


# ---- resuming


def same_run(whole: Path, other: Path) -> None:
    """Check that two finished runs are the same to the bit, but for their ids."""
    for name in (METRICS, PEFT_WEIGHTS, TOWERS, VECTORS, f"{FOLDER}/total.safetensors"):
        assert (whole / name).read_bytes() == (other / name).read_bytes(), name
    for name, tensor in load_file(whole / STATE).items():
        assert torch.equal(tensor, load_file(other / STATE)[name]), name
    records = [[(r["round"], r["validation"]) for r in round_log.read(run)] for run in (whole, other)]
    assert records[0] == records[1]


@pytest.mark.parametrize(
    "settings",
    [CLOSED, CLOSED | IDS, HYBRID, CLOSED | {"ridges": "0.1,1", "decodes": "1", "refinements": 2}],
    ids=["text", "ids", "hybrid", "refined"],
)
def test_stopped_after_any_round_and_resumed_is_the_same_run(
    toy: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = finished(toy, tmp_path / "whole", **settings)
    for number in range(1, whole.round + 1):
        out = tmp_path / str(number)
        assert finished(toy, out, stop_after=number, **settings).round == number
        finished(toy, out, resume=True, **settings)
        same_run(tmp_path / "whole", out)


def test_sums_that_were_saved_before_a_crash_are_replaced(toy: Path, tmp_path: Path) -> None:
    """A crash between the sums and the checkpoint leaves sums that the checkpoint does not know."""
    finished(toy, tmp_path / "whole", **HYBRID)
    finished(toy, tmp_path / "other", **CLOSED | IDS, nodes=3)
    out = tmp_path / "stopped"
    finished(toy, out, stop_after=2, **HYBRID)
    shutil.copytree(tmp_path / "other" / FOLDER, out / FOLDER)
    finished(toy, out, resume=True, **HYBRID)
    same_run(tmp_path / "whole", out)
    assert list(load_nodes(out)) == [1]


def test_killed_and_resumed_is_the_same_run(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    settings = SMALL | CLOSED | {"ridges": ",".join(map(str, range(1, 40)))}
    sets = [f"--set={name}={value}" for name, value in settings.items()]

    def command(out: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "fedrec", "train", str(toy), "--out", str(out), *sets, *more]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True, timeout=300)
    running = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(round_log.read(killed)) < 3:
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert len(round_log.read(killed)) < 1 + 39 + 1
    subprocess.run(command(killed, "--resume"), check=True, capture_output=True, timeout=300)
    same_run(whole, killed)


# ---- answers that are refused


def changed(change: Callable[[Update], Update]) -> Tamper:
    def tamper(reply: Message) -> Message:
        reply.content = wire.encode_update(change(wire.decode_update(reply.content)))
        return reply

    return tamper


def with_deltas(change: Callable[[Tensor], Tensor]) -> Tamper:
    return changed(lambda update: replace(update, deltas={name: change(t) for name, t in update.deltas.items()}))


def with_sums(**sums: float) -> Tamper:
    return changed(lambda update: replace(update, sums=sums))


LIES: dict[str, tuple[Tamper, str]] = {
    "nan": (with_deltas(lambda t: t * torch.nan), "not finite"),
    "infinite": (with_deltas(lambda t: t + torch.inf), "not finite"),
    "too much": (with_deltas(lambda t: t * 1e12), "users have at most"),
    "a part of a unit": (with_deltas(lambda t: t + 1e-30 + t / 3), "whole multiples"),
    "negative squares": (with_deltas(lambda t: -t), "a sum of squares"),
    "another shape": (with_deltas(lambda t: t[:1]), "has shape"),
    "other names": (changed(lambda u: replace(u, deltas={"gram": u.deltas["gram"]})), "other tensors"),
    "another round": (changed(lambda u: replace(u, round=2)), "round 2"),
    "more users": (changed(lambda u: replace(u, users=u.users + 1)), "7 users"),
    "more learners": (with_sums(learners=7.0), "learners of 6 users"),
    "half a learner": (with_sums(learners=5.5), "counts users"),
    "no learners": (with_sums(learners=0.0), "0 users have at most 0"),
    "other metrics": (with_sums(learners=6.0, loss=1.0), "other metrics"),
    "a huge answer": (
        changed(lambda u: replace(u, deltas=u.deltas | {"more": torch.zeros(30_000).double()})),
        "bytes, where",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_in_no_sum(toy: Path, tmp_path: Path, lie: str) -> None:
    tamper, said = LIES[lie]
    config = small_config(**CLOSED, nodes=2)
    run = open_run(tmp_path / "run", Dataset.open(toy), config, resume=False)
    train(unreliable(toy, config, tamper), run)
    sums = round_log.read(tmp_path / "run")[0]
    assert (sums["clients_answered"], sums["clients_refused"]) == (6, 6)
    assert "node 2" in sums["refusals"][0]
    assert said in sums["refusals"][0]
    assert list(load_nodes(tmp_path / "run")) == [1]
    assert load_total(tmp_path / "run").users == 6


def test_sums_over_ids_are_sent_as_they_are_beside_changes_in_few_bits(toy: Path, tmp_path: Path) -> None:
    """Over texts the sums are coded, too, and differ."""
    for features in ("ids", "text"):
        knobs = HYBRID | {"nodes": 12, "features": features}
        for bits in (4, 32):
            finished(toy, tmp_path / f"{features}-{bits}", **knobs, bits=bits)
        few, all_bits = (load_total(tmp_path / f"{features}-{bits}").statistics[GRAM] for bits in (4, 32))
        assert torch.equal(few, all_bits) == (features == "ids")


def test_in_few_bits_a_size_is_checked(toy: Path, tmp_path: Path) -> None:
    config = small_config(**CLOSED, nodes=2, bits=4)
    run = open_run(tmp_path / "run", Dataset.open(toy), config, resume=False)
    train(unreliable(toy, config, LIES["too much"][0]), run)
    assert "users have at most" in round_log.read(tmp_path / "run")[0]["refusals"][0]


def test_a_run_whose_sums_are_refused_says_why(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = RoundReport(refusals=["node 1: this node's policy refuses the order"])
    monkeypatch.setattr(closed_form_rounds, "request_updates", lambda *_: refused)
    with pytest.raises(InputError, match=r"its sums \(node 1: this node's policy .* method = 'fedrec'"):
        finished(toy, tmp_path / "run", **CLOSED)


def test_a_run_that_nobody_answers_says_so_and_goes_on_later(toy: Path, tmp_path: Path) -> None:
    config = small_config(**HYBRID, nodes=2)
    run = open_run(tmp_path / "run", Dataset.open(toy), config, resume=False)

    class Silent(LocalGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            asked = [message for message in messages if message.metadata.message_type != wire.STATISTICS]
            return super().send_and_receive(asked, timeout=timeout)

    with pytest.raises(InputError, match="no node answered with its sums; bring the nodes back and resume"):
        train(Silent.over(run.setup), run)
    finished(toy, tmp_path / "run", resume=True, **HYBRID, nodes=2)
    finished(toy, tmp_path / "whole", **HYBRID, nodes=2)
    same_run(tmp_path / "whole", tmp_path / "run")


# ---- orders that are refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round": 2}, "round = 2 is not 3"),
        ({"round": 4}, "round = 4 is not 3"),
        ({"clip": 1.0}, "clip = 1, and such an order has none"),
        ({"split": "validation"}, "split = 'validation'"),
        ({"users": np.array([0, 0])}, "names one twice"),
        ({"users": np.array([12])}, "names one beyond"),
    ],
)
def test_a_node_sums_once_and_its_own_users_alone(toy: Path, changes: dict[str, Any], said: str) -> None:
    node = Node.open(toy, small_config(**HYBRID))
    order = Order(3, np.array([0, 1]))
    assert node.sum_statistics(order, {}).users == 2
    with pytest.raises(OrderRefused, match=said):
        node.sum_statistics(replace(order, **changes), {})
    with pytest.raises(OrderRefused, match="adapter has other tensors"):
        node.sum_statistics(order, node.setup.method.adapter())


def test_a_node_does_what_the_runs_method_has(toy: Path) -> None:
    towers, closed = Node.open(toy, small_config()), Node.open(toy, small_config(**CLOSED))
    users = np.array([0])
    with pytest.raises(OrderRefused, match="fedrec has no statistics"):
        towers.sum_statistics(Order(5, users), {})
    with pytest.raises(OrderRefused, match="no round of training"):
        closed.train(Order(1, users, clip=1.0), closed.setup.method.adapter())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[:, 1:], r"closed\.weights has shape \(32, 31\) where \(32, 32\) belongs"),
        (lambda t: t.double(), r"closed\.weights is of torch\.float64"),
        (lambda t: t * torch.nan, r"closed\.weights holds values that are not finite"),
    ],
)
def test_a_node_ranks_by_solutions_of_its_runs_shape(toy: Path, change: Callable[[Tensor], Tensor], said: str) -> None:
    node = Node.open(toy, small_config(**CLOSED))
    solution = {WEIGHTS: torch.zeros(32, 32), SHARE: torch.ones(1)}
    adapter, order = node.setup.method.adapter() | solution, Order(2, np.array([0]), split="validation")
    assert node.evaluate(order, adapter).users == 1
    with pytest.raises(OrderRefused, match=said):
        node.evaluate(order, adapter | {WEIGHTS: change(solution[WEIGHTS])})


# ---- settings


def test_lists_of_numbers_are_settings(tmp_path: Path) -> None:
    """As text, as a list, and as a number, from a file, a command line and Flower's table."""
    (tmp_path / "settings.toml").write_text("ridges = [3, 30.5]\ndecodes = 2\n", "utf-8")
    config = read_settings(tmp_path / "settings.toml", ["blend_shares=0.25,1"])
    assert config
    assert (config.closed_form.ridges, config.closed_form.decodes) == ((3.0, 30.5), (2.0,))
    assert config.closed_form.blend_shares == (0.25, 1.0)
    assert to_flat(config)["ridges"] == "3.0,30.5"
    assert from_flat(to_flat(config)) == config
    assert from_nested({"closed_form": {"ridges": [1, 2]}}).closed_form.ridges == (1.0, 2.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ridges": ""}, "setting ridges = ''"),
        ({"ridges": []}, "setting ridges"),
        ({"ridges": "1,-1"}, "setting ridges = '-1'"),
        ({"decodes": "nan"}, "setting decodes = 'nan'"),
        ({"blend_shares": "0.5,1.5"}, "setting blend_shares = '1.5'"),
        ({"decays": "0.5,1.0"}, "setting decays = '1.0'"),
        ({"decay": 0.8}, "setting 'decay' is now called 'decays'"),
        ({"method": "closed-form", "mode": "central"}, "clients of closed-form cannot be pooled"),
        (
            {"method": "closed-form", "features": "ids", "bits": 8},
            "setting bits = 8: sums over ids are sent as they are",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_flat(settings)


def test_a_catalogue_too_large_for_ids_is_refused_before_anything_is_written(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.recsys.closed_form.config.MAX_ITEMS", 23)
    with pytest.raises(InputError, match=r"features = 'ids': sums over 24 items do not fit"):
        open_run(tmp_path / "run", Dataset.open(toy), small_config(**CLOSED | IDS), resume=False)
    assert not (tmp_path / "run").exists()


def test_the_last_round_counts_candidates() -> None:
    def last_round(**settings: Any) -> int:
        return small_config(**settings).last_round

    assert last_round(method="fedrec", rounds=3) == 3
    assert last_round(**CLOSED) == 1 + 3 + 1
    assert last_round(**CLOSED, features="ids") == 1 + 3
    assert last_round(**HYBRID) == 2 + 1 + 3 + 1 + 1
    assert last_round(**HYBRID, held_out=1) == 2 + 1
    assert last_round(**HYBRID | {"refinements": 5}) == last_round(**HYBRID) + 5


# ---- real nodes


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("bits", "decays"), [(8, "0.8"), (32, "0.5,0.9")])
def test_supernodes_sum_what_one_process_sums(
    toy: Path, embeddings: Tensor, tmp_path: Path, bits: int, decays: str
) -> None:
    knobs: dict[str, Any] = HYBRID | {"nodes": 3, "bits": bits, "decays": decays, "clients_per_round": 12}
    with trial(toy, tmp_path, [10, 1, 1], 3, **knobs) as made:
        with made.running():
            pass
        assert (made.out / METRICS).exists(), made.story()
    finished(toy, tmp_path / "here", **HYBRID, nodes=1, bits=bits, decays=decays, clients_per_round=12)
    same_run(tmp_path / "here", made.out)
    assert len(load_nodes(made.out)) == 3
