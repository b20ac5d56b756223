"""Settings of a run from outside: presets of this package, TOML files, and `key=value` pairs."""

from pathlib import Path
from typing import Any

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml
from fedrec.federation.config import RunConfig, from_flat

PRESETS = Path(__file__).with_name("presets")
"""The folder of the presets: settings that were tuned for a published dataset, one file for each."""


def read_settings(file: Path | None, pairs: list[str], preset: str | None = None) -> RunConfig | None:
    """Build the config of a preset or a TOML file, and of `key=value` pairs over it; None if there are none of them.

    The file is a table of settings, or a benchmark with such a table under `settings`. Raises `InputError`.
    """
    if file and preset:
        raise InputError("`config` and `preset` are both files of settings; give one of them")
    table: dict[str, Any] = {}
    if source := preset_file(preset) if preset else file:
        table |= _read_table(source)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"`settings` {pair!r} has no '='; write `settings` name=value")
        table[name.strip()] = value.strip()
    return from_flat(table) if table else None


def preset_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def preset_file(name: str) -> Path:
    """Return the file of a preset. Raises `InputError` with the names of all presets if there is none of this name."""
    if name not in preset_names():
        raise InputError(f"`preset` {name!r} is not known; choose one of {', '.join(preset_names())}")
    return PRESETS / f"{name}.toml"


def _read_table(file: Path) -> dict[str, Any]:
    """Read the settings of a TOML file. Raises `InputError` if it is missing or cannot be read."""
    try:
        content = read_toml(file, "mend it, or use `settings`", "`config` ")
    except FileNotFoundError as error:
        raise InputError(f"`config` {file} does not exist; give a TOML file of settings") from error
    except OSError as error:
        raise InputError(f"`config` {file} cannot be read ({error.strerror}); give a TOML file") from error
    return content["settings"] if isinstance(content.get("settings"), dict) else content
