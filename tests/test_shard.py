"""The private histories: on disk, dealt to nodes, cut into cohorts and blocks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.errors import InputError
from fedrec.data.randomness import DrawKey, salt_of, ticket_of
from fedrec.data.shard import FOLDER, NO_ITEM, Cohort, Shard
from tests.support.toy_world import Histories, events_by_salt, shard_of

HISTORIES = st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=40), max_size=12)
quick = settings(max_examples=60, deadline=None)


def cohort_of(histories: Histories, length: int) -> Cohort:
    return Cohort.from_histories(
        [np.array(history, dtype=np.int64) for history in histories], shard_of(histories).salts, length
    )


# ---- on disk


THREE = [[5, 6, 7], [1, 2, 3, 4], [9, 8, 7, 6, 5]]


def test_saved_and_loaded(tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    shard = Shard.load(tmp_path)
    assert (shard.starts.tolist(), shard.ends.tolist()) == ([0, 3, 7], [3, 7, 12])
    assert shard.items.tolist() == [5, 6, 7, 1, 2, 3, 4, 9, 8, 7, 6, 5]
    assert shard.salts.tolist() == [salt_of("u0"), salt_of("u1"), salt_of("u2")]
    assert (shard.starts.dtype, shard.items.dtype, shard.salts.dtype) == (np.int64, np.int32, np.uint64)
    assert len(shard) == 3
    assert shard.history(1).tolist() == [1, 2, 3]
    assert shard.held_out([2, 0], "test").tolist() == [5, 7]
    assert shard.held_out([2, 0], "validation").tolist() == [6, 6]


@quick
@given(HISTORIES, st.sampled_from(["train", "validation", "test"]), st.integers(1, 3), st.integers(0, 2))
def test_the_events_of_a_split_are_the_histories_it_may_read(
    histories: Histories, split: str, parts: int, ranked: int
) -> None:
    """Also where some users, here those after the first few, only train."""
    only_train = [[*history[:-2], NO_ITEM, NO_ITEM] for history in histories[ranked:]]
    shard = shard_of([*histories[:ranked], *only_train]).part(0, parts)
    users, items = shard.events(split)
    assert users.tolist() == [user for user in range(len(shard)) for _ in shard.history(user, split)]
    assert items.tolist() == [item for user in range(len(shard)) for item in shard.history(user, split)]


def test_a_shard_larger_than_any_memory_opens_and_is_read(tmp_path: Path) -> None:
    """A file of a terabyte, most of it a hole: whatever reads all of it does not come back."""
    events = 2**38
    shard_of(THREE).save(tmp_path)
    items = np.lib.format.open_memmap(tmp_path / FOLDER / "items.npy", mode="w+", dtype=np.int32, shape=(events,))
    items[-5:] = [9, 8, 7, 6, 5]
    np.save(tmp_path / FOLDER / "starts.npy", np.array([0, 3, events - 5, events]))
    part = Shard.load(tmp_path).part(0, 2)
    assert part.training_windows([0, 1], 3, 0, 1).items[:, 0].tolist() == [[0, 0, 0], [9, 8, 7]]
    assert part.history(1).tolist() == [9, 8, 7, 6]
    assert part.held_out([0, 1], "test").tolist() == [0, 5]


def test_a_loaded_shard_cannot_be_written_to(tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        Shard.load(tmp_path).items[0] = 1


def test_a_part_can_be_saved_as_a_shard_of_its_own(tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path / "all")
    Shard.load(tmp_path / "all").part(0, 2).save(tmp_path / "part")
    assert events_by_salt(Shard.load(tmp_path / "part")) == {salt_of("u0"): [5, 6, 7], salt_of("u2"): [9, 8, 7, 6, 5]}


@pytest.mark.parametrize("name", ["starts", "items", "salts"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    (tmp_path / FOLDER / f"{name}.npy").unlink()
    with pytest.raises(InputError, match=rf"{name}\.npy is missing; prepare the data again"):
        Shard.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard/starts\.npy is missing"):
        Shard.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["starts", "items", "salts"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all", slice(100), slice(-1)], ids=str)
def test_a_damaged_file_is_named(name: str, content: bytes | slice, tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    path = tmp_path / FOLDER / f"{name}.npy"
    path.write_bytes(path.read_bytes()[content] if isinstance(content, slice) else content)
    with pytest.raises(InputError, match=rf"{name}\.npy cannot be read .*; prepare the data again"):
        Shard.load(tmp_path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    np.save(tmp_path / FOLDER / "items.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"items\.npy cannot be read"):
        Shard.load(tmp_path)


@pytest.mark.parametrize("name", ["starts", "items", "salts"])
def test_files_of_different_shards_are_refused(name: str, tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path / "one")
    shard_of(THREE[:2]).save(tmp_path / "two")
    file = f"{FOLDER}/{name}.npy"
    (tmp_path / "two" / file).replace(tmp_path / "one" / file)
    with pytest.raises(InputError, match="do not belong together; prepare the data again"):
        Shard.load(tmp_path / "one")


# ---- dealt to nodes


def test_parts_are_dealt_like_cards() -> None:
    shard = shard_of([[user] * (user + 3) for user in range(5)])
    parts = [shard.part(part, 2) for part in range(2)]
    assert [list(events_by_salt(part).values()) for part in parts] == [[[0] * 3, [2] * 5, [4] * 7], [[1] * 4, [3] * 6]]


def test_a_part_is_a_view_of_users(tmp_path: Path) -> None:
    shard_of(THREE).save(tmp_path)
    shard = Shard.load(tmp_path)
    for part in (shard.part(1, 2), shard.part(0, 2).part(1, 2)):
        assert part.items is shard.items
        assert np.shares_memory(part.starts, shard.starts)
        assert np.shares_memory(part.ends, shard.ends)
        assert np.shares_memory(part.salts, shard.salts)


def test_a_part_of_a_part_is_dealt_from_it() -> None:
    shard = shard_of([[user] * 3 for user in range(7)])
    assert list(events_by_salt(shard.part(1, 2).part(1, 2)).values()) == [[3] * 3]


@quick
@given(histories=HISTORIES, parts=st.integers(1, 15))
def test_parts_hold_everyone_once_with_all_their_events(histories: Histories, parts: int) -> None:
    shard = shard_of(histories)
    dealt = [shard.part(part, parts) for part in range(parts)]
    assert sum(len(part) for part in dealt) == len(shard)
    assert {salt: events for part in dealt for salt, events in events_by_salt(part).items()} == events_by_salt(shard)
    assert max(len(part) for part in dealt) - min(len(part) for part in dealt) <= 1


@quick
@given(histories=HISTORIES, parts=st.integers(1, 15))
def test_a_user_reads_the_same_on_any_part(histories: Histories, parts: int) -> None:
    shard = shard_of(histories)
    for user in range(len(shard)):
        part, place = shard.part(user % parts, parts), user // parts
        assert part.salts[place] == shard.salts[user]
        for split in ("train", "validation", "test"):
            assert part.history(place, split).tolist() == shard.history(user, split).tolist()
            assert part.held_out([place], split) == shard.held_out([user], split)


@pytest.mark.parametrize(("part", "parts"), [(-1, 3), (3, 3), (0, 0), (0, -1)])
def test_a_part_that_does_not_exist_is_refused(part: int, parts: int) -> None:
    with pytest.raises(InputError, match=f"part {part} of {parts} does not exist"):
        shard_of(THREE).part(part, parts)


# ---- cohorts


def test_histories_are_aligned_at_the_right() -> None:
    cohort = cohort_of([[1, 2], [], [3, 4, 5, 6, 7]], length=4)
    assert cohort.items.tolist() == [[[0, 0, 1, 2]], [[0, 0, 0, 0]], [[4, 5, 6, 7]]]
    assert cohort.mask.astype(int).tolist() == [[[0, 0, 1, 1]], [[0, 0, 0, 0]], [[1, 1, 1, 1]]]
    assert cohort.salts.tolist() == [salt_of("u0"), salt_of("u1"), salt_of("u2")]
    assert len(cohort) == 3


@quick
@given(
    histories=st.lists(st.lists(st.integers(0, 99), max_size=40), max_size=12),
    length=st.integers(1, 45),
)
def test_a_cohort_holds_the_last_events_of_each_history(histories: Histories, length: int) -> None:
    cohort = cohort_of(histories, length)
    assert cohort.items.shape == cohort.mask.shape == (len(histories), 1, length)
    assert cohort.items.dtype == np.int64
    for client, history in enumerate(histories):
        kept = history[-length:]
        assert cohort.items[client, 0].tolist() == [0] * (length - len(kept)) + kept
        assert cohort.mask[client, 0].tolist() == [False] * (length - len(kept)) + [True] * len(kept)


def test_a_cohort_for_a_smaller_catalogue_is_refused() -> None:
    cohort = cohort_of([[1, 2], [3, 4, 9]], length=3)
    assert cohort.check_rows(10) is cohort
    with pytest.raises(InputError, match="name items that the catalogue lacks; prepare the data again"):
        cohort.check_rows(9)
    with pytest.raises(InputError, match="the catalogue lacks"):
        cohort_of([[1, -1]], length=3).check_rows(9)
    assert len(cohort_of([], length=3).check_rows(0)) == 0


def test_pooled_clients_are_the_examples_of_one() -> None:
    pooled = cohort_of([[1, 2], [3, 4, 5]], length=3).pooled
    assert pooled.items.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert pooled.mask.astype(int).tolist() == [[[0, 1, 1], [1, 1, 1]]]
    assert len(pooled) == len(pooled.salts) == 1


# ---- blocks


@pytest.mark.parametrize(
    ("events", "padded"), [(0, 1), (1, 9), (8, 9), (9, 17), (16, 17), (17, 25), (24, 25), (25, 30), (30, 30), (99, 30)]
)
def test_padding_is_to_the_next_eight_and_one(events: int, padded: int) -> None:
    ((clients, block),) = cohort_of([list(range(events))], length=30).blocks(1000, 4)
    assert clients.tolist() == [0]
    assert block.items.shape == block.mask.shape == (1, 1, padded)


def test_blocks_gather_clients_of_like_length() -> None:
    blocks = list(cohort_of([[1] * 3, [2] * 12, [3] * 5, [4] * 8, [5] * 9], length=20).blocks(1000, 2))
    assert [clients.tolist() for clients, _ in blocks] == [[1, 4], [0, 2], [3]]
    assert [block.items.shape for _, block in blocks] == [(2, 1, 17), (2, 1, 9), (1, 1, 9)]


@quick
@given(
    histories=st.lists(st.lists(st.integers(0, 99), max_size=40), max_size=12),
    length=st.integers(1, 45),
    events=st.integers(1, 200),
    size=st.integers(1, 14),
)
def test_blocks_hold_every_client_once_as_it_is_alone(
    histories: Histories, length: int, events: int, size: int
) -> None:
    """No block is too large, no event is lost, and a client's rows do not depend on its company."""
    seen: list[int] = []
    for clients, block in cohort_of(histories, length).blocks(events, size):
        assert 1 <= len(clients) == len(block) <= size
        assert len(block) == 1 or block.items.size <= events
        seen += clients.tolist()
        for place, client in enumerate(clients):
            items, mask = block.items[place], block.mask[place]
            assert items[mask].tolist() == histories[client][-length:]
            assert block.salts[place] == salt_of(f"u{client}")
            ((_, alone),) = cohort_of([histories[client]], length).blocks(events, size)
            assert np.array_equal(items, alone.items[0])
            assert np.array_equal(mask, alone.mask[0])
    assert sorted(seen) == list(range(len(histories)))


def test_a_block_is_as_long_as_the_longest_example_of_its_clients() -> None:
    ((_, block),) = cohort_of([[1], [2] * 10], length=20).pooled.blocks(1000, 1)
    assert block.items.shape == (1, 2, 17)
    assert block.mask.sum(-1).tolist() == [[1, 10]]


# ---- crops


LONG = [list(range(100 * user, 100 * user + 60)) for user in range(5)]
"""Five users of 60 events, 58 to train on; an event tells whose it is and when."""


@quick
@given(histories=HISTORIES, length=st.integers(1, 45), seed=st.integers(0, 2**32), round=st.integers(0, 10**6))
def test_crops_are_windows_of_the_training_events(histories: Histories, length: int, seed: int, round: int) -> None:
    timed = [list(range(len(history))) for history in histories]
    crops = shard_of(timed).training_windows(range(len(timed)), length, seed, round)
    for client, history in enumerate(timed):
        window = crops.items[client][crops.mask[client]].tolist()
        assert len(window) == min(length, len(history) - 2)
        assert window == list(range(window[0], window[0] + len(window)))
        assert window[-1] < len(history) - 2


@quick
@given(
    lengths=st.lists(st.integers(3, 60), min_size=1, max_size=8),
    parts=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    round=st.integers(0, 10**6),
)
def test_a_crop_is_the_same_on_any_part(lengths: list[int], parts: int, seed: int, round: int) -> None:
    """The draw belongs to seed, round and user: neither the node nor the company matters."""
    shard = shard_of([list(range(length)) for length in lengths])
    together = shard.training_windows(range(len(shard)), 8, seed, round)
    for user in range(len(shard)):
        alone = shard.part(user % parts, parts).training_windows([user // parts], 8, seed, round)
        assert np.array_equal(alone.items[0], together.items[user])
        assert np.array_equal(alone.mask[0], together.mask[user])


def starts(seed: int, round: int) -> list[int]:
    """Where the crops of the five long histories begin."""
    crops = shard_of(LONG).training_windows(range(5), 8, seed, round)
    return [int(window[0]) - 100 * user for user, window in enumerate(crops.items[:, 0])]


def test_crops_differ_between_rounds_seeds_and_users() -> None:
    assert starts(0, 1) == starts(0, 1)
    assert len({tuple(starts(0, round)) for round in range(20)}) == 20
    assert len({tuple(starts(seed, 1)) for seed in range(20)}) == 20
    assert len(set(starts(0, 1))) > 1


def test_crops_reach_the_first_and_the_last_training_event() -> None:
    drawn = {start for round in range(300) for start in starts(0, round)}
    assert drawn == set(range(58 - 8 + 1))


# ---- who is who


def test_salts_and_tickets_never_change() -> None:
    """Draws and pseudonyms of an earlier version stay valid."""
    assert salt_of("ann") == 2494919484976517856
    assert ticket_of(2494919484976517856) == 7291590252647915660


@quick
@given(user_ids=st.sets(st.text(max_size=8), min_size=1, max_size=20))
def test_tickets_are_other_numbers_than_salts(user_ids: set[str]) -> None:
    salts = {salt_of(user_id) for user_id in user_ids}
    tickets = {ticket_of(salt) for salt in salts}
    assert len(salts) == len(tickets) == len(user_ids)
    assert not salts & tickets
    assert all(0 <= number < 2**64 for number in salts | tickets)


def test_a_ticket_belongs_to_the_user_not_to_the_node() -> None:
    shard = shard_of(THREE)
    assert shard.tickets().dtype == np.uint64
    assert shard.tickets().tolist() == [ticket_of(salt_of(f"u{user}")) for user in range(3)]
    assert shard.part(1, 2).tickets().tolist() == shard.tickets()[[1]].tolist()


def test_trimmed_examples_are_those_of_the_cohort_with_less_padding() -> None:
    """A pooled client's examples, in groups of one length each: 3 and 5 events are padded to 9, 12 to 17."""
    pooled = cohort_of([[1, 2, 3], list(range(12)), [4, 5, 6, 7, 8]], length=20).pooled
    parts = list(pooled.split_by_length())
    assert [part.items.shape for part in parts] == [(1, 2, 9), (1, 1, 17)]
    assert [part.items[0][part.mask[0]].tolist() for part in parts] == [[1, 2, 3, 4, 5, 6, 7, 8], list(range(12))]


def test_events_that_are_forgotten_are_predicted_but_not_read() -> None:
    """Which ones belongs to the client, the round and the step, in any company."""
    cohort = shard_of([list(range(20)), list(range(40)), [1, 2, 3]]).training_windows([0, 1, 2], 32, 0, 1)
    assert cohort.with_event_dropout(0, DrawKey(0, 1)) is cohort
    part = cohort.with_event_dropout(0.5, DrawKey(0, 1))
    assert np.array_equal(part.mask, cohort.mask)
    assert not (part.read & ~part.mask).any()
    assert 10 < part.read.sum() < 40
    (_, alone), *_ = cohort.blocks(1, 1)
    assert np.array_equal(alone.with_event_dropout(0.5, DrawKey(0, 1)).read[0], part.read[1])
    for key in (DrawKey(1, 1, 0), DrawKey(0, 2, 0), DrawKey(0, 1, 1)):
        assert not np.array_equal(cohort.with_event_dropout(0.5, key).read, part.read)
