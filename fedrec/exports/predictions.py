"""Recommendations for the users of a split and their held-out items, as tables that others' tools evaluate.

Both tables are about users: they are made where the histories are, and stay there unless their owners agree. By default
users are numbered at random, anew for each export, and the rows are in the order of these numbers.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from annotated_types import Ge
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.json_file import save_json
from fedrec.exports.prediction_formats import FORMATS, SPLIT_FILES
from fedrec.recsys.evaluation.ranking import mask_seen
from fedrec.recsys.model.scoring import Scorer

DESCRIPTION = "predictions.json"
PREDICTIONS = Contents("export of predictions", DESCRIPTION, (DESCRIPTION, *SPLIT_FILES))
BLOCK = 256
"""Users whose scores are held at once."""


@dataclass(frozen=True)
class PredictionConfig:
    """What is exported, and under which names of the users."""

    format: str = "trec"  # one of FORMATS
    split: str = "test"
    k: Annotated[int, Ge(1)] = 100  # length of a list
    numbering: int | None = None  # seed of the users' numbers, the same in every export; None: at random
    user_ids: bool = False  # the users' own ids instead of numbers

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"`format` = {self.format!r} is not known; choose one of {', '.join(FORMATS)}")
        if self.k < 1:
            raise InputError(f"`k` = {self.k}: a list needs at least 1 item; raise it")
        if self.user_ids and self.numbering is not None:
            raise InputError("`numbering` numbers the users, and `user_ids` does not; leave one of them out")


class Predictions(NamedTuple):
    """The two tables of an export."""

    lists: pl.DataFrame  # user_id, item_id, score, rank from 1: k rows of each user, best first
    held_out: pl.DataFrame  # user_id, item_id: the item that the user had next


def export_predictions(score: Scorer, dataset: Dataset, out: Path, config: PredictionConfig, model: str) -> list[str]:
    """Write the predictions of a scorer to a folder, and return the names of its files.

    `model` names the model in them. Raises `InputError` if `out` holds something else, if no user has a held-out item,
    or if the format cannot hold an id.
    """
    check_place(out, PREDICTIONS.check)
    predictions = predict(score, dataset, config)
    with replaced_folder(out, PREDICTIONS.check) as folder:
        FORMATS[config.format](predictions.lists, predictions.held_out, folder, model)
        described = asdict(config) | {"numbering": _describe_numbering(config)}
        save_json(folder / DESCRIPTION, {"model": model, "dataset": dataset.name, **described})
        return sorted(path.name for path in folder.iterdir())


def predict(score: Scorer, dataset: Dataset, config: PredictionConfig) -> Predictions:
    """Rank the items for every user with a held-out item in a split; items that a user has had are left out."""
    shard = dataset.shard
    users = shard.ranked(range(len(shard)), config.split)
    if not len(users):
        raise InputError(f"no user of {dataset.folder} has a held-out item, so that there is nothing to predict")
    users, names = _named_users(users, dataset, config)
    item_ids, targets = np.array(dataset.catalogue.ids, dtype=object), shard.held_out(users, config.split)
    parts = [_best_items(score, dataset, users[i : i + BLOCK], config) for i in range(0, len(users), BLOCK)]
    scores, rows = (torch.cat(tensors) for tensors in zip(*parts, strict=True))  # (U, k)
    there = ~scores.isneginf().flatten().numpy()
    lists = {
        "user_id": names.gather(np.repeat(np.arange(len(users)), rows.shape[1])[there]),
        "item_id": item_ids[rows.flatten().numpy()[there]].tolist(),
        "score": scores.flatten().numpy()[there],
        "rank": np.tile(np.arange(1, rows.shape[1] + 1), len(users))[there],
    }
    held_out = {"user_id": names, "item_id": item_ids[targets].tolist()}
    return Predictions(pl.DataFrame(lists), pl.DataFrame(held_out))


def _best_items(score: Scorer, dataset: Dataset, users: np.ndarray, config: PredictionConfig) -> tuple[Tensor, Tensor]:
    """Return the scores and the rows of the best items of some users, as the evaluation ranks them: (b, k) each."""
    histories = [dataset.shard.history(user, config.split) for user in users]
    scores, targets = score(histories), torch.from_numpy(dataset.shard.held_out(users, config.split)).unsqueeze(1)
    own = scores.gather(1, targets)
    scores = mask_seen(scores, histories).scatter_(1, targets, own)  # it is ranked even if it was seen before
    best = scores.topk(min(config.k, scores.shape[1]))
    return best.values, best.indices


def _named_users(users: np.ndarray, dataset: Dataset, config: PredictionConfig) -> tuple[np.ndarray, pl.Series]:
    """Return the users in the order of the export, with the names that they have there."""
    if config.user_ids:
        return users, dataset.users.gather(users)
    seed = config.numbering
    draw = np.random.default_rng() if seed is None else random_stream(Stream.PSEUDONYMS, seed)
    return draw.permutation(users), pl.Series(range(1, len(users) + 1)).cast(pl.String)


def _describe_numbering(config: PredictionConfig) -> Any:
    if config.user_ids:
        return "none: the users' own ids"
    return "at random" if config.numbering is None else f"by seed {config.numbering}"
