"""The environment of a result: the versions of the libraries, and the machine."""

import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from fedrec.recsys.hardware import describe_hardware

LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu", "polars", "numpy")
"""The libraries whose versions bear on a result."""


def environment_info() -> dict[str, Any]:
    """Return the versions and the machine, as a card or a results file records them."""
    return {
        "versions": {"python": platform.python_version(), **dict(installed_libraries())},
        "machine": {"system": platform.platform(), "processor": processor_name(), **describe_hardware()},
    }


def installed_libraries() -> Iterator[tuple[str, str]]:
    """Iterate over the installed ones of the libraries, and their versions: a node has no FAISS, say."""
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def processor_name() -> str:
    """Return the processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
