"""What a node keeps: the private parts as the last two rounds and the best one left them, in memory or in a file."""

import copy
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.errors import InputError
from fedrec.federation.client_state import ClientStateStore, state_file
from fedrec.federation.methods import METHODS
from fedrec.recsys.federated_baselines.method import PersonalTable, UserState

RUN = "a run"
SALTS = np.array([5, 2**64 - 1, 7], dtype=np.uint64)


def after(rounds: list[tuple[int, int]], keep: ClientStateStore | None = None) -> ClientStateStore:
    """A keep that trained in such rounds, told the best one so far each time; user 1's part is the round's number."""
    keep = keep or ClientStateStore()
    for round, best in rounds:
        with keep.training(RUN, round, best) as parts:
            parts[1] = round
    return keep


def test_the_parts_of_the_best_round_are_remembered() -> None:
    keep = after([(1, 0), (2, 1), (3, 2), (4, 2), (5, 2)])
    assert keep.at(RUN, 5) == {1: 5}
    assert keep.at(RUN, 4) == {1: 4}
    assert keep.at(RUN, 2) == {1: 2}


def test_a_node_that_missed_rounds_remembers_what_it_had() -> None:
    """Rounds 2 and 3 asked others; round 3 was best."""
    keep = after([(1, 0), (4, 3), (5, 3)])
    assert keep.at(RUN, 3) == {1: 1}
    assert keep.at(RUN, 5) == keep.at(RUN, 9) == {1: 5}


def test_parts_of_other_rounds_are_forgotten() -> None:
    with pytest.raises(ValueError, match="round 1 left are forgotten"):
        after([(1, 0), (2, 1), (3, 2), (4, 2)]).at(RUN, 1)


def test_another_run_starts_with_nothing() -> None:
    keep = after([(1, 0), (2, 1)])
    assert keep.at("another", 2) == {}
    with keep.training("another", 1, 0) as parts:
        assert parts == {}


def test_a_round_that_the_server_lost_is_trained_again_from_where_it_began() -> None:
    keep = after([(1, 0), (2, 1)])
    with keep.training(RUN, 2, 1) as parts:
        assert parts == {1: 1}
        parts[1] = 20
    assert (keep.at(RUN, 1), keep.at(RUN, 2)) == ({1: 1}, {1: 20})


def test_a_round_before_that_cannot_be_trained_again() -> None:
    with pytest.raises(ValueError, match="round 1 is asked for after round 3"):
        after([(1, 0), (2, 1), (3, 1), (1, 0)])


def test_a_round_that_fails_changes_nothing() -> None:
    keep = after([(1, 0)])
    with pytest.raises(ZeroDivisionError), keep.training(RUN, 2, 1) as parts:
        parts[1] = 1 / 0
    assert keep.at(RUN, 2) == {1: 1}


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_keep_cannot_be_sent(send) -> None:
    with pytest.raises(TypeError, match="private"):
        send(ClientStateStore())


def test_it_outlives_the_process_in_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    """And each user finds its part by its salt, though the numbers shift when a user comes before it."""
    file = state_file(tmp_path, 0, 1)
    kept = UserState(torch.tensor([1.0, 2.0]), PersonalTable(torch.ones(3, 2), torch.tensor([1]), torch.tensor([0.5])))
    with ClientStateStore(file, SALTS).training(RUN, 3, 0) as parts:
        parts[0], parts[1] = UserState(torch.tensor([3.0])), kept
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    assert list(file.parent.iterdir()) == [file]
    again = ClientStateStore(file, np.array([9, 5, 2**64 - 1], dtype=np.uint64), state_types("pfedrec")).at(RUN, 3)
    assert again.keys() == {1, 2}
    assert torch.equal(again[1].user_vector, torch.tensor([3.0]))
    assert again[1].personal is None
    for was, now in zip(
        (kept.user_vector, *(kept.personal or ())), (again[2].user_vector, *again[2].personal), strict=True
    ):
        assert torch.equal(was, now)


def test_a_file_of_version_0_1_opens(tmp_path: Path) -> None:
    """Its classes had other names. It was written there with the salts of users 0 and 1, after round 1."""
    file = tmp_path / "client-state.pt"
    shutil.copy(Path(__file__).parent / "old" / file.name, file)
    states = ClientStateStore(file, SALTS, state_types("pfedrec")).at(RUN, 1)
    assert states[0].user_vector.tolist() == [1.0, 2.0, 3.0]
    assert states[1].personal.table.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (states[1].personal.rows.tolist(), states[1].personal.score_delta.tolist()) == ([2], [0.5])


def state_types(method: str) -> list[Any]:
    types = METHODS[method].state_types
    assert types
    return types()


def test_in_the_file_are_the_round_before_and_the_best_one_too(tmp_path: Path) -> None:
    file = state_file(tmp_path, 0, 1)
    for round, best in [(1, 0), (2, 1), (3, 1), (4, 1)]:  # each in another process
        after([(round, best)], ClientStateStore(file, SALTS))
    keep = ClientStateStore(file, SALTS)
    assert [keep.at(RUN, round) for round in (1, 3, 4)] == [{1: 1}, {1: 3}, {1: 4}]


def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = state_file(tmp_path, 0, 1)
    after([(1, 0)], ClientStateStore(file, SALTS))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"part-0-of-1.pt cannot be read .* remove it"):
        ClientStateStore(file, SALTS)
