"""All settings of training and of the endpoint, read from the classes that hold them."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from fedrec.federation.config import RunConfig
from fedrec.federation.policy.node_policy import NodePolicy

WIDTH = 100
TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text", "array": "list", "object": "table"}
BOUNDS = {
    "minimum": "at least {:,.12g}",
    "exclusiveMinimum": "above {:,.12g}",
    "maximum": "at most {:,.12g}",
    "exclusiveMaximum": "below {:,.12g}",
}


@dataclass(frozen=True)
class Setting:
    """A setting, with everything needed to choose its value."""

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


def training_settings() -> list[Section]:
    """Return the settings of a run, in the order of `to_flat`."""
    return list(_sections_of(TypeAdapter(RunConfig).json_schema()))


def endpoint_settings() -> list[Setting]:
    """Return the settings of `fedrec serve`."""
    from fedrec.serving.settings import Settings  # of the extra serving, which a node may lack

    return [_setting_of(name, found) for name, found in Settings.model_json_schema()["properties"].items()]


def policy_settings() -> Section:
    """Return the fields of a node's policy."""
    (section,) = _sections_of(TypeAdapter(NodePolicy).json_schema())
    return section


def policy_template() -> str:
    """Render a `node.toml` that changes nothing: every field with its default, commented out, explained above it."""
    section, defaults = policy_settings(), asdict(NodePolicy())
    lines = (replace(found, name=f"# {found.name}", default=defaults[found.name]) for found in section.settings)
    return f"{_as_comment(section.about)}\n{''.join(map(_as_line, lines))}"


def as_toml(sections: list[Section]) -> str:
    """Render a file for `--config` that changes nothing: every setting with its default, explained above it."""
    return "\n".join(
        f"{_as_comment(section.about)}\n{''.join(map(_as_line, section.settings))}" for section in sections
    )


def _as_line(setting: Setting) -> str:
    kind = f"{setting.kind}, {setting.allowed}" if setting.allowed else setting.kind
    return f"\n{_as_comment(f'{setting.about} ({kind})')}\n{setting.name} = {json.dumps(setting.default)}\n"


def _as_comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _sections_of(schema: Mapping[str, Any]) -> Iterator[Section]:
    """Read a class's own settings, then those of the classes in it, from its JSON schema."""
    fields = schema["properties"]
    own = [_setting_of(name, found) for name, found in fields.items() if "$ref" not in found]
    yield Section(schema["description"], own)
    for found in fields.values():
        if "$ref" in found:
            yield from _sections_of(schema["$defs"][found["$ref"].rpartition("/")[2]])


def _setting_of(name: str, found: Mapping[str, Any]) -> Setting:
    """Read a setting from its JSON schema; a list's default is written with commas, as in `to_flat`."""
    kinds = [found] if "type" in found else [one for one in found["anyOf"] if one.get("type") != "null"]
    default = found.get("default")
    if isinstance(default, list) and default:
        default = ",".join(map(str, default))
    about = " ".join(found.get("description", "").split())
    said = [kind.get("type", "string") for kind in kinds]
    types = dict.fromkeys(TYPES.get(one) or one for one in said)
    return Setting(name, " or ".join(types), default, ", or ".join(filter(None, map(_allowed_values, kinds))), about)


def _allowed_values(kind: Mapping[str, Any]) -> str:
    if kind.get("type") == "boolean":
        return "true or false"
    if "const" in kind:
        return str(kind["const"])
    if "enum" in kind:
        *others, last = map(str, kind["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if kind.get("type") == "array" and (each := _allowed_values(kind["items"])):
        return each
    if least := kind.get("items", {}).get("minLength"):
        return f"at least {least} characters each"
    if "minimum" in kind and "maximum" in kind:
        return f"{kind['minimum']:,.12g} to {kind['maximum']:,.12g}"
    return ", ".join(words.format(kind[bound]) for bound, words in BOUNDS.items() if bound in kind)
