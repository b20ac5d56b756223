"""The commands that measure: `bench`, `reproduce`, `attack`, `results` and `settings`.

They and the data that they make are in `benchmarks/`, which a clone of the repository has and a wheel has not.
"""

import importlib
import sys
from pathlib import Path

import typer

import fedrec
from fedrec.data.errors import InputError

CLONE = Path(fedrec.__file__).resolve().parent.parent
COMMANDS = {
    "bench": "Measure this machine: the claims of speed and size, as commands.",
    "reproduce": "Run a benchmark from the raw data to its results.",
    "attack": "Attack a federation: what each attacker learns or does, with each defence on and off.",
    "results": "Make docs/results.md, docs/attacks.md, their plots and README's results from benchmarks.",
    "settings": "Make docs/settings.md, the reference of all settings.",
}
"""What a clone adds to the command line; `fedrec --help` lists it everywhere."""


def harness_app() -> typer.Typer:
    """Return the clone's commands; without a clone, commands of the same names that say how to get one."""
    if (CLONE / "pyproject.toml").is_file() and (CLONE / "benchmarks" / "commands.py").is_file():
        sys.path.insert(0, str(CLONE))
        return importlib.import_module("benchmarks.commands").app
    app = typer.Typer()
    for name, about in COMMANDS.items():
        app.command(name, help=f"{about} Needs a clone.", context_settings=ANY_ARGUMENTS)(_needs_clone(name))
    return app


ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def _needs_clone(name: str):
    def command() -> None:
        raise InputError(
            f"`fedrec {name}` belongs to the benchmarks, which only a clone of fedrec's repository has; "
            "clone it, run `make install` there, and then this command"
        )

    return command
