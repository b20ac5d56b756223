"""The Flower app bundle: the code of this package that `flwr run` sends, and how a node compares it with its own."""

import io
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import fedrec
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from fedrec.federation.config import Scalar

PACKAGES = ("fedrec/data", "fedrec/recsys", "fedrec/federation")
"""The packages that a bundle holds, in the layout of an installed wheel, and beside them the top-level `__init__`."""

FACE = "fedrec/__init__.py"
ROOT = Path(fedrec.__file__).parent.parent
"""The folder that holds the installed package: a clone, or site-packages."""

PYPROJECT = "pyproject.toml"
NOT_CODE = {PYPROJECT, ".info/CONTENT"}
SHOWN = 3
"""How many differing files a refusal names."""


class ForeignBundle(InputError):
    """A bundle that holds other code than this machine has installed."""


def installed() -> dict[str, bytes]:
    """Read the Python files of the installed packages: name in a bundle → content."""
    files = [ROOT / FACE, *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files}


def write(folder: Path) -> None:
    """Write the app folder that `flwr run` takes, from the installed packages."""
    for name, content in installed().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / PYPROJECT).write_text(_pyproject(), "utf-8")


def refuse_foreign(content: bytes, expected: Mapping[str, bytes]) -> None:
    """Raise `ForeignBundle` unless a bundle holds exactly the expected files, byte for byte, and no others.

    The bundle, a zip file, is read in memory, and never further than the expected files are long.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            names = {name for name in bundle.namelist() if name not in NOT_CODE}
            changed = sorted(name for name in names & expected.keys() if not _same(bundle, name, expected[name]))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise ForeignBundle(f"the bundle cannot be read: {type(error).__name__}") from None
    if differing := [*sorted(names - expected.keys()), *changed, *sorted(expected.keys() - names)]:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise ForeignBundle(
            f"the bundle is not the fedrec that is installed here: {', '.join(differing[:SHOWN])}{more} "
            "differ; install the same version on the server and on every node"
        )


def _same(bundle: zipfile.ZipFile, name: str, expected: bytes) -> bool:
    with bundle.open(name) as file:
        return file.read(len(expected) + 1) == expected


def _pyproject() -> str:
    """Write the app's `pyproject.toml`, with the settings and defaults of the installed package."""
    from fedrec.federation.config import (  # imports torch, which a comparison does not need
        RUN_PATHS,
        RunConfig,
        to_flat,
    )

    about = metadata("fedrec")
    include = json.dumps([FACE, *(f"{package}/**/*.py" for package in PACKAGES)])
    settings = "\n".join(f"{name} = {toml(value)}" for name, value in (RUN_PATHS | to_flat(RunConfig())).items())
    return f"""[project]
name = "{about["Name"]}"
version = "{about["Version"]}"
description = {json.dumps(about["Summary"])}
license = "{about["License-Expression"]}"

[tool.flwr.app]
publisher = "fedrec"
fab-include = {include}

[tool.flwr.app.components]
serverapp = "fedrec.federation.server_app:app"
clientapp = "fedrec.federation.client_app:app"

[tool.flwr.app.config]
{settings}
"""


def toml(value: "Scalar") -> str:
    """Format a value as TOML and Flower's command line write it."""
    return json.dumps(value, ensure_ascii=False)
