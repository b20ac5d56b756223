"""Presets: what a benchmark is made of, read from `benchmarks/NAME.toml` or a file of one's own."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.storage.names import plain_name
from fedrec.data.storage.reading import read_toml
from fedrec.federation.config import RunConfig, from_flat

ROOT = Path(__file__).resolve().parents[2]
"""The repository, where the benchmarks stand beside the packages."""
PRESETS = ROOT / "benchmarks"
PUBLISHED = "published"
"""The file there that is no preset: others' numbers."""

Name = Annotated[str, AfterValidator(lambda name: plain_name(name, "the name"))]
"""Of a benchmark or a variant: files are called after it."""

Settings = dict[str, Any]
"""What `fedrec train --config` takes, and as it judges it."""
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def slug(name: str) -> str:
    """A model's name as presets and parts write it: `text neighbours` is `text-neighbours`."""
    return name.lower().replace(" ", "-")


class _Table(BaseModel):
    """A table of a preset: its keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Table):
    """What validation may choose from where every client trains a copy of its own."""

    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(5, 10, 20), min_length=1)
    rates: tuple[Rate, ...] = Field(default=(0.01, 0.03), min_length=1)
    parts: tuple[tuple[str, ...], ...] = (("item", "user"),)  # of the adapter, that are the client's own


class Cold(_Table):
    """The test of ranking items that nobody has touched."""

    share: float = Field(default=0.1, gt=0, lt=1)  # of the items, about
    baselines: tuple[str, ...] = ("random", "popularity", "text-neighbours", "ease")


class Start(_Table):
    """A warm start: what a run on another dataset learned, as the beginning of this one's."""

    benchmark: Name  # whose first federated run is the start; it is to be made first, beside this one's parts


class Preset(_Table):
    """A benchmark: the data, the run, and what it is compared with."""

    title: str = ""  # as a heading
    data: str  # a name of `fedrec data list`
    seeds: tuple[Seed, ...] = Field(min_length=1)
    parts: tuple[str, ...] = ("federated", "central", "baselines")
    settings: Settings = {}
    central: Settings = {}  # what differs for the central run
    baselines: dict[str, dict[str, list[Any]]] = {}  # grids in place of the baselines' own, by name
    peers: dict[str, Settings] = {}  # settings over those of benchmarks/peers, by name
    alone: Device = Device()
    personal: Device = Device()
    cold: Cold = Cold()
    start: Start | None = None

    def config(self, seed: int, **changes: Any) -> RunConfig:
        """The run's config with this seed. Raises `InputError` for a setting that does not exist or fit."""
        return from_flat(self.settings | changes | {"seed": seed})


class Variant(_Table):
    """One change to a preset's run."""

    group: str  # variants of one group are compared with each other
    about: str
    settings: Settings = {}
    text: tuple[str, ...] = ()  # columns that the encoder reads of an item; none: all that the dataset tells


class Ablation(_Table):
    """Variants of a preset's run, each trained once and measured."""

    title: str = ""
    base: Name  # the preset that they vary
    seed: Seed = 0
    against_bytes: bool = False  # also plotted: quality against what a client sends
    settings: Settings = {}  # of all variants, over the preset's
    variant: dict[Name, Variant] = Field(min_length=1)


def read_preset(name: str, file: Path | None = None) -> tuple[Preset | Ablation, Preset]:
    """The preset of that name, or the one in `file`; and what is trained: itself, or the one that it varies.

    An ablation's base stands beside it, or is one of ours. Raises `InputError` where a file is absent or no preset.
    """
    plain_name(name, "benchmark")
    path = file or _named(name, PRESETS)
    found = _read(path)
    if isinstance(found, Preset):
        return found, found
    beside = path.parent if (path.parent / f"{found.base}.toml").is_file() else PRESETS
    base = _read(_named(found.base, beside))
    if isinstance(base, Ablation):
        raise InputError(f"{path}: base = {found.base!r} is itself a set of variants; name what it varies")
    return found, base


def _named(name: str, folder: Path) -> Path:
    names = sorted(path.stem for path in folder.glob("*.toml") if path.stem != PUBLISHED)
    if name not in names:
        there = f"choose one of {', '.join(names)}" if names else f"{folder} holds none"
        raise InputError(f"benchmark {name!r} is not known; {there}, or name a file of your own with --preset")
    return folder / f"{name}.toml"


def _read(path: Path) -> Preset | Ablation:
    try:
        table = read_toml(path, "mend it", "--preset ")
    except OSError as error:
        raise InputError(f"--preset {path} cannot be read ({error.strerror}); give a TOML file") from error
    found = _validated(table, path)
    _refuse_reserved(found, path)
    return found


def _validated(table: dict[str, Any], path: Path) -> Preset | Ablation:
    kind: type[Preset | Ablation] = Ablation if {"base", "variant"} & table.keys() else Preset
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        first = min(
            error.errors(), key=lambda found: found["type"] != "extra_forbidden"
        )  # a misspelt key before one missing
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(Variant.model_fields if len(first["loc"]) > 1 else kind.model_fields)
            raise InputError(f"{path}: {place} is not known; the keys are {known}") from error
        said = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise InputError(f"{path}: {place}{said}: {first['msg'].lower()}") from error


def _refuse_reserved(preset: Preset | Ablation, path: Path) -> None:
    """Settings that the benchmark decides itself. Raises `InputError`."""
    tables = {"settings": preset.settings}
    if isinstance(preset, Preset):
        tables |= {"central": preset.central}
    for name, settings in tables.items():
        for taken in {"seed", "mode"} & settings.keys():
            raise InputError(
                f"{path}: {name}.{taken} is not the preset's to say; seeds stand in `seeds`, modes in `parts`"
            )
