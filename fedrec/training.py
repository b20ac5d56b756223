"""Training in this process, with its progress on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.exposure_rounds import describe as describe_exposure
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.round_log import Observer, ignore, join_observers
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.tracking.tracker import TrackedRun, check_trackers, tracking
from fedrec.federation.training_run import TrainingRun, open_run
from fedrec.federation.training_run import train as train_over
from fedrec.recsys.card import load_card
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.run import Run


def train(
    dataset: Dataset,
    *,
    out: str | Path,
    resume: bool = False,
    start: Run | str | Path | None = None,
    other_histories: bool = False,
    progress: bool = True,
    track: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train a recommender on a dataset, and write the run to the folder `out`.

        run = fedrec.train(films, out="runs/try", rounds=60, nodes=8)
        run = fedrec.train(films, out="runs/pooled", mode="central")

    The settings are those of docs/settings.md, by name. `resume` continues an interrupted run with the settings that it
    has; with `other_histories`, also on other histories than it began on. `start` is a run whose adapter is the initial
    one. `track` names trackers that get the figures of each round: `tensorboard`, `mlflow`, `wandb`
    (docs/exports.md#trackers). Raises `InputError` for a setting that is unknown or does not fit, and if `out` holds
    something else. An interruption (Ctrl-C) passes through; the run can be resumed after it.
    """
    if other_histories and not resume:
        raise InputError("`other_histories` goes with `resume`: a new run takes the histories of its dataset")
    check_trackers(track)
    folder, config = Path(out), from_flat(settings) if settings else None
    if not resume:
        _check_examples(dataset.shard, config or RunConfig())
    origin = start.folder if isinstance(start, Run) else Path(start) if start else None
    run = open_run(folder, dataset, config, resume, origin, TrainedOn.of(dataset.folder, other_histories))
    if resume and run.config.has_client_state:
        raise InputError(
            f"{folder}: the client states of {run.config.method} are lost; train again, into another `out`"
        )
    try:
        with tracking(track, TrackedRun(folder, to_flat(run.config))) as tracked:
            train_rounds(run, progress, tracked.observe)
            tracked.finish(round_log.load_metrics(folder))
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(_what_is_saved(run))
        raise
    return Run.open(folder)


def train_rounds(run: TrainingRun, progress: bool = True, observe: Observer = ignore) -> LocalGrid:
    """Train the remaining rounds of an opened run, and return the grid with its nodes and their client states.

    The progress is shown on the terminal, unless `progress` is false.
    """
    grid, config = LocalGrid.over(run.setup), run.config
    if not progress:
        train_over(grid, run, observe)
        return grid
    with console.counting("embedding items") as count:  # before the first round, so that its progress can be seen
        embed_catalogue(run.dataset.catalogue, run.setup.encoder, run.dataset.folder, count)
    with console.rounds(config.last_round, config.validate_every, done=len(round_log.read(run.out))) as show:
        train_over(grid, run, join_observers(show, observe))
    console.status(describe_exposure(load_card(run.out)["exposure"]))
    return grid


def _what_is_saved(run: TrainingRun) -> str:
    """Describe what an interrupted run can be resumed from."""
    if run.config.has_client_state:
        return f"the client states of {run.config.method} are lost: train again, into another `out`"
    return f"{len(round_log.read(run.out))} rounds are saved in {run.out}; continue with `resume=True`"


def _check_examples(shard: Shard, config: RunConfig) -> None:
    """Raise `InputError` if no user has an example to learn from."""
    longest, least = int(shard.lengths(config.held_out).max(initial=0)) + config.held_out, config.min_events
    if longest < least:
        raise InputError(
            f"nobody has anything to learn from: with held_out = {config.held_out} a user needs {least} events, and "
            f"the longest history has {longest}; give longer histories, or lower held_out"
        )
