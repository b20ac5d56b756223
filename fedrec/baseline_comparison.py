"""Baselines beside a run: fitted on the prepared histories, tuned on validation, ranked under the run's protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedrec import console
from fedrec.data.catalogue import Catalogue
from fedrec.data.shard import Shard
from fedrec.federation.config import from_nested
from fedrec.recsys.baselines.neighbours import has_room_for_ease
from fedrec.recsys.baselines.tuning import BASELINES, TrainingData, TuningResult, grid_configs, tune
from fedrec.recsys.card import load_card
from fedrec.recsys.embeddings import embed_catalogue, resolve_encoder
from fedrec.recsys.evaluation.evaluate import cold_items, rank_all_users, ranking_metrics
from fedrec.recsys.evaluation.ranking import restrict_to

NAMES = ("random", "popularity", "text neighbours", "item-kNN", "EASE")
"""Those of `BASELINES` that need no training in epochs."""


def compare_baselines(run: Path, data: Path, protocol: str) -> dict[str, dict[str, Any]]:
    """Each baseline's settings and test metrics, on the users and under the protocol that `run` is evaluated with.

    The run and its data have been found to belong together: `evaluate_run` raises what is wrong with them.
    """
    return measure_baselines(data, from_nested(load_card(run)["config"]).model.encoder, protocol)


def measure_baselines(data: Path, encoder: str, protocol: str = "full") -> dict[str, dict[str, Any]]:
    """Name → `settings`, and under `test` the metrics by protocol. Histories are pooled: a federation could not."""
    catalogue, shard = Catalogue.load(data), Shard.load(data)
    given = TrainingData(shard, embed_catalogue(catalogue, resolve_encoder(encoder), data).matrix)
    found = {}
    for name, tuned in _tuned(given, refit=len(catalogue.trainable_rows) == len(catalogue)):
        score = restrict_to(tuned.score, cold_items(catalogue, data)) if protocol == "cold" else tuned.score
        ranking = rank_all_users(score, shard, "test", protocol)
        found[name] = {"settings": tuned.settings, "test": {protocol: ranking_metrics(ranking)}}
    return found


def _tuned(given: TrainingData, refit: bool) -> Iterator[tuple[str, TuningResult]]:
    for name in NAMES:
        if name == "EASE" and not has_room_for_ease(given.items):
            console.warn(f"EASE is left out: a matrix of {given.items:,} × {given.items:,} is more than memory holds")
            continue
        tried = len(grid_configs(BASELINES[name], {}))
        console.status(f"fitting {name}{f', {tried} settings, chosen on validation' if tried > 1 else ''}")
        yield name, tune(BASELINES[name], given, refit=refit)
