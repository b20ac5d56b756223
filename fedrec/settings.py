"""All settings of training and of the endpoint, read from their classes: as a TOML file, and as docs/settings.md."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data.files import replaced_file
from federation.config import RunConfig
from fedrec.results.markdown import table
from serving.settings import Settings

PAGE = Path("docs/settings.md")
WIDTH = 100
TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text", "array": "list"}
BOUNDS = {
    "minimum": "at least {:,.12g}",
    "exclusiveMinimum": "above {:,.12g}",
    "maximum": "at most {:,.12g}",
    "exclusiveMaximum": "below {:,.12g}",
}

TRAINING = """\
# Settings

Made by `fedrec settings` from the classes that hold them; do not edit it by hand.

## Training

`fedrec train DATA --out RUN` takes each by `--set NAME=VALUE`, or many from a file with `--config FILE.toml`. To begin
with a file of all of them, as they are without a word from you: `fedrec train --settings > settings.toml`. A federation
of real nodes takes the same by `flwr run --run-config 'NAME=VALUE'`, with quotation marks around a text.
"""

ENDPOINT = """\
## The endpoint

`fedrec serve RUN` takes them from its flags (`fedrec serve --help`), else from the environment, as `FEDREC_` and the
name in capitals, else from a file, by `--settings FILE.toml`. In the environment a list is written in JSON:
`FEDREC_READ_KEYS='["…"]'`.
"""


@dataclass(frozen=True)
class Setting:
    """What a person must know to choose a value."""

    name: str
    kind: str
    default: Any
    allowed: str
    about: str


@dataclass(frozen=True)
class Section:
    """The settings of one class."""

    about: str
    settings: list[Setting]


def training() -> list[Section]:
    """The settings of a run, in the order of `knobs`."""
    return list(_sections(TypeAdapter(RunConfig).json_schema()))


def endpoint() -> list[Setting]:
    """The settings of `fedrec serve`."""
    return [_setting(name, found) for name, found in Settings.model_json_schema()["properties"].items()]


def as_toml(sections: list[Section]) -> str:
    """A file for `--config` that changes nothing: every setting with its default, explained above it."""
    return "\n".join(f"{_comment(section.about)}\n{''.join(map(_line, section.settings))}" for section in sections)


def write(root: Path) -> list[Path]:
    """Make docs/settings.md anew if it differs, below a clone's root; the paths that were written."""
    for path in (paths := differing(root)):
        with replaced_file(path) as partial:
            partial.write_text(_page(), "utf-8")
    return paths


def differing(root: Path) -> list[Path]:
    """docs/settings.md, if it is not what the classes say."""
    path = root / PAGE
    return [] if path.is_file() and path.read_text("utf-8") == _page() else [path]


def _page() -> str:
    tables = (f"{section.about}\n\n{_table(section.settings)}\n" for section in training())
    return "\n".join([TRAINING, *tables, ENDPOINT, f"{_table(endpoint())}\n"])


def _table(settings: list[Setting]) -> str:
    rows = [[f"`{s.name}`", s.kind, _shown(s.default), s.allowed or "any", s.about] for s in settings]
    return table(["setting", "type", "default", "allowed", "what it is"], rows)


def _shown(default: Any) -> str:
    return f"`{json.dumps(default).strip(chr(34))}`" if default not in (None, []) else "none"


def _line(setting: Setting) -> str:
    kind = f"{setting.kind}, {setting.allowed}" if setting.allowed else setting.kind
    return f"\n{_comment(f'{setting.about} ({kind})')}\n{setting.name} = {json.dumps(setting.default)}\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _sections(schema: Mapping[str, Any]) -> Iterator[Section]:
    """A class's own settings, then those of the classes in it, from its JSON schema."""
    fields = schema["properties"]
    own = [_setting(name, found) for name, found in fields.items() if "$ref" not in found]
    yield Section(schema["description"], own)
    for found in fields.values():
        if "$ref" in found:
            yield from _sections(schema["$defs"][found["$ref"].rpartition("/")[2]])


def _setting(name: str, found: Mapping[str, Any]) -> Setting:
    """One setting from its JSON schema; a list's default is written with commas, as `knobs` has it."""
    kind = found if "type" in found else next(one for one in found["anyOf"] if one.get("type") != "null")
    default = found.get("default")
    if isinstance(default, list) and default:
        default = ",".join(map(str, default))
    about = " ".join(found.get("description", "").split())
    said: str = kind.get("type", "string")
    return Setting(name, TYPES.get(said) or said, default, _allowed(kind), about)


def _allowed(kind: Mapping[str, Any]) -> str:
    if kind.get("type") == "boolean":
        return "true or false"
    if "enum" in kind:
        *others, last = map(str, kind["enum"])
        return f"{', '.join(others)} or {last}"
    if least := kind.get("items", {}).get("minLength"):
        return f"at least {least} characters each"
    if "minimum" in kind and "maximum" in kind:
        return f"{kind['minimum']:,.12g} to {kind['maximum']:,.12g}"
    return ", ".join(words.format(kind[bound]) for bound, words in BOUNDS.items() if bound in kind)
