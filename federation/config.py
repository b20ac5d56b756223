"""The settings of a run as one flat table: command line, TOML, Flower's run config."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.federation.buffered.config import BufferConfig
from fedrec.federation.config_checks import check_combination
from fedrec.federation.optimisers import ServerConfig
from fedrec.federation.privacy.config import PrivacyConfig
from fedrec.federation.run_config import RunConfig
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.recsys.card import RENAMED_SETTINGS
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.pairs import PAIRS
from fedrec.recsys.exposure_bound import ExposureConfig
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.local_training import FitConfig

Scalar = int | float | bool | str

Section = (
    ModelConfig
    | FitConfig
    | ServerConfig
    | BufferConfig
    | ClosedFormConfig
    | FederatedBaselineConfig
    | SecureAggregationConfig
    | PrivacyConfig
    | ExposureConfig
)
_SECTIONS = {item.name: item.default_factory for item in fields(RunConfig) if is_dataclass(item.default_factory)}
_LISTS = {item.name for kind in _SECTIONS.values() for item in fields(kind) if isinstance(item.default, tuple)}
"""The settings that are lists; in a flat table their values are separated by commas."""
_ADAPTER = TypeAdapter(RunConfig)


def to_flat(config: RunConfig | Section) -> dict[str, Scalar]:
    """Flatten a config into a table: name → int, float, bool or str."""
    table: dict[str, Scalar] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            table |= to_flat(value)  # type: ignore[arg-type]
        else:
            table[item.name] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return table


def from_flat(table: Mapping[str, Any]) -> RunConfig:
    """Build a config from a flat table; settings that are left out keep their defaults.

    With `epsilon`, those of `method` and `features` are the model that noise hurts least. Raises `InputError` for an
    unknown name or an invalid value.
    """
    asked = table
    if _is_private(table):
        table = {"method": "closed-form", **table}
        if table["method"] == "closed-form":
            table = {"features": PAIRS, **table}
    known = to_flat(RunConfig())
    nested: dict[str, Any] = {section: {} for section in _SECTIONS}
    for name, value in table.items():
        if name in RENAMED_SETTINGS:
            raise InputError(f"setting {name!r} is now called {RENAMED_SETTINGS[name]!r}; use that name")
        if name not in known:
            raise InputError(f"setting {name!r} is not known; the settings are {', '.join(known)}")
        section = next((s for s, kind in _SECTIONS.items() if name in {f.name for f in fields(kind)}), None)
        (nested[section] if section else nested)[name] = _listed(value) if name in _LISTS else value
    try:
        return from_nested(nested)
    except InputError as error:
        if not (assumed := [f"{name} = {value!r}" for name, value in table.items() if name not in asked]):
            raise
        raise InputError(f"{error} (with epsilon, {' and '.join(assumed)} unless you set it)") from error


def _is_private(table: Mapping[str, Any]) -> bool:
    """Tell whether a flat table asks for noise. What is no number is refused later."""
    try:
        return float(table.get("epsilon", 0)) > 0
    except (TypeError, ValueError):
        return False


def _listed(value: Any) -> Any:
    """Return a list's values; a single number stands for a list of one."""
    return value if isinstance(value, list | tuple) else str(value).split(",")


def from_nested(nested: Mapping[str, Any]) -> RunConfig:
    """Build a config from `dataclasses.asdict` of one, as a card holds it. Raises `InputError`."""
    try:
        config = _ADAPTER.validate_python(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = next((part for part in first["loc"] if part not in _SECTIONS), first["loc"][0])
        faults = [one["msg"].lower() for one in error.errors() if name in one["loc"]]  # of each kind that it may be
        raise InputError(
            f"setting {name} = {first['input']!r}: {', or '.join(faults) or first['msg'].lower()}"
        ) from error
    if endless := [name for name, value in to_flat(config).items() if isinstance(value, float) and not isfinite(value)]:
        raise InputError(f"setting {endless[0]} = {to_flat(config)[endless[0]]}: a run needs a finite number")
    check_combination(config)
    return config


RUN_PATHS: dict[str, Scalar] = {"data": "", "out": "", "start": "", "resume": False, "track": ""}
"""The entries of Flower's run config beside the settings: the prepared folder, the run's folder, a run to start from if
any, whether to resume, and trackers with commas between them."""


def from_run_config(table: Mapping[str, Any]) -> RunConfig:
    """Build a config from Flower's run config, which holds `RUN_PATHS` too. Raises `InputError`."""
    return from_flat({name: value for name, value in table.items() if name not in RUN_PATHS})
