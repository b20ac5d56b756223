"""The settings of a run: frozen dataclasses here, one flat table outside (command line, TOML, Flower's run config)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, WithJsonSchema

from fedrec.data.errors import InputError
from fedrec.federation.choices import KeyOf
from fedrec.federation.methods import METHODS, Method
from fedrec.federation.optimisers import ServerConfig
from fedrec.federation.privacy.config import PrivacyConfig
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.group import SMALLEST
from fedrec.recsys.card import RENAMED_SETTINGS
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.search import SearchSpace
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.local_training import FitConfig

Scalar = int | float | bool | str


BITS = (*range(1, 9), 32)


def _offered(bits: int) -> int:
    if bits not in BITS:
        raise ValueError("choose 1 to 8, or 32 for numbers as they are")
    return bits


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run learns."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    method: Annotated[str, KeyOf(METHODS)] = "fedrec"
    """The model. fedrec: two towers, trained in rounds; closed-form: ridge regressions, from one exchange of sums;
    hybrid: both, with their scores blended; or a federated baseline that they are compared with."""
    mode: Literal["federated", "central"] = "federated"
    """Each user is a client, or (central) the users of a round are pooled into one client."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of all random draws: the same seed and data give the same model."""
    rounds: Annotated[int, Ge(1)] = 200
    """Rounds of training."""
    clients_per_round: Annotated[int, Ge(1)] = 128
    """Users that are drawn for a round."""
    clip: Annotated[float, Gt(0)] = 1.0
    """Maximum L2 norm of a client's change; a longer one is scaled down, which also stabilises training. In central
    mode the pooled users count as one client."""
    bits: Annotated[int, AfterValidator(_offered), WithJsonSchema({"type": "integer", "enum": BITS})] = 32
    """Bits per number of a client's change, or of its sums over texts. 1 to 8: quantised; 32: sent as it is."""
    validate_every: Annotated[int, Ge(1)] = 20
    """Rounds between two validations; the best round on validation is the one that is kept."""
    validation_users: Annotated[int, Ge(1)] = 2000
    """Users ranked in each validation, at most; drawn once."""
    held_out: Annotated[int, Interval(ge=0, le=2)] = 2
    """Last events of each user that nobody trains on. 2: the validation and the test item; 1: the test item alone; 0:
    none, for a model to serve. Below 2 the last round is kept."""
    nodes: Annotated[int, Ge(1)] = 1
    """In-process nodes that share the users; of real ones, as many take part as connect."""
    node_users: Annotated[int, Ge(1)] = 10_000_000
    """Users that one node may bring; a node with more is left out."""
    node_share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Maximum share of clients_per_round, and of validation_users, from one node. Below 1 the sample depends on how
    users are spread over nodes, and a cohort can be smaller."""
    round_timeout: Annotated[float, Gt(0)] = 3600.0
    """Seconds to wait for the answers of a round."""
    model: ModelConfig = field(default_factory=ModelConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    closed_form: ClosedFormConfig = field(default_factory=ClosedFormConfig)
    baseline: FederatedBaselineConfig = field(default_factory=FederatedBaselineConfig)
    secure_aggregation: SecureAggregationConfig = field(default_factory=SecureAggregationConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    @property
    def method_row(self) -> Method:
        """The row of the run's method."""
        return METHODS[self.method]

    @property
    def has_client_state(self) -> bool:
        """Whether a node keeps a state of each client from round to round."""
        return self.method_row.has_client_state

    @property
    def min_events(self) -> int:
        """Events that a user needs to have an example to learn from."""
        return self.held_out + self.method_row.min_events

    @property
    def largest_loss(self) -> float:
        """The largest loss that a client can have; a larger one is a lie, or divergence."""
        return self.method_row.largest_loss(self)

    @property
    def training_rounds(self) -> int:
        """The rounds in which an adapter is trained."""
        return self.rounds if self.method_row.trained else 0

    @property
    def last_choice(self) -> int:
        """The last round of a choice on validation, at most: those of training, the exchange of sums, and a validation
        of each candidate."""
        if not self.method_row.summed:
            return self.training_rounds
        return self.training_rounds + 1 + self.validated * self.search_space.most

    @property
    def last_round(self) -> int:
        """The last round at most: with final sums, after a validation of what was chosen and a second exchange. Those
        have the same numbers, however early the search ends."""
        return self.last_choice + 2 * self.final_sums

    @property
    def final_sums(self) -> bool:
        """Whether sums are exchanged once more after the choice, with fewer events held out."""
        return self.closed_form.final_held_out < 2

    @property
    def summing_rounds(self) -> tuple[int, ...]:
        """The rounds in which sums are exchanged; the last ones are those of the finished model."""
        first = self.training_rounds + 1
        return (first, self.last_round) if self.final_sums else (first,)

    @property
    def search_space(self) -> SearchSpace:
        """The solutions of the closed form to choose from."""
        return SearchSpace.of(self.closed_form, blended=self.method_row.trained)

    @property
    def validated(self) -> bool:
        """Whether the items of validation are held out, so that they choose."""
        return "validation" in self.rankable

    @property
    def rankable(self) -> tuple[str, ...]:
        """The splits that nodes rank: no client sees their items before the final sums. Under differential privacy
        there are none, since metrics carry no noise."""
        return () if self.privacy.enabled else ("test", "validation")[: self.held_out]

    @property
    def reported(self) -> tuple[str, ...]:
        """The splits that nodes rank at the end of the run: none under differential privacy, since metrics carry no
        noise."""
        return () if self.privacy.enabled else self.measured

    @property
    def sum_bits(self) -> int:
        """Bits per number of a client's sums: those over texts alone are quantised."""
        return self.bits if self.closed_form.features == "text" else 32

    @property
    def statistic_clip(self) -> float:
        """The clip of a user's statistics; 0: not clipped."""
        return self.privacy.statistic_clip if self.privacy.enabled else 0.0

    @property
    def final_held_out(self) -> int:
        """Last events of each user that nothing in the finished model has seen."""
        return min(self.held_out, self.closed_form.final_held_out)

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits whose items the finished model has not seen, so that it can be evaluated on them."""
        return ("test", "validation")[: self.final_held_out]

    @property
    def what_was_seen(self) -> str:
        """The setting by which the finished model has seen items of a split, for messages."""
        return f"{'final_held_out' if self.final_sums else 'held_out'} = {self.final_held_out}"


Section = (
    ModelConfig
    | FitConfig
    | ServerConfig
    | ClosedFormConfig
    | FederatedBaselineConfig
    | SecureAggregationConfig
    | PrivacyConfig
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

    Raises `InputError` for an unknown name or an invalid value.
    """
    known = to_flat(RunConfig())
    nested: dict[str, Any] = {section: {} for section in _SECTIONS}
    for name, value in table.items():
        if name in RENAMED_SETTINGS:
            raise InputError(f"setting {name!r} is now called {RENAMED_SETTINGS[name]!r}; use that name")
        if name not in known:
            raise InputError(f"setting {name!r} is not known; the settings are {', '.join(known)}")
        section = next((s for s, kind in _SECTIONS.items() if name in {f.name for f in fields(kind)}), None)
        (nested[section] if section else nested)[name] = _listed(value) if name in _LISTS else value
    return from_nested(nested)


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
        raise InputError(f"setting {name} = {first['input']!r}: {first['msg'].lower()}") from error
    if endless := [name for name, value in to_flat(config).items() if isinstance(value, float) and not isfinite(value)]:
        raise InputError(f"setting {endless[0]} = {to_flat(config)[endless[0]]}: a run needs a finite number")
    _check_combination(config)
    return config


def _check_combination(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together, or not with the method."""
    method, row = config.method, config.method_row
    if config.mode == "central" and config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: in central mode no client sends a change; leave bits at 32")
    if config.mode == "central" and not row.poolable:
        raise InputError(f"setting mode = 'central': clients of {method} cannot be pooled; use mode = 'federated'")
    if config.held_out < 2 and not row.servable:
        raise InputError(f"setting held_out = {config.held_out}: {method} is only evaluated; leave held_out at 2")
    if config.bits < 32 and not row.quantisable:
        raise InputError(f"setting bits = {config.bits}: {method} sends numbers as they are; leave bits at 32")
    features = config.closed_form.features
    if config.bits < 32 and row.summed and not row.trained and features != "text":
        raise InputError(f"setting bits = {config.bits}: sums over {features} are sent as they are; leave bits at 32")
    if config.privacy.enabled:
        _check_privacy(config)
    _check_final_sums(config)
    _check_aggregation(config)
    if config.secure_aggregation.secure:
        _check_secure(config)
    if any(config.closed_form.priors) and config.closed_form.features != "ids":
        raise InputError(
            "setting priors: texts give weights between items, to which only features = 'ids' are pulled; "
            "leave priors at 0, or use features = 'ids'"
        )
    if config.closed_form.features == "pairs" and len(config.closed_form.decays) > 1:
        raise InputError(
            f"setting decays = {config.closed_form.decays}: a pair is counted with one decay; give one with "
            "features = 'pairs'"
        )


def _check_final_sums(config: RunConfig) -> None:
    """Raise `InputError` if sums are to be exchanged once more in a run that has none, or that chooses nothing."""
    setting = f"setting final_held_out = {config.closed_form.final_held_out}"
    if config.final_sums and not config.method_row.summed:
        raise InputError(f"{setting}: {config.method} exchanges no sums; leave final_held_out at 2")
    if config.final_sums and not config.validated:
        raise InputError(
            f"{setting}: with held_out = {config.held_out} validation chooses nothing, and the first sums are final; "
            "set held_out = 2, or leave final_held_out at 2"
        )


def _check_aggregation(config: RunConfig) -> None:
    """Raise `InputError` if the robust rule does not go with the method or the mode, or the groups with the rule."""
    rule, groups, row = config.server.aggregation, config.server.groups, config.method_row
    if rule != "sum" and not row.trained:
        raise InputError(f"setting aggregation = {rule!r}: the sums of {config.method} are added; use 'sum'")
    if rule != "sum" and config.mode == "central":
        raise InputError(f"setting aggregation = {rule!r}: in central mode the pooled users are one client; use 'sum'")
    if groups == 1:
        return
    if rule == "sum":
        raise InputError(f"setting groups = {groups}: groups add up to the same sum; choose another aggregation")
    if config.has_client_state:
        raise InputError(f"setting groups = {groups}: clients of {config.method} keep a state; leave groups at 1")
    if not 3 <= groups <= config.clients_per_round:
        most = f"at most clients_per_round = {config.clients_per_round}"
        raise InputError(f"setting groups = {groups}: a rule needs at least 3 groups, and {most}; or leave groups at 1")


def _check_secure(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together with secure aggregation."""
    if config.mode == "central":
        raise InputError("setting secure = True: in central mode there is no client to protect; use mode = 'federated'")
    if config.bits < 32:
        raise InputError(
            f"setting bits = {config.bits}: a masked number has 64 bits whatever it hides; leave bits at 32 with secure"
        )
    if config.server.aggregation != "sum":
        raise InputError(
            f"setting aggregation = {config.server.aggregation!r}: of masked sums only the sum is known; use 'sum' "
            "with secure"
        )
    if config.nodes < SMALLEST:
        raise InputError(
            f"setting nodes = {config.nodes}: secure aggregation needs at least {SMALLEST}; use more, or leave secure "
            "out"
        )


def _check_privacy(config: RunConfig) -> None:
    """Raise `InputError` if a setting would let more leave than the noise is for."""
    with_epsilon, row = f"with epsilon = {config.privacy.epsilon:g}", config.method_row
    if not row.servable:
        raise InputError(f"setting method = {config.method!r}: {with_epsilon}, train fedrec, closed-form or hybrid")
    if config.mode == "central":
        raise InputError(f"setting mode = 'central': {with_epsilon}, each user is clipped; use mode = 'federated'")
    if config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: {with_epsilon}, leave bits at 32")
    if config.node_share < 1:
        raise InputError(
            f"setting node_share = {config.node_share:g}: {with_epsilon}, all users have one chance; use 1"
        )
    if config.server.aggregation != "sum":
        raise InputError(f"setting aggregation = {config.server.aggregation!r}: {with_epsilon}, use 'sum'")
    if row.summed and config.closed_form.features == "ids":
        raise InputError(f"setting features = 'ids': {with_epsilon}, noise hides such sums; use 'pairs' or 'text'")
    if row.summed and config.final_sums:
        raise InputError(
            f"setting final_held_out = {config.closed_form.final_held_out}: {with_epsilon}, sums are released once; "
            "leave final_held_out at 2"
        )


RUN_PATHS: dict[str, Scalar] = {"data": "", "out": "", "start": "", "resume": False}
"""The entries of Flower's run config beside the settings: the prepared folder, the run's folder, a run to start from if
any, and whether to resume."""


def from_run_config(table: Mapping[str, Any]) -> RunConfig:
    """Build a config from Flower's run config, which holds `RUN_PATHS` too. Raises `InputError`."""
    return from_flat({name: value for name, value in table.items() if name not in RUN_PATHS})
