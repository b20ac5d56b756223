"""fedrec: a federated recommender. This is the library; the command line is `fedrec.cli`.

    import fedrec

    films = fedrec.load_dataset("ml-100k")
    run = fedrec.train(films, rounds=60, nodes=8, out="runs/try")
    run.recommend(query="a heist that goes wrong", k=5)

Each name is imported at its first use, so that `import fedrec` itself takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedrec import baselines
    from fedrec.client import Client
    from fedrec.comparison import compare, evaluate
    from fedrec.data.dataset import Dataset
    from fedrec.data.errors import InputError
    from fedrec.datasets import check_import, import_dataset, load_dataset
    from fedrec.embedding import embed_dataset
    from fedrec.run import Run, load
    from fedrec.training import train

    __version__: str

_MODULES = {
    "Client": "fedrec.client",
    "Dataset": "fedrec.data.dataset",
    "InputError": "fedrec.data.errors",
    "Run": "fedrec.run",
    "baselines": "fedrec.baselines",
    "check_import": "fedrec.datasets",
    "compare": "fedrec.comparison",
    "embed_dataset": "fedrec.embedding",
    "evaluate": "fedrec.comparison",
    "import_dataset": "fedrec.datasets",
    "load": "fedrec.run",
    "load_dataset": "fedrec.datasets",
    "train": "fedrec.training",
}
"""The public API: each name, and the module that it is imported from."""

__all__ = [
    "Client",
    "Dataset",
    "InputError",
    "Run",
    "baselines",
    "check_import",
    "compare",
    "embed_dataset",
    "evaluate",
    "import_dataset",
    "load",
    "load_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a name of the public API at its first use (PEP 562)."""
    if name == "__version__":
        return import_module("fedrec.version").installed_version()
    if name not in _MODULES:
        raise AttributeError(f"module 'fedrec' has no attribute {name!r}")
    from fedrec.extras import naming_the_extra

    with naming_the_extra():
        module = import_module(_MODULES[name])
    return module if module.__name__ == f"fedrec.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
