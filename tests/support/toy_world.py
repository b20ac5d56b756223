"""A toy world where the right answer is obvious: 12 users, 24 films; half cook, half fly."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.prepare import write_dataset
from fedrec.data.randomness import salt_of
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.data.shard import Shard
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig, from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.embeddings import Embeddings
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.recommender import Recommender

Histories = list[list[int]]

COOKING = "bread soup butter pasta cake oven kitchen chef salad cheese baker feast".split()  # noqa: SIM905
SPACE = "rocket moon orbit comet galaxy star astronaut planet shuttle nebula meteor alien".split()  # noqa: SIM905

SMALL = {
    "method": "fedrec",
    "layers": 1,
    "lora_rank": 2,
    "item_rank": 4,
    "user_rank": 4,
    "history": 8,
    "negatives": 16,
    "clients_per_round": 6,
    "rounds": 4,
    "validate_every": 2,
    "clip": 1.0,
    "precision": "float32",
    "exposure_base": 0.0,
    "priors": "0",
}
"""Settings under which a round takes a fraction of a second, without a bound on exposure or a pull towards texts."""


def small_config(**changes: object) -> RunConfig:
    return from_flat(SMALL | changes)


def begun(out: Path, data: Path, config: RunConfig, start: Path | None = None, resume: bool = False) -> Recommender:
    """Open a run, new or to be resumed, and train it to its end."""
    run = open_run(out, Dataset.open(data), config, resume, start, TrainedOn.of(data))
    train(LocalGrid.over(run.setup), run)
    return Recommender.load(out)


def finished(data: Path, out: Path, **settings: Any) -> State:
    """Train a small run over a prepared folder to its end, and return the state that it leaves."""
    run = open_run(out, Dataset.open(data), small_config(**settings), resume=False)
    train(LocalGrid.over(run.setup), run)
    state = State.load(out)
    assert state
    return state


def toy_items() -> pl.DataFrame:
    """Make items 0 to 11 about cooking and 12 to 23 about space; their ids share no character with a number."""
    words = [*COOKING, *SPACE]
    kinds = ["Cooking"] * len(COOKING) + ["Space"] * len(SPACE)
    return add_text(
        pl.DataFrame(
            {
                "item_id": [f"film-{word}" for word in words],
                "title": [f"The {word}" for word in words],
                "year": [1990 + row for row in range(len(words))],
                "genres": kinds,
            }
        )
    )


def toy_interactions() -> pl.DataFrame:
    """Let six users watch only cooking films, six only space films: 4 to 12 of them each, each from another start."""
    rows = []
    for user in range(12):
        words = COOKING if user < 6 else SPACE
        for step in range(4 + (user * 5) % 9):
            rows.append((f"person-{user:02d}", f"film-{words[(user + step) % 12]}", 1000 * user + step))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def write_toy(folder: Path) -> Path:
    """Write the toy world without counts of its items' users, so that a question without a history is refused."""
    write_dataset(
        Frames(toy_interactions(), toy_items()), folder, name="toy", rules=Rules(popularity=False, salts="by-id")
    )
    return folder


def toy_stamp() -> dict[str, str]:
    """Return what nodes must share with the server: the identity of the catalogue, and of the encoder's weights."""
    return Embeddings.provenance_of(Catalogue(toy_items()), resolve_encoder(small_config().model.encoder))


def shard_of(histories: Histories) -> Shard:
    """Build a shard of users `u0`, `u1`, …"""
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    return Shard(
        starts=np.cumsum(lengths) - lengths,
        ends=np.cumsum(lengths),
        items=np.array([item for history in histories for item in history], dtype=np.int64),
        salts=np.array([salt_of(f"u{user}") for user in range(len(histories))], dtype=np.uint64),
    )


def write_toy_films(folder: Path) -> Path:
    """Write the toy world in the layout of MovieLens 100K: raw data of 12 users and 24 films."""
    folder.mkdir()
    items = toy_items()
    rows = {item_id: row for row, item_id in enumerate(items["item_id"], start=1)}
    films = [
        f"{row}|{title} ({year})|||u|0|{int(genres == 'Cooking')}|{int(genres == 'Space')}"
        for row, (title, year, genres) in enumerate(items.select("title", "year", "genres").iter_rows(), start=1)
    ]
    ratings = [
        f"{int(user[-2:]) + 1}\t{rows[item]}\t5\t{timestamp}"
        for user, item, timestamp in toy_interactions().iter_rows()
    ]
    for name, lines in {
        "u.genre": ["unknown|0", "Cooking|1", "Space|2"],
        "u.item": films,
        "u.data": ratings,
    }.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), "latin-1")
    return folder


def events_by_salt(shard: Shard) -> dict[int, list[int]]:
    """Return all that a shard knows: the events of each salt."""
    spans = zip(shard.salts, shard.starts, shard.ends, strict=True)
    return {int(salt): shard.items[start:end].tolist() for salt, start, end in spans}


def histories(folder: Path) -> list[str]:
    """Return all events of each user as a word, for a folder whose item ids are letters."""
    catalogue, shard = Catalogue.load(folder), Shard.load(folder)
    spans = zip(shard.starts, shard.ends, strict=True)
    return ["".join(catalogue.ids[row] for row in shard.items[start:end]) for start, end in spans]
