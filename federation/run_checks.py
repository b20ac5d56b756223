"""Checks before a run is resumed, or begun from another run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of, same_key
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use
from fedrec.federation.config import RunConfig, from_nested, to_flat
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.recommender import CARD, Recommender

logger = logging.getLogger("fedrec")


FITTED_TO = "features_fitted_to"
"""The entry on a card's data with the fingerprint of the catalogue that the features of texts were fitted to, if it has
grown since."""


@dataclass(frozen=True)
class TrainedOn:
    """The histories that a run trains on, as far as the process that opens the run knows them."""

    fingerprint: str | None = None  # None: they are on other machines, or in a folder without a key
    others_meant: bool = False  # a run may resume with them that began on others

    @classmethod
    def of(cls, data: Path, others_meant: bool = False) -> Self:
        """Read the fingerprint of a prepared folder's histories. Raises `InputError` if its shard is damaged."""
        return cls(fingerprint_of(data), others_meant)


UNKNOWN = TrainedOn()
"""Histories that the process that opens the run does not know, as on a federation's server."""


def resumed_config(out: Path, card: dict[str, Any], config: RunConfig | None, first: Recommender | None) -> RunConfig:
    """Return the config of the run to resume.

    Raises `InputError` if the run began with other settings than `config` or from another run than `first` (either may
    be None), or if items were added after its end.
    """
    if FITTED_TO in card["data"]:
        raise InputError(f"{out} is finished, and `fedrec update` has added items since; there is nothing to resume")
    original = from_nested(card["config"])
    if config is not None:
        _check_same_config(original, config, out)
    if first and origin(first) != card.get("start"):
        was = card["start"]["model_version"] if card.get("start") else "scratch"
        raise InputError(f"{out} began from {was}, not {first.version}; resume without `start`")
    return original


def _check_same_config(original: RunConfig, config: RunConfig, out: Path) -> None:
    was, now = to_flat(original), to_flat(config)
    if changed := [name for name in was if was[name] != now[name]]:
        name = changed[0]
        raise InputError(f"{out} began with {name} = {was[name]}, not {now[name]}; resume without changing settings")


def check_histories(histories: TrainedOn, out: Path, card: dict[str, Any], data: Path) -> None:
    """Record in the card of a resumed run if it resumes with other histories. Raises `InputError` if they are not
    meant."""
    was, now = card["data"].get("histories"), histories.fingerprint
    if was == now or not was or not now:
        if was or now:
            logger.warning("whether %s began on the histories in %s is unknown; resuming with these", out, data)
        return
    if not histories.others_meant:
        comparable = same_key(was, now)
        differ = "other histories than" if comparable else "histories that cannot be compared with those that"
        raise InputError(
            f"{out} began on {differ} {data} holds{'' if comparable else ', prepared again or elsewhere'}; "
            "resume with the data it began with, or add `other_histories` if these are meant"
        )
    card["data"] |= {"histories": now, "earlier_histories": [*card["data"].get("earlier_histories", []), was]}
    with in_use(out):
        save_json(out / CARD, card)


def origin(first: Recommender) -> dict[str, Any]:
    """Return the entry in a card for the run that its own run began from, with what it has spent of its ε."""
    entry: dict[str, Any] = {"name": first.card["data"]["name"], "model_version": first.version}
    spent = first.card.get("privacy", {}).get("spent")
    return entry | ({"privacy": spent} if spent else {})


def check_warm_start(first: Recommender, setup: TrainingSetup) -> None:
    """Raise `InputError` unless the adapter of the run to start from is one of this run's model."""
    config = setup.config
    if not config.method_row.servable:
        raise InputError(f"`start` is a run of fedrec, which {config.method} cannot start from; leave `start` out")
    was, now = to_flat(from_nested(first.card["config"]).model), to_flat(config.model)
    for name in was:
        if was[name] != now[name]:
            raise InputError(f"`start` was trained with {name} = {was[name]}, not {now[name]}; set {name}={was[name]}")
    if config.model.user_encoder_init == "random" and first.card["seed"] != config.seed:
        raise InputError(f"`start` has random weights of seed {first.card['seed']}, not {config.seed}; set that seed")
    setup.check_encoders(first.card, "`start`")


def check_private_start(first: Recommender, config: RunConfig, manifest: Mapping[str, Any]) -> None:
    """Raise `InputError` if a run under differential privacy would begin from one without, on the same items.

    Such a start may have learned from the same users, and no noise that is added later hides them.
    """
    same_items = first.card["data"]["catalogue_fingerprint"] == manifest["catalogue_fingerprint"]
    if config.privacy.enabled and "privacy" not in first.card and same_items:
        raise InputError(
            f"setting epsilon = {config.privacy.epsilon:g}: `start` learned from users of these items without noise; "
            "start from a run with epsilon, or from one on other items"
        )


def warn_of_start(first: Recommender, manifest: Mapping[str, Any], histories: TrainedOn) -> None:
    """Warn if the run to start from learned from other histories of the same items."""
    before, now = first.card["data"], histories.fingerprint
    same_items = before["catalogue_fingerprint"] == manifest["catalogue_fingerprint"]
    if same_items and now and before.get("histories") not in (None, now):
        logger.warning(
            "%s learned from other histories of these items: if what is held out here was among them, this run's "
            "metrics are too high",
            first.version,
        )
