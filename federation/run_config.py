"""The settings of a run: frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator, ConfigDict, WithJsonSchema

from fedrec.federation.buffered.config import BufferConfig
from fedrec.federation.choices import KeyOf
from fedrec.federation.methods import METHODS, Method
from fedrec.federation.optimisers import ServerConfig
from fedrec.federation.privacy.config import PrivacyConfig
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.search import SearchSpace
from fedrec.recsys.exposure_bound import ExposureConfig, ExposureLimit
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.local_training import FitConfig

BITS = (*range(1, 9), 32)


def _offered(bits: int) -> int:
    if bits not in BITS:
        raise ValueError("choose 1 to 8, or 32 for numbers as they are")
    return bits


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run learns."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    method: Annotated[str, KeyOf(METHODS)] = "hybrid"
    """The model. hybrid: two towers and a closed form, with their scores blended; fedrec: the towers alone, trained in
    rounds; closed-form: ridge regressions alone, from one exchange of sums; or a federated baseline that they are
    compared with. With `epsilon`, closed-form is used unless this is set."""
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
    buffer: BufferConfig = field(default_factory=BufferConfig)
    closed_form: ClosedFormConfig = field(default_factory=ClosedFormConfig)
    baseline: FederatedBaselineConfig = field(default_factory=FederatedBaselineConfig)
    secure_aggregation: SecureAggregationConfig = field(default_factory=SecureAggregationConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    exposure: ExposureConfig = field(default_factory=ExposureConfig)

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
    def unbounded(self) -> str:
        """The reason why exposure is not bounded, for messages; empty if it is."""
        reasons = {
            "exposure_base = 0": self.exposure.exposure_base == 0,
            f"its counts carry no noise, and epsilon = {self.privacy.epsilon:g}": self.privacy.enabled,
            f"{self.method} leaves no model to bound": not self.method_row.servable,
            f"{self.method} trains no towers": self.exposure.is_auto and not self.method_row.trained,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    @property
    def exposure_limit(self) -> ExposureLimit | None:
        """The limit on exposure; None if it is not bounded."""
        return None if self.unbounded else self.exposure.limit

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
