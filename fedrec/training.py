"""`fedrec train`: settings from outside, then training in this process with its progress on the terminal."""

import json
from pathlib import Path
from typing import Any

import typer

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.storage.reading import read_toml
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import METRICS, TrainingRun, open_run, train
from fedrec.recsys.embeddings import embed_catalogue


def train_here(
    data: Path,
    out: Path,
    config: RunConfig | None,
    resume: bool,
    start: Path | None = None,
    other_histories: bool = False,
) -> dict[str, Any]:
    """Train in this process with progress on the terminal; the run's metrics."""
    dataset = Dataset.open(data)
    if not resume:
        _someone_learns(dataset.shard, config or RunConfig())
    run = open_run(out, dataset, config, resume, start, TrainedOn.of(data, other_histories))
    config = run.config
    if resume and config.has_client_state:
        raise InputError(f"{out}: the private parts of {config.method} are lost; train anew, into another --out")
    try:
        train_shown(run)
    except KeyboardInterrupt as interrupt:
        done, again = len(round_log.read(out)), f"fedrec train {data} --out {out} --resume"
        lost = f"the private parts of {config.method} are lost: train anew, into another --out"
        console.status(
            f"Stopped; {lost if config.has_client_state else f'{done} rounds are saved. Go on with: {again}'}"
        )
        raise typer.Exit(130) from interrupt
    return json.loads((out / METRICS).read_text("utf-8"))


def _someone_learns(shard: Shard, config: RunConfig) -> None:
    """Raise `InputError` if no user has an example to learn from."""
    most, least = int((shard.ends - shard.starts).max(initial=0)), config.min_events
    if most < least:
        raise InputError(
            f"nobody has anything to learn from: with held_out = {config.held_out} a user needs {least} events, and "
            f"the longest history has {most}; give longer histories, or lower held_out"
        )


def train_shown(run: TrainingRun) -> LocalGrid:
    """Train an opened run to its last round with progress on the terminal, and return the grid that it trained over."""
    config, grid = run.config, LocalGrid.over(run.setup)
    _embed(run)
    with console.rounds(config.rounds, config.validate_every, done=len(round_log.read(run.out))) as observe:
        train(grid, run, observe)
    return grid


def _embed(run: TrainingRun) -> None:
    """Embed the catalogue before the first round, where its progress can be seen."""
    with console.counting("embedding items") as progress:
        embed_catalogue(run.dataset.catalogue, run.setup.encoder, run.dataset.folder, progress)


def read_settings(file: Path | None, pairs: list[str]) -> RunConfig | None:
    """The config that a TOML file and `--set`s ask for; None where nothing is asked.

    The file is a table of settings, or a benchmark's preset, whose table of settings it then is.
    """
    table: dict[str, Any] = {}
    if file:
        try:
            found = read_toml(file, "mend it, or use --set", "--config ")
            table |= found["settings"] if isinstance(found.get("settings"), dict) else found
        except FileNotFoundError as error:
            raise InputError(f"--config {file} does not exist; give a TOML file of settings") from error
        except OSError as error:
            raise InputError(f"--config {file} cannot be read ({error.strerror}); give a TOML file") from error
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--set {pair!r} has no '='; write --set name=value")
        table[name.strip()] = value.strip()
    return from_flat(table) if table else None
