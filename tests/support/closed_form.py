"""A closed form of the toy world, solved in this process, and a run with it beside the towers."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.features import TextFeatures
from fedrec.recsys.closed_form.model import ClosedForm, Solution
from fedrec.recsys.closed_form.solve import RidgePath, decoding
from fedrec.recsys.closed_form.statistics import GRAM, FeatureSums, ItemSums, sum_statistics
from fedrec.recsys.embeddings import embed_catalogue, resolve_encoder
from fedrec.recsys.recommender import Recommender

Kind = Literal["text", "ids"]


def toy_config(kind: Kind) -> ClosedFormConfig:
    return ClosedFormConfig(features=kind, feature_width=48, decay=0.7)


def toy_features(data: Path, config: ClosedFormConfig) -> TextFeatures | None:
    """The features of the catalogue's items; None for ids."""
    if config.features == "ids":
        return None
    dataset = Dataset.open(data)
    encoder = resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    return TextFeatures.of(embed_catalogue(dataset.catalogue, encoder, data).matrix, config, seed=0)


def toy_solution(data: Path, config: ClosedFormConfig, features: TextFeatures | None, share: float) -> Solution:
    """The ridge regression of all users' training events."""
    shard = Dataset.open(data).shard
    histories = [shard.history(user, "train").astype(np.int64) for user in range(len(shard))]
    if features is None:
        sums = ItemSums(len(Dataset.open(data).catalogue))
    else:
        sums = FeatureSums(features.table, features.table, config.kernel)
    statistics = sum_statistics(sums, config.kernel, histories)
    weights = RidgePath.of(statistics).weights(1.0)
    if features is not None:
        weights = weights @ decoding(features.table, 0.1)
    return Solution(weights, statistics[GRAM], share)


def toy_closed_form(data: Path, towers: Tensor, kind: Kind, share: float = 0.5, rank: int = 99) -> ClosedForm:
    """The closed form of the toy world beside item vectors (N, E)."""
    config = toy_config(kind)
    features = toy_features(data, config)
    return ClosedForm.build(config, toy_solution(data, config, features, share), features, towers, rank)


def hybrid_of(run: Path, data: Path, out: Path, kind: Kind = "text", share: float = 0.5) -> Path:
    """A run with the towers of another and a closed form."""
    towers = Recommender.load(run)
    closed_form = toy_closed_form(data, towers.vectors, kind, share)
    out.mkdir(parents=True)
    Recommender.of_run(towers.catalogue, towers.vectors, towers.adapter, towers.card, closed_form).save(out)
    return out


def plain_scores(data: Path, histories: list[np.ndarray], kind: Kind) -> Tensor:
    """The scores xᵀ W D ψ of the closed form, item by item: (B, N) float64."""
    config = toy_config(kind)
    features = toy_features(data, config)
    weights = toy_solution(data, config, features, 0.5).weights
    table = torch.eye(len(weights)).double() if features is None else features.table.double()  # (N, M)
    contexts = [config.kernel.weigh_history(len(history)) @ table.numpy()[history] for history in histories]
    return torch.from_numpy(np.stack(contexts)) @ weights @ table.T


def z_scores(scores: Tensor) -> Tensor:
    """Each user's scores less their mean, over their standard deviation: (B, N)."""
    scores = scores.double()
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0)
