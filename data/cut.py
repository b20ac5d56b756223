"""The cutting of histories into what training, validation and test may read, by each rule.

Shapes: t events, U users.
"""

from dataclasses import replace

import numpy as np

from fedrec.data.histories import Histories
from fedrec.data.shard import NO_ITEM


def cut_by_ratio(histories: Histories, share: float) -> Histories:
    """Hold out the last `share` of each user's events for test, and as many before them for validation.

    At least one each. Of the test events, the first alone is kept: it is the test item.
    """
    held = np.maximum(1, np.floor(share * histories.lengths + 1e-9).astype(np.int64))  # (U,)
    return _keep_first_test_event(histories, held + held, held)


def cut_by_time(histories: Histories, validation_from: float, test_from: float) -> Histories:
    """Hold out the events at or after two moments; of those after the second, the first alone is kept."""
    assert histories.times is not None
    users = np.repeat(np.arange(len(histories.lengths)), histories.lengths)  # (t,)
    unread, test = (
        np.bincount(users[histories.times >= moment], minlength=len(histories.lengths))
        for moment in (validation_from, test_from)
    )
    return _keep_first_test_event(histories, unread, test)


def _keep_first_test_event(histories: Histories, unread: np.ndarray, test: np.ndarray) -> Histories:
    """Keep of each user's last `test` events the first alone; `unread` counts the events after training: (U,) both."""
    excess = np.maximum(0, test - 1)
    to_end = np.repeat(np.cumsum(histories.lengths), histories.lengths) - np.arange(len(histories.items))  # (t,)
    kept = to_end > np.repeat(excess, histories.lengths)
    held = np.stack([unread - excess, test - excess], axis=1)  # (U, 2)
    times = None if histories.times is None else histories.times[kept]
    return replace(histories, lengths=histories.lengths - excess, items=histories.items[kept], times=times, held=held)


def cut_around_cold(histories: Histories, cold: np.ndarray) -> Histories:
    """Keep each user's warm events before the last two cold events, then these two.

    A user without such events keeps all warm events, and has `NO_ITEM` in both held-out places.
    """
    users = np.repeat(np.arange(len(histories.lengths)), histories.lengths)  # (t,)
    is_cold = cold[histories.items]  # (t,)
    so_far = np.cumsum(is_cold)
    later = so_far[np.cumsum(histories.lengths) - 1][users] - so_far  # (t,) the user's cold events after this one
    before = ~is_cold & (later > 1)
    ranked = np.bincount(users[before], minlength=len(histories.lengths)) > 0  # (U,)
    kept = np.where(ranked[users], before | (is_cold & (later < 2)), ~is_cold)
    lengths = np.bincount(users[kept], minlength=len(histories.lengths))
    ends = np.repeat(np.cumsum(lengths)[~ranked], 2)
    items = np.insert(histories.items[kept].astype(np.int32), ends, NO_ITEM)
    return Histories(histories.users, lengths + 2 * ~ranked, items)
