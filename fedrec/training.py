"""Training in this process, with its progress on the terminal."""

from pathlib import Path
from typing import Any

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.rounds import Observer
from fedrec.federation.training_run import TrainedOn, open_run
from fedrec.federation.training_run import train as train_over
from fedrec.recsys.embeddings import embed, resolve
from fedrec.run import Run


def train(
    dataset: Dataset,
    *,
    out: str | Path,
    resume: bool = False,
    start: Run | str | Path | None = None,
    other_histories: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train a recommender on a dataset, and write the run to the folder `out`.

        run = fedrec.train(films, out="runs/try", rounds=60, nodes=8)
        run = fedrec.train(films, out="runs/pooled", mode="central")

    The settings are those of docs/settings.md, by name. `resume` continues an interrupted run with the settings that it
    has; with `other_histories`, also on other histories than it began on. `start` is a run whose adapter is the initial
    one. Raises `InputError` for a setting that is unknown or does not fit, and if `out` holds something else. An
    interruption (Ctrl-C) passes through; the run can be resumed after it.
    """
    if other_histories and not resume:
        raise InputError("`other_histories` goes with `resume`: a new run takes the histories of its dataset")
    folder, config = Path(out), from_flat(settings) if settings else None
    if not resume:
        _check_examples(dataset.shard, config or RunConfig())
    origin = start.folder if isinstance(start, Run) else Path(start) if start else None
    config = open_run(folder, dataset, config, resume, origin, TrainedOn.of(dataset.folder, other_histories))
    if resume and config.keeps:
        raise InputError(f"{folder}: the private parts of {config.method} are lost; train again, into another `out`")
    try:
        train_rounds(dataset, folder, config, progress)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(_what_is_saved(folder, config))
        raise
    return Run.open(folder)


def train_rounds(dataset: Dataset, out: Path, config: RunConfig, progress: bool = True) -> None:
    """Train the remaining rounds of an opened run, with or without showing the progress."""
    if not progress:
        _train_rounds(dataset, out, config, lambda record: None)
        return
    with console.counting("embedding items") as count:  # before the first round, so that its progress can be seen
        embed(dataset.catalogue, resolve(config.model.encoder), dataset.folder, count)
    with console.rounds(config.rounds, config.validate_every, done=len(round_log.read(out))) as observe:
        _train_rounds(dataset, out, config, observe)


def _train_rounds(dataset: Dataset, out: Path, config: RunConfig, observe: Observer) -> None:
    train_over(LocalGrid.over(dataset, config), out, dataset, config, observe)


def _what_is_saved(out: Path, config: RunConfig) -> str:
    """Describe what an interrupted run can be resumed from."""
    if config.keeps:
        return f"the private parts of {config.method} are lost: train again, into another `out`"
    return f"{len(round_log.read(out))} rounds are saved in {out}; continue with `resume=True`"


def _check_examples(shard: Shard, config: RunConfig) -> None:
    """Raise `InputError` if no user has an example to learn from."""
    longest, least = int((shard.ends - shard.starts).max(initial=0)), config.least_events
    if longest < least:
        raise InputError(
            f"nobody has anything to learn from: with held_out = {config.held_out} a user needs {least} events, and "
            f"the longest history has {longest}; give longer histories, or lower held_out"
        )
