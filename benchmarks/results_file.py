"""The results file of a benchmark, `benchmarks/results/NAME.json`: `fedrec reproduce` writes it, `fedrec results`
reads it, both through these models. Nothing in it is about one user.

A field with its default is left out of the file. Metrics are means over users.
"""

import re
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_serializer

from benchmarks.preset import Ablation, Preset, Settings
from fedrec.data.errors import InputError
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.reading import read_json

RENAMED = {"from_": "from", "sampled_99": "sampled-99", "federated_baselines": "peers"}
"""Fields whose key in the file is not an identifier, or is older than the field's name."""


def json_key(field: str) -> str:
    """Return the key of a field in the file: `ndcg_10` is `ndcg@10`."""
    return RENAMED.get(field) or re.sub(r"_(\d+)$", r"@\1", field)


class Table(BaseModel):
    """An object of a JSON file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=json_key, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the object as it is in the file."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


Value = TypeVar("Value")


class Metrics(Table, Generic[Value]):
    """Ranking metrics: `Metrics[float]` of one run, `Metrics[MeanAndStd]` over seeds."""

    ndcg_5: Value | None = None
    ndcg_10: Value
    ndcg_20: Value | None = None
    recall_5: Value | None = None
    recall_10: Value | None = None
    recall_20: Value | None = None
    mrr: Value | None = None
    coverage_10: Value | None = None

    def by_field(self) -> dict[str, Value]:
        """Return the metrics that were measured, by the names of their fields."""
        return {name: value for name in METRICS if (value := getattr(self, name)) is not None}


METRICS = tuple(Metrics.model_fields)


class MeanAndStd(Table):
    """A metric over seeds: mean, sample standard deviation (None for one seed), and the value of each seed."""

    mean: float
    sd: float | None
    seeds: tuple[float, ...]


class Trial(Table):
    """One setting of a grid, and its NDCG@10 on validation."""

    settings: Settings
    ndcg_10: float


class Tuning(Table):
    """A choice on validation; `chosen` and the trials hold only the settings that the grid varied."""

    settings: Settings
    chosen: Settings
    trials: tuple[Trial, ...]


class ModelResult(Metrics[MeanAndStd]):
    """A model's metrics on the test items, over its seeds."""

    validation: Metrics[MeanAndStd] | None = None
    sampled_99: Metrics[MeanAndStd] | None = None  # against 99 sampled items
    tuning: Tuning | None = None  # of the first seed
    bytes_up_per_client_run: int | None = None  # on average, of a model with clients; earlier files lack it
    # of a federated baseline and of a model with a closed form:
    rounds: int | None = None
    adapter_parameters: int | None = None
    bytes_up_per_client_round: int | None = None


class Ratio(Table):
    """The federated model's metrics as shares of the central model's."""

    ndcg_10: float | None = None
    recall_10: float | None = None


class CurvePoint(Table):
    """NDCG@10 on validation after a round, and the megabytes that a client has sent by then on average."""

    round: int
    ndcg_10: float
    megabytes_up_per_client: float


class Comparison(Table):
    """A paired bootstrap over users: `difference` is metric(a) − metric(b), `interval` holds 95 %, p is one-sided."""

    a: str
    b: str
    metric: str
    difference: float
    interval: tuple[float, float]
    p: float


class UserGroup(Table):
    """Users whose histories have `from_` to `to` events before the test item, and each model's NDCG@10 on them."""

    group: str
    from_: int
    to: int
    users: int
    ndcg_10: dict[str, float]


class ColdStart(Table):
    """A model's metrics on users whose test item is cold: ranked among all items, and among the cold items alone."""

    users: int
    all: Metrics[float]
    cold: Metrics[float]
    listed: float | None = None  # share of cold items in the users' top 10 among all items


class Mark(Table):
    """The validation NDCG@10 that two runs are raced to, and its share of the best that the one from scratch has."""

    ndcg_10: float
    share: float


class RoundsNeeded(Table):
    """The first validated round at the mark or above it; None if there is none."""

    start: int | None
    scratch: int | None


class WarmStart(Metrics[float]):
    """The run that starts from another benchmark's adapter, and that adapter's metrics before the first round."""

    from_: str
    before: Metrics[float]
    validation: Metrics[float] | None = None
    mark: Mark | None = None
    rounds: RoundsNeeded | None = None


class VariantResult(Table):
    """A variant's changes, metrics and cost."""

    name: str
    group: str
    about: str
    settings: Settings
    text: tuple[str, ...]
    test: Metrics[float]
    validation: Metrics[float]
    adapter_parameters: int
    bytes_up_per_client_round: int
    bytes_up_per_client_run: int | None = None  # on average; earlier files lack it
    rounds: int
    best_round: int


class Machine(Table):
    """The hardware that made a result."""

    system: str
    processor: str
    cores: int
    memory_gib: float
    device: str
    fast_bfloat16: bool


class Environment(Table):
    """A machine, and the versions of Python and the libraries on it."""

    machine: Machine
    versions: dict[str, str]


class JobsElsewhere(Environment):
    """Jobs that were made in another environment than the first job."""

    parts: tuple[str, ...]


class DataInfo(Table):
    """The dataset, as its manifest describes it."""

    name: str
    users: int
    items: int
    interactions: int
    source: str
    catalogue_fingerprint: str
    citation: str


class _Result(Table):
    """What all results hold. `wall_seconds` is the sum of `part_seconds`, the seconds of each job by name."""

    name: str
    command: str
    split: str
    data: DataInfo
    machine: Machine
    versions: dict[str, str]
    elsewhere: tuple[JobsElsewhere, ...] = ()
    seeds: tuple[int, ...]
    wall_seconds: float
    part_seconds: dict[str, float]


OWN_MODELS = ("federated", "central", "refit", "alone", "personal")


class BenchmarkResult(_Result):
    """The results of a preset: one dataset, all models."""

    preset: Preset
    comparisons: tuple[Comparison, ...]
    by_history: tuple[UserGroup, ...]
    federated: ModelResult | None = None
    central: ModelResult | None = None
    refit: ModelResult | None = None
    alone: ModelResult | None = None
    personal: ModelResult | None = None
    baselines: dict[str, ModelResult] = {}
    closed_forms: dict[str, ModelResult] = {}
    federated_baselines: dict[str, ModelResult] = {}
    ratio: Ratio | None = None
    # of the federated runs:
    adapter_parameters: int | None = None
    bytes_up_per_client_round: int | None = None
    bits: int | None = None
    rounds: int | None = None
    best_round: tuple[int, ...] = ()
    clients_per_round: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    cold: dict[str, ColdStart] = {}
    start: WarmStart | None = None

    def own_models(self) -> dict[str, ModelResult]:
        """Return our models that have finished, by their family."""
        return {name: model for name in OWN_MODELS if (model := getattr(self, name))}

    @field_serializer("preset")
    def _whole_preset(self, preset: Preset) -> dict[str, Any]:
        return preset.model_dump(mode="json")


class AblationResult(_Result):
    """The results of a set of variants."""

    preset: Ablation
    base_settings: Settings
    variants: tuple[VariantResult, ...]

    @field_serializer("preset")
    def _whole_preset(self, preset: Ablation) -> dict[str, Any]:
        return preset.model_dump(mode="json")


Result = BenchmarkResult | AblationResult


def load_result(path: Path, remedy: str) -> Result:
    """Read a results file. Raises `InputError`, which ends with the remedy, if it is not one."""
    table = read_json(path, remedy)
    kind: type[Result] = AblationResult if "variants" in table else BenchmarkResult
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise InputError(f"{path} holds no results of a benchmark ({fault}); {remedy}") from error


def save_result(path: Path, result: Result) -> None:
    """Write a results file."""
    save_json(path, result.to_json())
