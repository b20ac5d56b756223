"""Presets: the contents of a benchmark, read from `benchmarks/NAME.toml` or from a file of the user's."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.storage.names import plain_name
from fedrec.data.storage.reading import read_toml
from fedrec.federation.config import RunConfig, from_flat

ROOT = Path(__file__).resolve().parents[1]
"""The repository: the presets and the results are in the clone, not in the wheel."""
PRESETS = ROOT / "benchmarks"
PUBLISHED = "published"
"""The stem of the TOML file in `PRESETS` that is not a preset: figures that others published."""

Name = Annotated[str, AfterValidator(lambda name: plain_name(name, "the name"))]
"""The name of a benchmark or a variant: it becomes part of a path."""

Settings = dict[str, Any]
"""Flat settings of a run, as `fedrec train --config` reads and checks them."""
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def slug(name: str) -> str:
    """Return a model's name as presets and jobs write it: `text neighbours` is `text-neighbours`."""
    return name.lower().replace(" ", "-")


class _Table(BaseModel):
    """A table of a preset; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Table):
    """The grid from which validation chooses if every client trains a copy of its own."""

    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(5, 10, 20), min_length=1)
    rates: tuple[Rate, ...] = Field(default=(0.01, 0.03), min_length=1)
    parts: tuple[tuple[str, ...], ...] = (("item", "user"),)  # prefixes of the adapter's names that are trained


class Cold(_Table):
    """The cold-start test: rank items that are in no training event."""

    share: float = Field(default=0.1, gt=0, lt=1)  # of the items, approximately
    baselines: tuple[str, ...] = (
        "random",
        "popularity",
        "text-neighbours",
        "whitened-text-neighbours",
        "ease",
        "ease-with-text-prior",
    )


class Start(_Table):
    """A warm start: the adapter of a run on another dataset, as the initial adapter of this one."""

    benchmark: Name  # its first federated run is the start; make it first, beside this benchmark's jobs


class Preset(_Table):
    """A benchmark: the dataset, the run, and the models that it is compared with."""

    title: str = ""  # as a heading
    data: str  # a name of `fedrec data list`
    seeds: tuple[Seed, ...] = Field(min_length=1)
    parts: tuple[str, ...] = ("federated", "central", "baselines")  # families of jobs
    settings: Settings = {}
    central: Settings = {}  # changes to the settings for the central run
    baselines: dict[str, dict[str, list[Any]]] = {}  # grids in place of the baselines' own, by name
    # models with a closed form: settings over the preset's, by name; earlier files lack it
    closed_form: dict[str, Settings] = Field(default={}, exclude_if=lambda models: not models)
    peers: dict[str, Settings] = {}  # federated baselines: settings over those of benchmarks/peers, by name
    alone: Device = Device()
    personal: Device = Device()
    cold: Cold = Cold()
    start: Start | None = None

    def config(self, seed: int, **changes: Any) -> RunConfig:
        """Build the run's config with this seed. Raises `InputError` for an unknown or invalid setting."""
        return from_flat(self.settings | changes | {"seed": seed})


class Variant(_Table):
    """One change to a preset's run."""

    group: str  # variants of one group are compared with each other
    about: str
    settings: Settings = {}
    text: tuple[str, ...] = ()  # columns that form an item's text; empty: all columns that the dataset uses


class Ablation(_Table):
    """Variants of a preset's run, each trained once and measured."""

    title: str = ""
    base: Name  # the preset whose run is varied
    seed: Seed = 0
    against_bytes: bool = False  # also plot quality against the bytes that a client sends
    settings: Settings = {}  # of all variants, over the preset's
    variant: dict[Name, Variant] = Field(min_length=1)


def read_preset(name: str, file: Path | None = None) -> tuple[Preset | Ablation, Preset]:
    """Read the preset `name`, or the one in `file`, and the preset that is trained: itself, or an ablation's base.

    An ablation's base is read from the same folder, or else from `benchmarks/`. Raises `InputError` if a file is
    missing or is not a preset.
    """
    plain_name(name, "benchmark")
    path = file or _path_of(name, PRESETS)
    preset = _read(path)
    if isinstance(preset, Preset):
        return preset, preset
    folder = path.parent if (path.parent / f"{preset.base}.toml").is_file() else PRESETS
    base = _read(_path_of(preset.base, folder))
    if isinstance(base, Ablation):
        raise InputError(f"{path}: base = {preset.base!r} is itself a set of variants; name the preset that it varies")
    return preset, base


def _path_of(name: str, folder: Path) -> Path:
    names = sorted(path.stem for path in folder.glob("*.toml") if path.stem != PUBLISHED)
    if name not in names:
        choices = f"choose one of {', '.join(names)}" if names else f"{folder} holds none"
        raise InputError(f"benchmark {name!r} is not known; {choices}, or name your own file with --preset")
    return folder / f"{name}.toml"


def _read(path: Path) -> Preset | Ablation:
    try:
        table = read_toml(path, "correct it", "--preset ")
    except OSError as error:
        raise InputError(f"--preset {path} cannot be read ({error.strerror}); give a TOML file") from error
    preset = _validate(table, path)
    _refuse_reserved(preset, path)
    return preset


def _validate(table: dict[str, Any], path: Path) -> Preset | Ablation:
    kind: type[Preset | Ablation] = Ablation if {"base", "variant"} & table.keys() else Preset
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        # report a misspelt key before a missing one
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            keys = ", ".join(Variant.model_fields if len(first["loc"]) > 1 else kind.model_fields)
            raise InputError(f"{path}: {place} is not known; the keys are {keys}") from error
        value = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise InputError(f"{path}: {place}{value}: {first['msg'].lower()}") from error


def _refuse_reserved(preset: Preset | Ablation, path: Path) -> None:
    """Raise `InputError` if a preset sets a setting that the benchmark itself controls."""
    tables = {"settings": preset.settings}
    if isinstance(preset, Preset):
        tables |= {"central": preset.central}
    for name, settings in tables.items():
        for key in {"seed", "mode"} & settings.keys():
            raise InputError(
                f"{path}: {name}.{key} cannot be set in a preset; list seeds in `seeds` and modes in `parts`"
            )
