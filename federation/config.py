"""All knobs of a run: frozen dataclasses here, one flat table outside (command line, TOML, Flower's run config)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator, TypeAdapter, ValidationError

from data.errors import InputError
from recsys.fit import FitConfig
from recsys.model import ModelConfig
from recsys.peers import PeerConfig

Scalar = int | float | bool | str


@dataclass(frozen=True)
class ServerConfig:
    """How the server moves the adapter by the mean change. Reddi et al. 2021, arXiv:2003.00295."""

    optimizer: Literal["fedavg", "fedavgm", "fedadam", "fedyogi"] = "fedadam"
    server_rate: Annotated[float, Gt(0)] = 2e-3  # η
    schedule: Literal["constant", "linear"] = "linear"  # linear: η falls to zero with the last round
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9  # momentum; fedavg has none
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.99  # of fedadam and fedyogi
    adaptivity: Annotated[float, Gt(0)] = 1e-4  # τ: changes much smaller than this move the adapter little


def _offered(bits: int) -> int:
    if bits not in (*range(1, 9), 32):
        raise ValueError("choose 1 to 8, or 32 for numbers as they are")
    return bits


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run learns."""

    method: Literal["fedrec", "fedmf", "pfedrec"] = "fedrec"  # ours, or a peer that it is compared with
    mode: Literal["federated", "central"] = "federated"  # central: a round's users are pooled into one client
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    rounds: Annotated[int, Ge(1)] = 200
    clients_per_round: Annotated[int, Ge(1)] = 128
    clip: Annotated[float, Gt(0)] = (
        1.0  # no client (pooled, all are one) moves the sum by more, in L2; it steadies training
    )
    bits: Annotated[int, AfterValidator(_offered)] = 32  # 1 to 8: each number of a change is coded; 32: as it is
    validate_every: Annotated[int, Ge(1)] = 20  # rounds; the best round on validation is the one that is kept
    validation_users: Annotated[int, Ge(1)] = 2000  # ranked each time, at most; drawn once
    held_out: Annotated[int, Interval(ge=0, le=2)] = 2  # last events of each user that nobody trains on: the validation
    # and the test item. 1: the test item alone; 0: none, for what is to be served. Below 2 the last round is kept
    nodes: Annotated[int, Ge(1)] = 1  # in-process nodes that share the users; real ones are as many as connect
    round_timeout: Annotated[float, Gt(0)] = 3600.0  # seconds to wait for a round's answers
    model: ModelConfig = field(default_factory=ModelConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    peer: PeerConfig = field(default_factory=PeerConfig)

    @property
    def keeps(self) -> bool:
        """Whether a node keeps private parts of its users from round to round."""
        return self.method != "fedrec"

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits whose items training does not see, so that they can tell how good it is."""
        return ("test", "validation")[: self.held_out]


_SECTIONS = {item.name: item.default_factory for item in fields(RunConfig) if is_dataclass(item.default_factory)}
_ADAPTER = TypeAdapter(RunConfig)


def knobs(config: RunConfig | ModelConfig | FitConfig | ServerConfig | PeerConfig) -> dict[str, Scalar]:
    """The flat table of a config: name → int, float, bool or str."""
    table: dict[str, Scalar] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            table |= knobs(value)  # type: ignore[arg-type]
        else:
            table[item.name] = ",".join(value) if isinstance(value, tuple) else value
    return table


def from_knobs(table: Mapping[str, Any]) -> RunConfig:
    """Build a config from a flat table; knobs that are left out keep their defaults.

    Raises `InputError` for a name that is not known or a value that does not fit.
    """
    known = knobs(RunConfig())
    nested: dict[str, Any] = {section: {} for section in _SECTIONS}
    for name, value in table.items():
        if name not in known:
            raise InputError(f"setting {name!r} is not known; the settings are {', '.join(known)}")
        section = next((s for s, kind in _SECTIONS.items() if name in {f.name for f in fields(kind)}), None)
        (nested[section] if section else nested)[name] = value
    if isinstance(targets := nested["model"].get("lora_targets"), str):
        nested["model"]["lora_targets"] = targets.split(",")
    return from_nested(nested)


def from_nested(nested: Mapping[str, Any]) -> RunConfig:
    """Build a config from `dataclasses.asdict` of one, as a card holds it. Raises `InputError`."""
    try:
        config = _ADAPTER.validate_python(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = next((part for part in first["loc"] if part not in _SECTIONS), first["loc"][0])
        raise InputError(f"setting {name} = {first['input']!r}: {first['msg'].lower()}") from error
    if endless := [name for name, value in knobs(config).items() if isinstance(value, float) and not isfinite(value)]:
        raise InputError(f"setting {endless[0]} = {knobs(config)[endless[0]]}: a run needs a finite number")
    if config.mode == "central" and config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: in central mode nobody sends a change; leave bits at 32")
    if config.keeps and config.mode == "central":
        raise InputError(f"setting mode = 'central': {config.method} has private parts; use mode = 'federated'")
    if config.keeps and config.held_out < 2:
        raise InputError(f"setting held_out = {config.held_out}: {config.method} is measured only; leave held_out at 2")
    if config.keeps and config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: {config.method} sends numbers as they are; leave bits at 32")
    return config


PLACES: dict[str, Scalar] = {"data": "", "out": "", "start": "", "resume": False}
"""What Flower's server app is told beside the knobs: the prepared folder, the run's folder, a run to begin from if
any, whether to resume."""


def from_run_config(table: Mapping[str, Any]) -> RunConfig:
    """Build a config from Flower's run config, which holds the places too. Raises `InputError`."""
    return from_knobs({name: value for name, value in table.items() if name not in PLACES})
