"""Baselines beside a run: fitted on the prepared histories, tuned on validation, ranked under the run's protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.catalogue import Catalogue
from data.shard import Shard
from federation.config import from_nested
from fedrec import view
from fedrec.evaluate import cold_items, measured, score_users
from recsys.card import load_card
from recsys.embed import embed, resolve
from recsys.neighbours import has_room_for_ease
from recsys.rank import only
from recsys.tuning import BASELINES, Given, Tuned, configs, tune

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
    given = Given(shard, embed(catalogue, resolve(encoder), data).matrix)
    found = {}
    for name, tuned in _tuned(given, refit=len(catalogue.warm) == len(catalogue)):
        score = only(tuned.score, cold_items(catalogue, data)) if protocol == "cold" else tuned.score
        ranking = score_users(score, shard, "test", protocol)
        found[name] = {"settings": tuned.settings, "test": {protocol: measured(ranking)}}
    return found


def _tuned(given: Given, refit: bool) -> Iterator[tuple[str, Tuned]]:
    for name in NAMES:
        if name == "EASE" and not has_room_for_ease(given.items):
            view.warn(f"EASE is left out: a matrix of {given.items:,} × {given.items:,} is more than memory holds")
            continue
        tried = len(configs(BASELINES[name], {}))
        view.say(f"fitting {name}{f', {tried} settings, chosen on validation' if tried > 1 else ''}")
        yield name, tune(BASELINES[name], given, refit=refit)
