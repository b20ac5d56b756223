"""The card of a run: its configs, its data and encoder, and the fingerprints of its files."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_json, require
from fedrec.recsys.model.config import ModelConfig

CARD = "card.json"
AGAIN = "copy the run again"
"""The remedy for a damaged file of a run."""

_REQUIRED = {
    "config": dict,
    "config.model": dict,
    "seed": int,
    "data.name": str,
    "data.split": str,
    "data.catalogue_fingerprint": str,
    "encoder.name": str,
    "encoder.sha256": str,
}
_REQUIRED_IF_FINISHED = {"model_version": str, "fingerprints.adapter": str, "fingerprints.item_vectors": str}
_REQUIRED_IF_CLOSED = {"closed_form": dict, "fingerprints.closed_form": str}

Section = TypeVar("Section")


def load_card(folder: Path) -> dict[str, Any]:
    """Read the card of a run, finished or not. Raises `InputError` if `folder` is no run, or the card is damaged."""
    path = folder / CARD
    try:
        card = read_json(path, AGAIN)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} is not a run ({CARD} is missing); make one with `fedrec train`") from error
    require(card, _REQUIRED, path, AGAIN)
    card["config"] = EARLIER_DEFAULTS | card["config"]
    return card | {name: with_present_names(card[name]) for name in ("config", "closed_form") if name in card}


RENAMED_SETTINGS = {
    "base": "user_encoder_init",
    "forget": "event_dropout",
    "peer_dim": "baseline_dim",
    "peer_negatives": "baseline_negatives",
    "peer_batch": "baseline_batch",
    "peer_rate": "baseline_rate",
    "peer_item_rate": "baseline_item_rate",
    "peer_leak": "baseline_leak",
    "peer": "baseline",  # the section of a card that holds them
    "decay": "decays",
    "feature_bandwidth": "feature_bandwidths",
}
"""Settings that earlier versions called otherwise: old name → present name."""

LISTS = {"decay", "feature_bandwidth"}
"""Earlier names of settings that were one value, and are lists now."""

RENAMED_VALUES = {("item_tower", "curved"): "gelu"}
"""Values that earlier versions called otherwise: (setting, old value) → present value."""


EARLIER_DEFAULTS = {"exposure": {"exposure_base": 0.0}}
"""What the settings of earlier versions stood for that their cards do not have, if it is not today's default."""


def with_present_names(config: dict[str, Any]) -> dict[str, Any]:
    """Rename the settings of an older card's config, section by section."""
    renamed = {}
    for name, value in config.items():
        present = RENAMED_SETTINGS.get(name, name)
        if isinstance(value, dict):
            renamed[present] = with_present_names(value)
        elif name in LISTS:
            renamed[present] = [value]
        else:
            renamed[present] = RENAMED_VALUES.get((present, value), value) if isinstance(value, str) else value
    return renamed


SERVABLE = {"fedrec": False, "closed-form": True, "hybrid": True}
"""The methods whose runs can be served, and whether their artifact holds a closed form."""


def load_finished_card(folder: Path) -> dict[str, Any]:
    """Read the card of a run that can be served. Raises `InputError` for any other run."""
    card = load_card(folder)
    if (method := card["config"].get("method", "fedrec")) not in SERVABLE:
        raise InputError(f"{folder} is a run of {method}: it has metrics.json, but no model to serve")
    if not card.get("finished"):
        raise InputError(f"{folder} has not finished training; resume it with `fedrec train … --out {folder} --resume`")
    require(card, _REQUIRED_IF_FINISHED | (_REQUIRED_IF_CLOSED if SERVABLE[method] else {}), folder / CARD, AGAIN)
    try:
        model_config(card["config"]["model"])
    except InputError as error:
        raise InputError(f"{folder / CARD}: {error}; {AGAIN}") from error
    return card


def model_config(table: dict[str, Any]) -> ModelConfig:
    """Build a model's config from a card's table; a missing setting has its default. Raises `InputError`."""
    return read_section(ModelConfig, table, "config.model")


def read_section(kind: type[Section], table: dict[str, Any], name: str) -> Section:
    """Build a dataclass from a section of a card, by its name. Raises `InputError`, which names the field."""
    if unknown := table.keys() - {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise InputError(f"{name}.{min(unknown)} is not known; the run is of a later version")
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{name}.{place} = {repr(first['input'])[:60]}: {first['msg'].lower()}") from error
