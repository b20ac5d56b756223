"""Sums that subtract: users are forgotten, and histories renewed, with the bytes of a run that never had the others."""

import json
import shutil
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.node_folders import partition_dataset, write_node_folder
from fedrec.data.partition import UserPartition
from fedrec.data.shard import Shard
from fedrec.federation import checkpoint, revision
from fedrec.federation.checkpoint import STATE, State
from fedrec.federation.exposure_rounds import describe
from fedrec.federation.members import Members, marks_of
from fedrec.federation.run_statistics import RunSums, load_nodes, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.summand import Summand
from fedrec.recsys.closed_form.statistics import GRAM
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.run import Run
from fedrec.training import train
from tests.support.cli import Fedrec, is_refused
from tests.support.closed_form import CLOSED, HYBRID

KINDS = {
    "text": CLOSED,
    "ids": CLOSED | {"features": "ids"},
    "reverse": CLOSED | {"reverse": 0.5},
    "a pull": CLOSED | {"priors": "3"},
    "two decays": CLOSED | {"decays": "0.5,0.9"},
    "ids of two decays": CLOSED | {"features": "ids", "decays": "0.5,0.9"},
    "bits": CLOSED | {"bits": 4},
    "to serve": CLOSED | {"held_out": 0},
    "hybrid": HYBRID,
}
FORGOTTEN, LAST = "person-11", 11
"""The last user of the toy world, so that the others are dealt to the same nodes without them."""


@pytest.fixture(autouse=True)
def _one_run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have one id, so that their marks can be compared."""
    monkeypatch.setattr(checkpoint, "secrets", SimpleNamespace(token_hex=lambda count: "ab" * count))


@pytest.fixture(scope="module")
def without(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world without one user."""
    others = UserPartition("all but one", np.arange(LAST))
    return partition_dataset(
        Dataset.open(toy), tmp_path_factory.mktemp("without") / "split", [others], keep_salts=True
    )[0]


def trained(data: Path, out: Path, **settings: Any) -> Run:
    """A run that bounds exposure as it is by default: not of a closed form alone."""
    default: dict[str, Any] = {"exposure_base": "auto"}
    return train(Dataset.open(data), out=out, progress=False, **CLOSED | settings | default)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def state_of(folder: Path) -> State:
    state = State.load(folder)
    assert state
    return state


# ---- forget


@pytest.mark.parametrize("kind", KINDS)
def test_forgetting_gives_the_bytes_of_a_run_without_the_user(
    toy: Path, without: Path, tmp_path: Path, kind: str
) -> None:
    with_user = trained(toy, tmp_path / "with", **KINDS[kind])
    before = split_adapter(state_of(with_user.folder).best)
    forgotten = with_user.forget([FORGOTTEN], Dataset.open(toy))
    trained(without, tmp_path / "without", **KINDS[kind])
    towers, ours = split_adapter(state_of(tmp_path / "with").best)
    _, theirs = split_adapter(state_of(tmp_path / "without").best)
    assert not torch.equal(before[1]["closed.weights"], ours["closed.weights"])
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in towers.items())
    found, wanted = (bytes_of(tmp_path / name / "statistics") for name in ("with", "without"))
    assert found == wanted
    assert len(found) == 3 + 2
    note = {"towers": "unchanged"} if kind == "hybrid" else {}
    assert forgotten.card["revisions"] == [{"kind": "forget", "users": 1} | note]


def test_what_is_left_of_a_user_in_the_run_is_what_was_measured(toy: Path, without: Path, tmp_path: Path) -> None:
    """File by file, against a run that never had the user: only the listed ones differ, and only so far."""
    ours = trained(toy, tmp_path / "with").forget([FORGOTTEN], Dataset.open(toy))
    theirs = trained(without, tmp_path / "without")
    found, wanted = bytes_of(ours.folder), bytes_of(theirs.folder)
    assert found.keys() == wanted.keys()
    differing = {name for name in found if found[name] != wanted[name]}
    assert differing <= {"card.json", "metrics.json", "rounds.jsonl", STATE}
    # the card
    assert ours.card["model_version"] == theirs.card["model_version"]
    other = {name for name in ours.card if ours.card[name] != theirs.card.get(name)}
    assert other == {"data", "revisions"}
    assert ours.card["exposure"] == {"base": 0.0, "reason": "closed-form trains no towers"}
    assert describe(ours.card["exposure"]) == "Exposure is not bounded: closed-form trains no towers."
    assert {name for name, value in ours.card["data"].items() if value != theirs.card["data"][name]} == {"histories"}
    # the checkpoint
    tensors = [load_file(run.folder / STATE) for run in (ours, theirs)]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    numbers = [_numbers(run.folder) for run in (ours, theirs)]
    assert {name for name in numbers[0] if numbers[0][name] != numbers[1][name]} <= {"best_score", "roster", "trials"}
    assert (numbers[0]["roster"], numbers[0]["trials"]) == ("", [])


def _numbers(folder: Path) -> dict[str, Any]:
    with safe_open(folder / STATE, framework="pt") as file:
        return json.loads(file.metadata()["numbers"])


def test_users_of_several_nodes_are_forgotten_together_and_in_any_order(toy: Path, tmp_path: Path) -> None:
    together = trained(toy, tmp_path / "together").forget(["person-02", "person-04", "person-09"], Dataset.open(toy))
    after = trained(toy, tmp_path / "after")
    for user in ("person-09", "person-02", "person-04"):
        after = after.forget([user], Dataset.open(toy))
    files = bytes_of(together.folder), bytes_of(after.folder)
    assert {name for name in files[0] if files[0][name] != files[1][name]} == {"card.json", "rounds.jsonl"}
    assert together.card["fingerprints"] == after.card["fingerprints"]
    assert len(after.card["revisions"]) == 3


def test_everybody_can_be_forgotten(toy: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(toy)
    run = trained(toy, tmp_path / "run").forget(dataset.users.to_list(), dataset)
    assert not state_of(run.folder).best["closed.weights"].any()
    assert load_total(run.folder).users == 0
    assert len(Members.load(run.folder / "statistics" / "members.safetensors")) == 0


def test_a_finished_run_still_resumes_after_forgetting(toy: Path, tmp_path: Path) -> None:
    run = trained(toy, tmp_path / "run").forget([FORGOTTEN], Dataset.open(toy))
    version = run.card["model_version"]
    again = train(Dataset.open(toy), out=run.folder, resume=True, progress=False)
    assert again.card["model_version"] == version


def test_an_interruption_leaves_the_run_as_it_was(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(toy, tmp_path / "runs" / "run")
    before = bytes_of(run.folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(revision, "write_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.forget([FORGOTTEN], Dataset.open(toy))
    assert bytes_of(run.folder) == before
    assert [path.name for path in run.folder.parent.iterdir()] == ["run"]


# ---- who is refused


def test_who_is_not_in_the_sums_is_refused_and_nothing_changes(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    assert fedrec("forget", run.folder, "--data", toy, "--user", FORGOTTEN).code == 0
    before = bytes_of(run.folder)
    forget = ("forget", run.folder, "--data", toy)
    is_refused(fedrec(*forget, "--user", FORGOTTEN), "--user", FORGOTTEN, "forgotten already")
    is_refused(fedrec(*forget, "--user", "nobody"), "nobody", "not on this node")
    is_refused(fedrec(*forget, "--user", "person-01", "--user", "person-01"), "--user", "twice")
    is_refused(fedrec(*forget, "--user", "person-01", "--user", FORGOTTEN), FORGOTTEN)
    is_refused(fedrec(*forget), "--user", "--summand")
    is_refused(fedrec(*forget, "--user", "person-01", "--summand", "x"), "--user", "--summand")
    is_refused(fedrec("forget", tmp_path / "none", "--user", "person-01"), "not a run")
    assert bytes_of(run.folder) == before


def test_a_user_with_held_out_items_only_is_refused(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    short = cut(toy, tmp_path / "short", {0: 3})
    run = trained(short, tmp_path / "run")
    refused = fedrec("forget", run.folder, "--data", short, "--user", "person-00")
    is_refused(refused, "person-00", "no example in the sums")


def test_other_histories_than_were_summed_are_refused(toy: Path, without: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    shorter = cut(toy, tmp_path / "shorter", {5: 5})
    is_refused(fedrec("forget", run.folder, "--data", shorter, "--user", "person-01"), "--other-histories")
    done = fedrec("forget", run.folder, "--data", without, "--user", "person-01", "--other-histories")
    assert done.code == 0, done.err


def test_runs_without_sums_are_refused(toy: Path, run: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    for command in ("forget", "contribute", "update"):
        more = ("--user", "person-01") if command == "forget" else ()
        before = ("--before", toy) if command == "update" else ()
        is_refused(fedrec(command, run, "--data", toy, *more, *before), "keeps no sums", "closed-form")
    closed = trained(toy, tmp_path / "run")
    (closed.folder / "statistics" / "members.safetensors").write_bytes(b"nothing")
    is_refused(fedrec("forget", closed.folder, "--data", toy, "--user", FORGOTTEN), "members.safetensors")


def test_an_unfinished_run_is_refused(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    card = json.loads((run.folder / "card.json").read_text())
    (run.folder / "card.json").write_text(json.dumps(card | {"finished": False}))
    is_refused(fedrec("forget", run.folder, "--data", toy, "--user", FORGOTTEN), "not finished")


# ---- in one message


@pytest.fixture
def withdrawn(toy: Path, tmp_path: Path, fedrec: Fedrec) -> tuple[Run, Path]:
    """A run, and the summand of a user that a node has written with nothing of the run but its card."""
    run = trained(toy, tmp_path / "run")
    node = partition_dataset(
        Dataset.open(toy), tmp_path / "split", [UserPartition("two", np.array([LAST, 2]))], keep_salts=True
    )[0]
    (tmp_path / "card").mkdir()
    shutil.copy(run.folder / "card.json", tmp_path / "card")
    out = tmp_path / "one.safetensors"
    done = fedrec("node", "withdraw", tmp_path / "card", "--data", node, "--user", FORGOTTEN, "--out", out)
    assert done.code == 0, done.err
    return run, out


def test_a_nodes_message_forgets_like_its_folder(
    withdrawn: tuple[Run, Path], toy: Path, tmp_path: Path, fedrec: Fedrec
) -> None:
    run, path = withdrawn
    assert path.stat().st_mode & 0o777 == 0o600
    server = tmp_path / "split" / "server"
    done = fedrec("forget", run.folder, "--data", server, "--summand", path, "--json")
    assert done.answer["forgotten"] == 1
    direct = trained(toy, tmp_path / "direct").forget([FORGOTTEN], Dataset.open(toy))
    assert done.answer["model_version"] == direct.card["model_version"]
    for folder in (run.folder, direct.folder):
        (folder / "rounds.jsonl").unlink()  # it tells how long each took
    assert bytes_of(run.folder) == bytes_of(direct.folder)
    is_refused(fedrec("forget", run.folder, "--data", server, "--summand", path), "forgotten already")


Lie = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]
LIES: dict[str, tuple[Lie, str]] = {
    "off the grid": (lambda tensors, about: tensors[GRAM].add_(1e-9), "whole multiples"),
    "negative": (lambda tensors, about: tensors[GRAM].neg_(), "diagonal"),
    "too large": (lambda tensors, about: tensors[GRAM].mul_(1e9), "at most"),
    "not finite": (lambda tensors, about: tensors[GRAM].fill_(torch.nan), "not finite"),
    "other shape": (lambda tensors, about: tensors.update(gram=torch.zeros(3)), "shape"),
    "other tensors": (lambda tensors, about: tensors.update(more=torch.zeros(3)), "other tensors"),
    "more than was given": (lambda tensors, about: tensors[GRAM].mul_(64), "left after the subtraction"),
    "a stranger": (lambda tensors, about: tensors["tickets"].add_(1), "not in the sums"),
    "no tickets": (lambda tensors, about: tensors.pop("tickets"), "cannot be read"),
    "other settings": (lambda tensors, about: about.update(settings="0"), "other settings"),
    "more users": (lambda tensors, about: about.update(users=2), "do not fit"),
    "more learners": (lambda tensors, about: about.update(learners=2), "do not fit"),
    "fewer learners": (lambda tensors, about: about.update(learners=0), "at most"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_a_message_is_refused(
    withdrawn: tuple[Run, Path], tmp_path: Path, toy: Path, fedrec: Fedrec, lie: str
) -> None:
    run, path = withdrawn
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["summand"])
    tensors = {name: tensor.double() if name == GRAM else tensor for name, tensor in load_file(path).items()}
    tell, words = LIES[lie]
    tell(tensors, about)
    save_file(tensors, path, metadata={"summand": json.dumps(about)})
    before = bytes_of(run.folder)
    is_refused(fedrec("forget", run.folder, "--data", toy, "--summand", path), words)
    assert bytes_of(run.folder) == before


def test_files_that_are_no_message_are_refused(withdrawn: tuple[Run, Path], toy: Path, fedrec: Fedrec) -> None:
    run, path = withdrawn
    forget = ("forget", run.folder, "--data", toy, "--summand")
    path.write_bytes(b"nothing")
    is_refused(fedrec(*forget, path), "--summand", "cannot be read")
    path.unlink()
    is_refused(fedrec(*forget, path), "--summand", "not there")
    path.mkdir()
    is_refused(fedrec(*forget, path), "--summand", "a folder")


def test_a_summand_of_two_nodes_is_refused(toy: Path, tmp_path: Path) -> None:
    run = trained(toy, tmp_path / "run")
    setup = TrainingSetup(Dataset.open(toy), run.config)
    both = Summand.of(setup, setup.dataset.shard, np.array([0, 1]))
    with pytest.raises(InputError, match="several nodes"):
        revision.OpenRun.load(run.folder, setup).subtract(both)


# ---- members


def test_marks_are_of_one_run_and_no_tickets() -> None:
    tickets = np.array([1, 2**64 - 1, 77], dtype=np.uint64)
    ours, theirs = marks_of("ab", tickets), marks_of("cd", tickets)
    assert len(set(ours) | set(theirs) | set(tickets)) == 9
    members = Members.of(ours, np.array([3, 2**64 - 1, 3], dtype=np.uint64))
    assert (np.diff(members.marks.astype(object)) > 0).all()
    places = members.find(np.append(ours, theirs))
    assert members.nodes[places[:3]].tolist() == [3, 2**64 - 1, 3]
    assert places[3:].tolist() == [-1, -1, -1]
    assert members.without(places[1:2]).find(ours).tolist().count(-1) == 1
    assert Members.of(ours[:0], ours[:0]).find(ours).tolist() == [-1, -1, -1]


# ---- update


def cut(toy: Path, folder: Path, lengths: dict[int, int], users: list[int] | None = None) -> Path:
    """The toy world with only the first events of some users, and only some users."""
    dataset, rows = Dataset.open(toy), np.arange(12) if users is None else np.array(users)
    shard = dataset.shard
    ends = np.array([shard.starts[u] + lengths.get(u, shard.ends[u] - shard.starts[u]) for u in range(12)])
    changed = Shard(shard.starts, ends, shard.items, shard.salts).select(rows)
    folder.mkdir()
    write_node_folder(dataset, folder, changed, dataset.users[rows])
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_gives_the_bytes_of_a_fit_from_scratch(toy: Path, tmp_path: Path, kind: str) -> None:
    """Three users have new events, two have joined, one is gone."""
    old = cut(toy, tmp_path / "old", {1: 4, 5: 5, 7: 6}, users=[0, 1, 2, 4, 5, 6, 7, 8, 9, 10])
    new = cut(toy, tmp_path / "new", {}, users=[0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11])
    run = trained(old, tmp_path / "run", **KINDS[kind])
    updated = run.update(Dataset.open(new), Dataset.open(old))
    trained(new, tmp_path / "scratch", **KINDS[kind])
    _, ours = split_adapter(state_of(tmp_path / "run").best)
    _, theirs = split_adapter(state_of(tmp_path / "scratch").best)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    found, wanted = RunSums.load(tmp_path / "run"), RunSums.load(tmp_path / "scratch")
    assert all(torch.equal(tensor, wanted.total.statistics[name]) for name, tensor in found.total.statistics.items())
    assert (found.total.users, found.total.learners) == (wanted.total.users, wanted.total.learners)
    assert np.array_equal(found.members.marks, wanted.members.marks)
    nodes = reduce(add, load_nodes(tmp_path / "run").values())
    assert all(torch.equal(tensor, nodes.statistics[name]) for name, tensor in found.total.statistics.items())
    note = {"kind": "update", "changed": 3, "joined": 2, "gone": 1, "left_out": 0, "new_items": 0}
    if kind == "to serve":
        assert updated.card["revisions"][0] == note
    earlier = [run.card["data"]["histories"]] if kind == "hybrid" else None
    assert updated.card["data"].get("earlier_histories") == earlier
    assert updated.card["data"]["histories"] != run.card["data"]["histories"]


def test_an_update_brings_nobody_back_who_was_forgotten(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    old = cut(toy, tmp_path / "old", {1: 4, 11: 5})
    run = trained(old, tmp_path / "run").forget([FORGOTTEN], Dataset.open(old))
    update = ("update", run.folder, "--data", toy, "--before", old)
    counts = fedrec(*update, "--json").answer
    assert {name: counts[name] for name in ("changed", "joined", "gone", "left_out")} == {
        "changed": 1,
        "joined": 0,
        "gone": 0,
        "left_out": 1,
    }
    others = trained(cut(toy, tmp_path / "others", {}, users=list(range(11))), tmp_path / "scratch")
    assert counts["model_version"] == others.card["model_version"]


def test_updates_that_cannot_be_are_refused(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    before = bytes_of(run.folder)
    shorter = cut(toy, tmp_path / "shorter", {5: 5})
    update = ("update", run.folder)
    is_refused(fedrec(*update, "--data", toy, "--before", toy), "--data", "in the sums already")
    is_refused(fedrec(*update, "--data", shorter, "--before", shorter), "--before", "--other-histories")
    is_refused(fedrec(*update, "--data", shorter), "--before", "not there")
    is_refused(fedrec(*update, "--data", tmp_path / "none", "--before", toy), "none")
    assert bytes_of(run.folder) == before
