"""A closed form of the toy world, solved in this process, and a run with it beside the towers."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.shard import Shard
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import KernelStack
from fedrec.recsys.closed_form.features import FourierFeatures, Whitening
from fedrec.recsys.closed_form.model import ClosedForm, ItemTexts, Solution, TextFeatures
from fedrec.recsys.closed_form.new_items import TargetRegression, scale_vectors
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.recommender import Recommender
from tests.support.toy_world import SMALL

Kind = Literal["text", "ids", "stacked text", "stacked ids"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CLOSED: dict[str, Any] = SMALL | {
    "method": "closed-form",
    "ridges": "10",
    "decodes": "1",
    "feature_width": 32,
    "nodes": 3,
}
HYBRID = CLOSED | {"method": "hybrid", "rounds": 2, "validate_every": 1, "blend_shares": "0.5"}
"""Settings of small runs over 3 nodes, with one solution to choose from."""


def toy_config(kind: Kind) -> ClosedFormConfig:
    decays = (0.4, 0.7) if kind.startswith("stacked") else (0.7,)
    return ClosedFormConfig("ids" if kind.endswith("ids") else "text", feature_width=48, decays=decays)


def toy_features(data: Path, config: ClosedFormConfig) -> TextFeatures | None:
    """Compute the features of the catalogue's items; None for ids."""
    if config.features == "ids":
        return None
    embeddings, whitening = toy_whitening(data, config)
    features = FourierFeatures.fit(embeddings, whitening, config.feature_width, config.feature_bandwidths, seed=0)
    table = features(embeddings)
    return TextFeatures(features, table, table)


def toy_whitening(data: Path, config: ClosedFormConfig) -> tuple[Tensor, Whitening]:
    """Compute the embeddings of the catalogue's items (N, E), and their whitening."""
    encoder = resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    embeddings = embed_catalogue(Catalogue.load(data), encoder, data).matrix
    return embeddings, Whitening.fit(embeddings, config.whitening)


def toy_texts(data: Path, config: ClosedFormConfig, features: TextFeatures | None) -> ItemTexts:
    """Fit what the texts of the catalogue tell of new items."""
    embeddings, whitening = toy_whitening(data, config)
    table, everything = table_of(features, len(embeddings)), torch.arange(len(embeddings))
    fitted = TargetRegression.fit(embeddings, whitening, everything, features and features.table)
    return ItemTexts(whitening, scale_vectors(fitted, table.T @ table, len(table), 1.0), features)


def table_of(features: TextFeatures | None, items: int) -> Tensor:
    """Return the features of all items as a table: (N, M) float64."""
    return torch.eye(items).double() if features is None else features.table.double()


def toy_solution(data: Path, config: ClosedFormConfig, features: TextFeatures | None, share: float) -> Solution:
    """Solve the ridge regression of all users' training events, from all of their contexts at once."""
    shard = Shard.load(data)
    table = table_of(features, len(Catalogue.load(data)))
    histories = [shard.history(user, "train").astype(np.int64) for user in range(len(shard))]
    pairs = [(history[:end], history[end]) for history in histories for end in range(1, len(history))]
    contexts = torch.stack([context(config.stack, table, before) for before, _ in pairs])  # (T, KM)
    targets = table[[following for _, following in pairs]]
    gram = contexts.T @ contexts
    weights = torch.linalg.solve(gram + torch.eye(len(gram)), contexts.T @ targets)
    if features is not None:
        weights = weights @ torch.linalg.inv(table.T @ table + 0.1 * torch.eye(table.shape[1]))
    return Solution(weights, gram, share)


def context(stack: KernelStack, table: Tensor, history: np.ndarray) -> Tensor:
    """Compute the context after a history: (KM,)."""
    weights = [torch.from_numpy(kernel.weigh_history(len(history))) for kernel in stack.kernels]
    return torch.cat([each @ table[history] for each in weights])


def toy_closed_form(data: Path, towers: Tensor, kind: Kind, share: float = 0.5, rank: int = 99) -> ClosedForm:
    """Build the closed form of the toy world beside item vectors (N, E)."""
    config = toy_config(kind)
    features = toy_features(data, config)
    table = None if features is None else features.table
    solution = toy_solution(data, config, features, share).cut(table, rank)
    return ClosedForm.build(config, solution, toy_texts(data, config, features), towers)


def hybrid_of(run: Path, data: Path, out: Path, kind: Kind = "text", share: float = 0.5) -> Path:
    """Write a run with the towers of another and a closed form."""
    towers = Recommender.load(run)
    closed_form = toy_closed_form(data, towers.vectors, kind, share)
    out.mkdir(parents=True)
    Recommender.of_run(towers.catalogue, towers.vectors, towers.adapter, towers.card, closed_form).save(out)
    return out


def plain_scores(data: Path, histories: list[np.ndarray], kind: Kind) -> Tensor:
    """Compute the scores xᵀ W D ψ: (B, N) float64; of ids, an item that was no target scores the mean."""
    config = toy_config(kind)
    features = toy_features(data, config)
    table = table_of(features, len(Catalogue.load(data)))
    contexts = [context(config.stack, table, history.astype(np.int64)) for history in histories]
    weights = toy_solution(data, config, features, 0.5).weights
    return at_the_mean(torch.stack(contexts) @ weights @ table.T, (weights @ table.T).any(0))


def at_the_mean(scores: Tensor, known: Tensor) -> Tensor:
    """Give the items that are not `known` (N,) the mean score of the others: (B, N)."""
    return torch.where(known, scores, scores[:, known].mean(1, keepdim=True))


def z_scores(scores: Tensor) -> Tensor:
    """Standardise each user's scores, by their mean and standard deviation: (B, N)."""
    scores = scores.double()
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0)
