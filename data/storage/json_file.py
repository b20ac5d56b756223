"""JSON files, written in one step; `reading.read_json` reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrec.data.storage.atomic_files import replaced_file


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table as indented JSON, so that a crash leaves the old file or the new one."""
    with replaced_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
