"""docs/settings.md, the reference of all settings, made from the classes that hold them."""

import json
from pathlib import Path
from typing import Any

from benchmarks.report.markdown import table
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.settings_reference import Setting, endpoint, training

PAGE = Path("docs/settings.md")

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

`fedrec serve RUN` takes each by `--set NAME=VALUE`, a list's values separated by commas (`--host`, `--port` and
`--store` are short for their settings); else from the environment, as `FEDREC_` and the name in capitals; else from a
file, by `--settings FILE.toml`. Keys and secrets are not taken by `--set`, since other users of a machine can read its
command lines. In the environment a list is written in JSON: `FEDREC_READ_KEYS='["…"]'`.
"""


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
