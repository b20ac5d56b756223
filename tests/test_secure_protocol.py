"""The protocol of secure aggregation without messages: the sum, nodes that drop out at any stage, and a server that
asks for more than it may have."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedrec.data.errors import InputError
from fedrec.federation.secure_aggregation import node_session
from fedrec.federation.secure_aggregation.group import SMALLEST, Advertisement, Group, Question
from fedrec.federation.secure_aggregation.mask_stream import add_masks
from fedrec.federation.secure_aggregation.node_memory import NodeMemory
from fedrec.federation.secure_aggregation.secret_sharing import recover_secret
from fedrec.federation.secure_aggregation.signing import draw_identity, sign
from tests.support.masked_group import CONFIG, QUESTION, MaskedGroup, group_of

# ---- the sum


@pytest.mark.parametrize("nodes", [3, 4, 7])
def test_the_masks_cancel_in_the_sum(nodes: int) -> None:
    made = group_of(nodes)
    made.share()
    made.mask()
    made.attest()
    made.reveal()
    assert np.array_equal(made.collector.unmask(), made.sum_of(made.places))


STAGES = ["share", "mask", "attest", "reveal"]


@pytest.mark.parametrize("at", STAGES)
def test_nodes_can_drop_out_at_any_stage(at: str) -> None:
    """Before the masked sum a lost node is not in the result; after it, it is. Of six nodes four are enough."""
    made, lost = group_of(6), {1, 4}
    for stage in STAGES:
        getattr(made, stage)(lost if stage == at else ())
    counted = [place for place in made.places if at not in ("share", "mask") or place not in lost]
    assert np.array_equal(made.collector.unmask(), made.sum_of(counted))


def test_nodes_can_drop_out_at_every_stage() -> None:
    made = group_of(8, secure_threshold=0.51)  # 5 of 8
    made.share({0})
    made.mask({3})
    made.attest({5})
    made.reveal()
    assert np.array_equal(made.collector.unmask(), made.sum_of([1, 2, 4, 5, 6, 7]))


@pytest.mark.parametrize("at", ["share", "mask", "attest"])
def test_a_group_below_the_threshold_is_given_up(at: str) -> None:
    made = group_of(6)
    for stage in STAGES[: STAGES.index(at)]:
        getattr(made, stage)()
    with pytest.raises(ValueError, match=r"3 of 6 nodes are left, and secure_threshold = 0.66 needs 4"):
        getattr(made, at)({0, 1, 2})


def test_without_enough_shares_nothing_is_unmasked() -> None:
    made = group_of(6)
    made.share()
    made.mask()
    made.attest()
    made.reveal({0, 1, 2})
    with pytest.raises(ValueError, match="3 shares of the secret at place 0, and 4 are needed"):
        made.collector.unmask()


def test_a_cohort_below_the_smallest_number_of_clients_is_given_up() -> None:
    """A node refuses by itself: it does not share its keys."""
    made = MaskedGroup.of(group_of(4).numbers, replace(CONFIG, secure_clients=16), clients=3)
    with pytest.raises(ValueError, match=r"12 of 12 clients are left, and .* secure_clients = 16 need more"):
        made.share()


def test_the_share_of_clients_counts_as_that_of_nodes() -> None:
    """A large node that is lost takes too many clients with it."""
    identities = [draw_identity() for _ in range(4)]
    sessions = [node_session.begin(i, QUESTION, clients) for i, clients in zip(identities, [40, 5, 5, 5], strict=True)]
    group = Group.of(QUESTION, [session.advertisement for session in sessions])
    large = group.place_of(sessions[0].advertisement)
    group.check_cover([large, *({0, 1, 2, 3} - {large})][:3], CONFIG)
    with pytest.raises(ValueError, match="15 of 55 clients are left"):
        group.check_cover({0, 1, 2, 3} - {large}, CONFIG)


# ---- what the server sees


def test_a_masked_sum_looks_uniform_with_and_without_the_sum_in_it() -> None:
    """The control: what is not masked does not. A byte of uniform numbers has each of 256 values as often (χ² with 255
    degrees of freedom: 99.99 % of draws are below 346); bits of two masked copies of one sum agree in a half of places.
    """

    def chi_square(numbers: np.ndarray) -> float:
        counts = np.bincount(numbers.view(np.uint8), minlength=256)
        expected = counts.sum() / 256
        return float(((counts - expected) ** 2 / expected).sum())

    numbers = (np.arange(20_000, dtype=np.uint64) % 7) - np.uint64(3)
    first, second = (MaskedGroup.of([numbers] * 3) for _ in range(2))
    for made in (first, second):
        made.share()
        made.mask()
        assert chi_square(made.masked[0]) < 346
    assert chi_square(numbers) > 1_000_000
    agreeing = 1 - np.unpackbits((first.masked[0] ^ second.masked[0]).view(np.uint8)).mean()
    assert abs(agreeing - 0.5) < 0.005
    pair = first.masked[0] + first.masked[1]
    assert chi_square(pair) < 346  # a sum of two of three tells no more


# ---- a server that asks for more


def masked_to(stage: str, nodes: int = 6) -> MaskedGroup:
    made = group_of(nodes)
    for name in STAGES[: STAGES.index(stage)]:
        getattr(made, name)()
    return made


def test_no_node_gives_both_kinds_of_shares() -> None:
    """Asked with a second list of survivors, in which one is said to be lost, a node signs and reveals nothing."""
    made = masked_to("reveal")
    session = made.sessions[0]
    assert set(node_session.reveal(session, made.collector.signatures, CONFIG)) == set(made.places)
    with pytest.raises(ValueError, match="survivors are named twice"):
        node_session.attest(session, made.places[:-1], made.identities[0], CONFIG)


def test_different_lists_of_survivors_reveal_nothing() -> None:
    """Half of the nodes are told that the last one is lost, the others that it is there: nobody finds enough signatures
    of its own list, so that neither kind of share is given. The control: with one list they are."""
    made = masked_to("attest")
    lists = {place: made.places[:-1] if place < 3 else made.places for place in made.places}
    signatures = {}
    for place, survivors in lists.items():
        made.sessions[place], signatures[place] = node_session.attest(
            made.sessions[place], survivors, made.identities[place], CONFIG
        )
    for session in made.sessions:
        with pytest.raises(ValueError, match="3 nodes have signed these survivors, and 4 are needed"):
            node_session.reveal(session, signatures, CONFIG)
    honest = masked_to("attest")
    honest.attest()
    honest.reveal()
    assert np.array_equal(honest.collector.unmask(), honest.sum_of(honest.places))


def test_signatures_of_another_session_do_not_count() -> None:
    made, other = masked_to("reveal"), masked_to("reveal")
    with pytest.raises(ValueError, match="0 nodes have signed"):
        node_session.reveal(made.sessions[0], other.collector.signatures, CONFIG)


def test_one_node_more_than_it_may_be_asked_for_is_masked_alone_by_no_one() -> None:
    """Both kinds of shares of one node would open its sum: with seed and mask key the server takes all masks off. No
    node gives the second kind, and what the nodes gave is below the threshold for it."""
    made = masked_to("reveal")
    made.reveal()
    victim, threshold = 2, made.group.threshold(CONFIG)
    seeds = made.collector._shares[victim]
    assert recover_secret({x: seeds[x] for x in sorted(seeds)[:threshold]}) == made.sessions[victim].seed
    alone = made.masked[victim].copy()
    add_masks(alone, [(made.sessions[victim].seed, -1)])
    assert not np.array_equal(alone, made.numbers[victim])
    shared = node_session.shared_masks(made.sessions[victim].masking, made.group, victim, set(made.places) - {victim})
    add_masks(alone, [(key, -sign) for key, sign in shared])  # the control: the mask key would open it
    assert np.array_equal(alone, made.numbers[victim])


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([0, 1, 2], "3 of 6 nodes are left"),
        ([1, 2, 3, 4, 5], "survivors without this node"),
        ([0, 1, 2, 3, 9], "places that a group of this size has not"),
        ([0, 1, 1, 2, 3], "or one twice"),
    ],
)
def test_impossible_survivors_are_not_signed(places: list[int], said: str) -> None:
    made = masked_to("attest")
    with pytest.raises(ValueError, match=said):
        node_session.attest(made.sessions[0], places, made.identities[0], CONFIG)


def test_a_survivor_that_shared_no_keys_is_not_signed() -> None:
    made = group_of(6)
    made.share({5})
    made.mask()
    with pytest.raises(ValueError, match="with one that shared no keys"):
        node_session.attest(made.sessions[0], made.places, made.identities[0], CONFIG)


def test_nothing_is_done_out_of_turn() -> None:
    fresh, masked = masked_to("share").sessions[0], masked_to("attest")
    shared = masked_to("mask")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("before the keys were shared", lambda: node_session.mask(fresh, {}, np.zeros(1, np.uint64), CONFIG)),
        ("keys are shared twice", lambda: node_session.share_keys(shared.sessions[0], shared.group, CONFIG)),
        (
            "masked twice",
            lambda: node_session.mask(masked.sessions[0], masked.collector.sealed_for(0), masked.numbers[0], CONFIG),
        ),
        (
            "before a sum was masked",
            lambda: node_session.attest(shared.sessions[0], shared.places, shared.identities[0], CONFIG),
        ),
        ("0 nodes have signed", lambda: node_session.reveal(masked.sessions[0], {}, CONFIG)),
    ]
    for said, step in steps:
        with pytest.raises(ValueError, match=said):
            step()


def test_a_share_that_was_sealed_wrongly_is_left_out_and_the_sum_is_found() -> None:
    made = group_of(6)
    made.share()
    made.collector._sealed[5][0] = bytes(len(made.collector._sealed[5][0]))
    made.mask()
    made.attest()
    assert set(node_session.reveal(made.sessions[0], made.collector.signatures, CONFIG)) == set(made.places) - {5}
    made.reveal()
    assert np.array_equal(made.collector.unmask(), made.sum_of(made.places))


# ---- groups


def advertisements(nodes: int) -> list[Advertisement]:
    return [node_session.begin(draw_identity(), QUESTION, 1).advertisement for _ in range(nodes)]


def test_a_group_is_refused_if_it_is_small_double_or_not_signed() -> None:
    members = advertisements(4)
    assert Group.of(QUESTION, members).session == Group.of(QUESTION, members[::-1]).session
    others: list[tuple[str, Question, list[Advertisement]]] = [
        (f"a group of {SMALLEST - 1} nodes", QUESTION, members[: SMALLEST - 1]),
        ("two nodes have one identity key", QUESTION, [*members, members[0]]),
        ("has not signed", QUESTION, [*members[1:], replace(members[0], masking=b"m" * 32)]),
        ("has not signed", QUESTION, [*members[1:], replace(members[0], clients=9)]),
        ("has not signed", replace(QUESTION, round=2), members),
        ("has not signed", replace(QUESTION, kind="evaluate"), members),
    ]
    for said, question, some in others:
        with pytest.raises(ValueError, match=said):
            Group.of(question, some)


def test_a_node_of_another_version_of_the_masks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    members = advertisements(3)
    monkeypatch.setattr("fedrec.federation.secure_aggregation.group.PROTOCOL", "fedrec secure aggregation 1")
    (other,) = advertisements(1)
    monkeypatch.undo()
    assert len(Group.of(QUESTION, members)) == 3
    with pytest.raises(ValueError, match=f"keys that node {other.identity.hex()[:16]} has not signed"):
        Group.of(QUESTION, [*members, other])


def test_a_group_without_this_nodes_keys_is_refused() -> None:
    session = node_session.begin(draw_identity(), QUESTION, 1)
    with pytest.raises(ValueError, match="without this node, or with other keys"):
        node_session.share_keys(session, Group.of(QUESTION, advertisements(4)), CONFIG)


def test_a_threshold_is_more_than_a_half() -> None:
    thresholds = {n: Group.of(QUESTION, advertisements(n)).threshold(CONFIG) for n in (3, 4, 6, 10)}
    assert thresholds == {3: 2, 4: 3, 6: 4, 10: 7}
    assert Group.of(QUESTION, advertisements(4)).threshold(replace(CONFIG, secure_threshold=0.501)) == 3


# ---- a node's memory


def test_a_session_outlives_the_process(tmp_path: Path) -> None:
    """And with it what was given away: a process that was killed signs no second list either."""
    made, file = masked_to("attest"), tmp_path / "secure" / "part-0-of-1.json"
    NodeMemory(file).open_session(made.sessions[0])
    assert file.stat().st_mode & 0o777 == 0o600
    again = NodeMemory(file)
    assert again.session == made.sessions[0]
    session, signature = node_session.attest(again.session, made.places, made.identities[0], CONFIG)
    again.open_session(session)
    assert signature
    with pytest.raises(ValueError, match="survivors are named twice"):
        node_session.attest(NodeMemory(file).session, made.places[:-1], made.identities[0], CONFIG)
    assert NodeMemory(file).identity == again.identity


def begun(memory: NodeMemory, round: int, run: str = "0f" * 8, kind: str = "train") -> None:
    memory.open_session(node_session.begin(memory.identity, Question(run, round, kind), 1))


def test_a_round_that_was_revealed_is_not_answered_again(tmp_path: Path) -> None:
    """Nor is one before it, after a restart either; one that was given up is, and so is another run's."""
    file = tmp_path / "secure" / "part-0-of-1.json"
    memory = NodeMemory(file)
    begun(memory, 4)
    begun(memory, 4)
    memory.end_session(repeatable=False)
    with pytest.raises(ValueError, match="no session is under way"):
        _ = memory.session
    for round in (3, 4):
        with pytest.raises(ValueError, match=f"round {round} is asked for after round 4 was revealed"):
            begun(NodeMemory(file), round)
    begun(NodeMemory(file), 5)
    begun(NodeMemory(file), 4, kind="evaluate")
    begun(NodeMemory(file), 1, run="aa" * 8)


def test_questions_that_repeat_are_not_remembered() -> None:
    memory = NodeMemory()
    begun(memory, 4, kind="evaluate")
    memory.end_session(repeatable=True)
    begun(memory, 4, kind="evaluate")


def test_an_owner_can_name_the_nodes_that_it_knows(tmp_path: Path) -> None:
    """The attack: a server invents all other nodes, and so knows their masks. Without the list it is not noticed."""
    memory = NodeMemory(tmp_path / "secure" / "part-0-of-1.json")
    begun(memory, 1)
    own, others = memory.session.advertisement, advertisements(3)
    group = Group.of(QUESTION, [replace(own, signature=sign(memory.identity, own.signed_text(QUESTION))), *others])
    memory.check_known(group)
    known = tmp_path / "secure" / "known-nodes.txt"
    known.write_text("".join(f"{other.identity.hex()} # a neighbour\n" for other in others), "utf-8")
    memory.check_known(group)
    known.write_text(f"# those that I have met\n{others[0].identity.hex().upper()}\n", "utf-8")
    with pytest.raises(ValueError, match=r"is not in this node's known-nodes.txt"):
        memory.check_known(group)


def test_a_damaged_memory_says_so(tmp_path: Path) -> None:
    file = tmp_path / "part-0-of-1.json"
    file.write_text('{"identity": 3}', "utf-8")
    with pytest.raises(InputError, match=r"cannot be read .*restore it"):
        NodeMemory(file)


def test_keys_do_not_travel() -> None:
    with pytest.raises(TypeError, match="a node's keys are private"):
        pickle.dumps(NodeMemory())
