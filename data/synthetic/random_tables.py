"""Generated tables of any size, to measure time and memory with.

A world with something to learn is in `fedrec.data.synthetic.demo_films`.

The lengths of histories and the popularity of items follow Zipf's law. A user draws an item of rank x with weight
1 / (x + q), the law in Mandelbrot's form; q is the number of the user's draws, so that a longer history reaches further
down the list. The draws are evenly spaced quantiles, so that hardly any item is drawn twice. Three in four are from the
three genres that the user likes, and an item's text names its genre.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.progress import Progress
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import refuse_occupied
from fedrec.data.synthetic.vocabulary import load_vocabulary

INTERACTIONS, ITEMS = "interactions.csv", "items.csv"
LIKED = 3  # genres of a user
SHORTEST = 3  # events of a user: to train, to validate and to test
EPOCH, SPAN = 1_600_000_000, 100_000_000  # seconds
GOLDEN = 0.618034  # its multiples spread evenly over [0, 1)
CHUNK = 1_000_000  # rows that are made at a time


@dataclass(frozen=True)
class SyntheticConfig:
    """The number of users, items and interactions, and the inequality of the histories' lengths."""

    users: int
    items: int
    interactions: int  # about
    seed: int
    exponent: float = 0.8
    longest: int = 1000  # events of a user

    @property
    def bound(self) -> int:
        """The maximum number of events of a user: a quarter of them may take half of a genre."""
        return min(self.longest, 2 * self.items // len(load_vocabulary().genres))


def synthesise(config: SyntheticConfig, out: Path, progress: Progress) -> int:
    """Write both tables into `out`, a new or empty folder, and return the number of interactions. Raises `InputError`.

    Memory holds twelve bytes for each interaction, and a chunk of rows.
    """
    check_place(out, refuse_occupied)
    rng = np.random.default_rng(config.seed)
    lengths = draw_lengths(config, rng)
    items = draw_items(config.items, rng)
    total, done = int(lengths.sum()), 0
    with replaced_folder(out, refuse_occupied) as folder:
        items.sort("item_id").write_csv(folder / ITEMS)
        with (folder / INTERACTIONS).open("wb") as file:
            for chunk in draw_events(lengths, items["item_id"].to_numpy(), rng):
                chunk.write_csv(file, include_header=done == 0)
                done += chunk.height
                progress(done, total)
    return total


def draw_lengths(config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw the number of events of each user (U,), in proportion to a power of the rank, within the bounds."""
    mean = config.interactions / config.users
    if not SHORTEST <= mean <= config.bound / 2:
        raise InputError(
            f"`interactions={config.interactions}` are {mean:.1f} for each of `users={config.users}`; "
            f"with `items={config.items}`, give {SHORTEST} to {config.bound // 2} for each"
        )
    shares = (1.0 + rng.permutation(config.users)) ** -config.exponent
    low, high = 0.0, config.interactions / shares.min()
    for _ in range(60):  # bisection: the events cut from the longest go to the others
        scale = (low + high) / 2
        total = np.clip(scale * shares, SHORTEST, config.bound).astype(np.int64).sum()
        low, high = (low, scale) if total > config.interactions else (scale, high)
    return np.clip(low * shares, SHORTEST, config.bound).astype(np.int64)


def draw_items(count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw the items, the most popular first; ids are in random order, and genres alternate."""
    vocabulary = load_vocabulary()
    words = {
        "name": [title for theme in vocabulary.themes for title in theme.titles],
        "place": [place for setting in vocabulary.settings for place in setting.places],
        "mood": [adjective for mood in vocabulary.moods for adjective in mood.adjectives],
        "subject": [subject for theme in vocabulary.themes for subject in theme.subjects],
    }
    drawn = pl.DataFrame({kind: rng.choice(options, count) for kind, options in words.items()})
    genres = pl.Series(np.resize([genre.name for genre in vocabulary.genres], count))
    return drawn.select(
        item_id=pl.Series(rng.permutation(count)),
        title=pl.format("{} {}", "name", "place"),
        text=pl.format("{} {}, about {}", "mood", genres, "subject"),
    )


def draw_events(lengths: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Iterator[pl.DataFrame]:
    """Draw the interactions in random order, a chunk at a time; `ids` are the items' by popularity (N,).

    A user's draws take turns: one from each liked genre, and one from all.
    """
    genres = len(load_vocabulary().genres)
    users = np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)  # (T,)
    starts = np.cumsum(lengths) - lengths  # (U,)
    homes, shifts = rng.integers(genres, size=len(lengths)), rng.random(len(lengths))  # (U,) each
    order = rng.permutation(len(users))
    for start in range(0, len(order), CHUNK):
        events = order[start : start + CHUNK]
        user = users[events]
        step, turn = np.divmod(events - starts[user], LIKED + 1)
        draws = -(-lengths[user] // (LIKED + 1))
        quantiles = (step + (shifts[user] + GOLDEN * turn) % 1) / draws
        liked = zipf_ranks(quantiles, draws, len(ids) // genres) * genres + (homes[user] + turn) % genres
        items = np.where(turn < LIKED, liked, zipf_ranks(quantiles, draws, len(ids)))
        times = EPOCH + rng.integers(SPAN, size=len(events))
        yield pl.DataFrame({"user_id": user, "item_id": ids[items], "timestamp": times})


def zipf_ranks(quantiles: np.ndarray, q: np.ndarray, count: int) -> np.ndarray:
    """Compute the ranks below `count` at these quantiles of the law 1 / (x + q)."""
    return np.minimum(q * np.expm1(quantiles * np.log1p(count / q)), count - 1).astype(np.int64)
