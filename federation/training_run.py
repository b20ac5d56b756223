"""A training run over any Grid: begin or resume, train the rounds, evaluate the best one, write the artifact."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.split import Split
from fedrec.data.storage.contents import Contents, is_vacant
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use
from fedrec.federation import closed_form_rounds, exposure_rounds, round_log, run_statistics, wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import STATE, State
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import orders_per_node, request_updates
from fedrec.federation.messages import Order
from fedrec.federation.privacy.ledger import FILE as LEDGER
from fedrec.federation.privacy.ledger import Ledger
from fedrec.federation.privatise import enter_ledger
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import METRICS, Observer, RoundLog, ignore
from fedrec.federation.rounds import run as run_rounds
from fedrec.federation.run_checks import (
    UNKNOWN,
    TrainedOn,
    check_histories,
    check_private_start,
    check_warm_start,
    origin,
    resumed_config,
    warn_of_start,
)
from fedrec.federation.served import Served
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.card import load_card
from fedrec.recsys.closed_form.config import check_catalogue
from fedrec.recsys.environment import environment_info
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.recommender import CARD, FILES, Recommender

DATA = ("name", "items", "split", "split_rule", "catalogue_fingerprint", "citation")
"""The entries of a dataset's manifest that its runs' cards repeat."""

RUN = Contents(
    "run",
    CARD,
    (
        CARD,
        METRICS,
        LEDGER,
        round_log.FILE,
        STATE,
        CATALOGUE,
        *FILES,
        *run_statistics.FILES,
        "index.faiss",
        "index.json",
    ),
)
"""The files of a run's folder, with the index that an endpoint may leave there."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """An opened run: its folder, and what it trains with."""

    out: Path
    setup: TrainingSetup

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.setup.config

    @property
    def dataset(self) -> Dataset:
        """The dataset that the run trains on."""
        return self.setup.dataset


def open_run(
    out: Path,
    dataset: Dataset,
    config: RunConfig | None,
    resume: bool,
    start: Path | None = None,
    histories: TrainedOn = UNKNOWN,
) -> TrainingRun:
    """Begin a run in an empty folder, or open an interrupted one.

    A new run begins from the adapter of the run in `start`, if one is given, whatever items that run knew. With
    `resume`, `config` and `start` may be None: the card holds them. Raises `InputError` if the folder is occupied, if
    there is nothing to resume, or if the run was begun with something else.
    """
    first = Recommender.load(start) if start else None
    if resume:
        return TrainingRun(out, TrainingSetup(dataset, _resume(out, dataset, config, first, histories)))
    _check_free(out)
    setup = TrainingSetup(dataset, config or RunConfig())
    _check_held_out(setup)
    if setup.config.method_row.summed:
        check_catalogue(setup.config.closed_form, len(dataset.catalogue))
    _ = setup.model  # an encoder that cannot give it is refused before anything is written
    if first:
        check_warm_start(first, setup)
        check_private_start(first, setup.config, dataset.manifest)
        warn_of_start(first, dataset.manifest, histories)
    card = new_card(setup.config, dataset.manifest, setup.described_encoders, first)
    card["data"]["histories"] = histories.fingerprint
    with in_use(out):
        _check_free(out)  # of a run that began meanwhile
        if first:  # before the card: every run that can be resumed has its start
            State.start(first.adapter, setup.config.server).save(out)
        save_json(out / CARD, card)
    return TrainingRun(out, setup)


def _resume(
    out: Path, dataset: Dataset, config: RunConfig | None, first: Recommender | None, histories: TrainedOn
) -> RunConfig:
    """Return the config of an interrupted run. Raises `InputError` if the run does not belong to the dataset."""
    card, data = load_card(out), dataset.folder
    if card["data"]["catalogue_fingerprint"] != dataset.catalogue.fingerprint:
        raise InputError(f"{out} was trained on other items than {data} holds; resume with the data it began with")
    if Split.from_record(card["data"], str(out / CARD)) != dataset.split:
        raise InputError(f"{out} began in another split than {data} has; resume with the data it began with")
    original = resumed_config(out, card, config, first)
    TrainingSetup(dataset, original).check_encoders(card, str(out))
    check_histories(histories, out, card, data)
    return original


def _check_free(out: Path) -> None:
    """Raise `InputError` if a folder holds more than the beginning of a run that was killed before it had a card."""
    if not is_vacant(out, but=(STATE,)):
        raise InputError(f"`out` {out} is not empty; add `resume=True` to continue it, or choose another folder")


def _check_held_out(setup: TrainingSetup) -> None:
    """Raise `InputError` if the run would train on items that are cold by the dataset's split."""
    config, dataset = setup.config, setup.dataset
    if config.final_held_out < 2 and "cold" in dataset.catalogue.frame.columns:
        raise InputError(
            f"setting {config.what_was_seen}: the items that {dataset.folder} holds out are cold, and no client may "
            f"train on them; leave {config.what_was_seen.split()[0]} at 2, or prepare the data without cold items"
        )


def train(grid: Grid, run: TrainingRun, observe: Observer = ignore, wait: float = 0) -> None:
    """Train over `grid` to the last round, from the checkpoint in the run's folder if there is one.

    Of the dataset only the public side is used: the catalogue, and its embeddings, which are computed if absent. No
    shard is opened here. The run's folder gets metrics and a card, and, if the method is servable, the artifact.
    Raises `InputError` if another process trains into the folder for `wait` seconds.
    """
    with in_use(run.out, wait):
        _train(grid, run, observe)


def _train(grid: Grid, run: TrainingRun, observe: Observer) -> None:
    out, setup, config = run.out, run.setup, run.config
    # train
    state = State.load(out) or State.start(setup.method.adapter(), config.server)
    round_log.rewind(out, state.round)
    roster = take_census(grid, config, setup.stamp)
    state = enter_ledger(out, config, state, len(roster))
    log = RoundLog(out, observe)
    if config.method_row.trained:
        state = run_rounds(grid, roster, state, config, log)
    if config.method_row.summed:
        state = closed_form_rounds.run(grid, roster, state, setup, log)
    if not state.best_round:
        raise InputError(f"no round was answered and validated; {out}/{round_log.FILE} names every refused node")
    # evaluate the best round, as it is served
    served, card = Served.load(out, setup, state), load_card(out)
    bounded = exposure_rounds.bound_exposure(grid, roster, served, log)
    served, card["exposure"] = replace(served, bias=bounded.bias), bounded.record
    metrics = {split: _evaluate(grid, roster, served, split) for split in config.reported}
    if config.final_sums:  # they hold the items of validation, which was measured before them
        metrics["validation"] = {"full": closed_form_rounds.validation_before(out, config)}
    # write
    card |= {"finished": True, "rounds": state.round, "best_round": state.best_round}
    save_json(out / METRICS, metrics)
    write_run(out, served, card)


def write_run(out: Path, served: Served, card: dict[str, Any]) -> None:
    """Write the card of a finished run into its folder and, if its method is servable, the artifact.

    The sums of a closed form, which the card summarises, must be in the folder.
    """
    setup, state = served.setup, served.state
    if setup.config.privacy.enabled:
        card["privacy"] = Ledger.load(out).as_record()
    if state.chosen and served.total:
        about = {"chosen": state.chosen.as_record(), "held_out": setup.config.final_held_out}
        card["sums"] = about | run_statistics.summarise(out, served.total)
    if setup.config.method_row.servable:
        served.artifact(card).save(out)
    else:
        save_json(out / CARD, card | {"fingerprints": {"adapter": fingerprint(state.best)}})


def _evaluate(grid: Grid, roster: Roster, served: Served, split: str) -> dict[str, dict[str, float]]:
    """Compute the metrics of all users at the best round, by protocol. Raises `InputError` if no user was ranked."""
    metrics, state, config = {}, served.state, served.setup.config
    for protocol in config.method_row.protocols:
        order = Order(state.best_round, np.arange(len(roster)), split=split, protocol=protocol, run=state.run)
        report = request_updates(grid, wire.EVALUATE, orders_per_node(roster, order), served.adapter, config)
        if report.metrics is None:
            raise InputError(f"no user was ranked in the {split} evaluation; bring the nodes back and resume")
        metrics[protocol] = report.metrics
    return metrics


def new_card(
    config: RunConfig, manifest: Mapping[str, Any], encoders: Mapping[str, Any], first: Recommender | None
) -> dict[str, Any]:
    """Build the card of a new run: all that a reader needs to understand or repeat it, and nothing of any user."""
    return {
        "finished": False,
        "config": asdict(config),
        "seed": config.seed,
        "start": origin(first) if first else None,  # None: from scratch
        "data": {name: manifest[name] for name in DATA},
        **encoders,
        **environment_info(),
    }
