"""What a node keeps: the private parts now and as the best round left them."""

import copy
import pickle

import pytest

from federation.keep import Keep


def after(rounds: list[tuple[int, int]]) -> Keep:
    """A keep that trained in such rounds, told the best one so far each time; user 7's part is the round's number."""
    keep = Keep()
    keep.start()
    for round, best in rounds:
        keep.train(round, best)[7] = round
    return keep


def test_the_parts_of_the_best_round_are_remembered() -> None:
    keep = after([(1, 0), (2, 1), (3, 2), (4, 2)])
    assert keep.at(4) == {7: 4}
    assert keep.at(2) == {7: 2}


def test_a_node_that_missed_rounds_remembers_what_it_had() -> None:
    """Rounds 2 and 3 asked others; round 3 was best."""
    keep = after([(1, 0), (4, 3)])
    assert keep.at(3) == {7: 1}
    assert keep.at(4) == keep.at(9) == {7: 4}


def test_parts_of_other_rounds_are_forgotten() -> None:
    with pytest.raises(ValueError, match="round 1 left are forgotten"):
        after([(1, 0), (2, 1), (3, 2)]).at(1)


def test_a_new_run_starts_with_nothing() -> None:
    keep = after([(1, 0), (2, 1)])
    keep.start()
    assert keep.train(1, 0) == {}


@pytest.mark.parametrize("round", [1, 2])
def test_rounds_go_forward(round: int) -> None:
    with pytest.raises(ValueError, match="not those of the round before"):
        after([(1, 0), (2, 1)]).train(round, 0)


def test_a_process_that_was_not_there_at_the_beginning_cannot_go_on() -> None:
    with pytest.raises(ValueError, match="not those of the round before"):
        Keep().train(5, 4)


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_keep_cannot_be_sent(send) -> None:
    with pytest.raises(TypeError, match="private"):
        send(Keep())
