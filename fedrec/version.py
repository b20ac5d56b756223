"""The version of the package."""

import tomllib
from importlib import metadata
from pathlib import Path


def installed_version() -> str:
    """Return the installed version, or the version of the clone if the package is not installed."""
    try:
        return metadata.version("fedrec")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parent.parent / "pyproject.toml"
        return tomllib.loads(project.read_text("utf-8"))["project"]["version"]
