"""A whole training job over any Grid: start or resume, run the rounds, evaluate the best, write the artifact."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from flwr.serverapp import Grid

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of, same_key
from fedrec.data.storage.contents import Contents, is_vacant
from fedrec.data.storage.locks import in_use
from fedrec.federation import round_log, wire
from fedrec.federation.config import RunConfig, from_nested, to_flat
from fedrec.federation.messages import Order
from fedrec.federation.node import method_of
from fedrec.federation.rounds import Observer, orders_per_node, request_updates, run, take_census
from fedrec.federation.server import STATE, Roster, State
from fedrec.recsys.card import load_card
from fedrec.recsys.embeddings import Encoder, embed, resolve
from fedrec.recsys.hardware import describe_hardware
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.recommender import CARD, FILES, Recommender, save_json

METRICS = "metrics.json"
RUN = Contents("run", CARD, (CARD, METRICS, round_log.FILE, STATE, CATALOGUE, *FILES, "index.faiss", "index.json"))
"""With the index that an endpoint may leave there."""

logger = logging.getLogger("fedrec")
LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu", "polars", "numpy")


@dataclass(frozen=True)
class TrainedOn:
    """The histories that a run trains on, as far as the process that opens the run can tell."""

    fingerprint: str | None = None  # None: they are on other machines, or in a folder without a key
    others_meant: bool = False  # a run may go on with them that began on others

    @classmethod
    def of(cls, data: Path, others_meant: bool = False) -> Self:
        """Those in a prepared folder. Raises `InputError` if its shard is damaged."""
        return cls(fingerprint_of(data), others_meant)


def open_run(
    out: Path,
    dataset: Dataset,
    config: RunConfig | None,
    resume: bool,
    start: Path | None = None,
    histories: TrainedOn = TrainedOn(),
) -> RunConfig:
    """Make the run's folder and card, or open the ones of an interrupted run; returns the run's config.

    A new run begins from the adapter of the run in `start`, if there is one, whatever items that knew. With `resume`,
    `config` and `start` may be None: the card knows. Raises `InputError` where the folder is taken, where there is
    nothing to resume, or where what is asked is not what was begun.
    """
    manifest, catalogue, data = dataset.manifest, dataset.catalogue, dataset.folder
    first = Recommender.load(start) if start else None
    if resume:
        card = load_card(out)
        if card["data"]["catalogue_fingerprint"] != manifest["catalogue_fingerprint"]:
            raise InputError(f"{out} was trained on other items than {data} holds; resume with the data it began with")
        if card["data"]["split"] != manifest["split"]:
            raise InputError(f"{out} began in another split than {data} has; resume with the data it began with")
        begun = _resumed_config(out, card, config, first)
        _go_on_with(histories, out, card, data)
        return begun
    _refuse_taken(out)
    config = config or RunConfig()
    if config.held_out < 2 and "cold" in catalogue.frame.columns:
        raise InputError(
            f"setting held_out = {config.held_out}: what {data} holds out are items that nobody may train on; leave "
            "held_out at 2, or prepare the data without --split cold-items"
        )
    encoder = resolve(config.model.encoder)
    Model(config.model, encoder)  # what the encoder cannot give is refused before anything is written
    if first:
        _check_warm_start(first, config, encoder)
        _tell_of_start(first, manifest, histories)
    card = new_card(config, manifest, encoder, first)
    card["data"]["histories"] = histories.fingerprint
    with in_use(out):
        _refuse_taken(out)  # by a run that began meanwhile
        if first:  # before the card: whatever can be resumed knows where it began
            State.start(first.adapter, config.server).save(out)
        save_json(out / CARD, card)
    return config


def _refuse_taken(out: Path) -> None:
    """Raise `InputError` if a folder holds more than a beginning that was killed before it had a card."""
    if not is_vacant(out, but=(STATE,)):
        raise InputError(f"`out` {out} is not empty; add `resume=True` to continue it, or choose another folder")


def _go_on_with(histories: TrainedOn, out: Path, card: dict[str, Any], data: Path) -> None:
    """Note in the card of a run that goes on if it does so with other histories. Raises `InputError` if that is not
    meant."""
    was, now = card["data"].get("histories"), histories.fingerprint
    if was == now or not was or not now:
        if was or now:
            logger.warning("whether %s began on the histories in %s cannot be told; going on with these", out, data)
        return
    if not histories.others_meant:
        differ = "other histories than" if same_key(was, now) else "histories that cannot be compared with those that"
        raise InputError(
            f"{out} began on {differ} {data} holds{'' if same_key(was, now) else ', prepared anew or elsewhere'}; "
            "resume with the data it began with, or add --other-histories if these are meant"
        )
    card["data"] |= {"histories": now, "earlier_histories": [*card["data"].get("earlier_histories", []), was]}
    with in_use(out):
        save_json(out / CARD, card)


def _tell_of_start(first: Recommender, manifest: Mapping[str, Any], histories: TrainedOn) -> None:
    """Warn if the run to start from learned from other histories of the same items."""
    told, now = first.card["data"], histories.fingerprint
    same_items = told["catalogue_fingerprint"] == manifest["catalogue_fingerprint"]
    if same_items and now and told.get("histories") not in (None, now):
        logger.warning(
            "%s learned from other histories of these items: if what is held out here was among them, this run's "
            "metrics are too high",
            first.version,
        )


def _resumed_config(out: Path, card: dict[str, Any], config: RunConfig | None, first: Recommender | None) -> RunConfig:
    """The config in a card, if it is what is asked for. Raises `InputError`."""
    begun = from_nested(card["config"])
    if resolve(begun.model.encoder).sha256 != card["encoder"]["sha256"]:
        raise InputError(f"{out} began with other weights of {begun.model.encoder} than are here; bring those back")
    if config is not None:
        _check_same_config(begun, config, out)
    if first and origin(first) != card.get("start"):
        was = card["start"]["model_version"] if card.get("start") else "scratch"
        raise InputError(f"{out} began from {was}, not {first.version}; resume without --start")
    return begun


def origin(first: Recommender) -> dict[str, str]:
    """What a card tells of the run that its own run began from."""
    return {"name": first.card["data"]["name"], "model_version": first.version}


def _check_warm_start(first: Recommender, config: RunConfig, encoder: Encoder) -> None:
    """Raises `InputError` where the adapter of the run to start from is not one of this run's model."""
    if config.keeps:
        raise InputError(f"--start is a run of fedrec, which {config.method} cannot go on from; leave --start out")
    was, now = to_flat(from_nested(first.card["config"]).model), to_flat(config.model)
    for name in was:
        if was[name] != now[name]:
            raise InputError(
                f"--start was trained with {name} = {was[name]}, not {now[name]}; add --set {name}={was[name]}"
            )
    if config.model.user_encoder_init == "random" and first.card["seed"] != config.seed:
        raise InputError(f"--start has random weights of seed {first.card['seed']}, not {config.seed}; set that seed")
    if first.card["encoder"]["sha256"] != encoder.sha256:
        raise InputError(f"--start was trained on other weights of {encoder.name} than are here; bring those back")


def _check_same_config(begun: RunConfig, asked: RunConfig, out: Path) -> None:
    was, now = to_flat(begun), to_flat(asked)
    if changed := [name for name in was if was[name] != now[name]]:
        name = changed[0]
        raise InputError(f"{out} began with {name} = {was[name]}, not {now[name]}; resume without changing settings")


def train(grid: Grid, out: Path, dataset: Dataset, config: RunConfig, observe: Observer) -> None:
    """Train over `grid` to the last round, from the state in `out` if there is one, and write there what came of it.

    Of the dataset only the public side is used: the catalogue, and its embeddings, which are
    made there if they are absent. No shard is opened here. A peer's run gets metrics and a card, but no artifact:
    without its users' private parts, which stay on the nodes, what it learned ranks nothing. Raises `InputError` if
    another process trains into `out`.
    """
    with in_use(out):
        _train(grid, out, dataset, config, observe)


def _train(grid: Grid, out: Path, dataset: Dataset, config: RunConfig, observe: Observer) -> None:
    encoder = resolve(config.model.encoder)
    model, public = Model(config.model, encoder, config.seed), embed(dataset.catalogue, encoder, dataset.folder)
    state = State.load(out) or State.start(method_of(config, model, public).adapter(), config.server)
    round_log.rewind(out, state.round)
    roster = take_census(grid, config, public.stamp)
    state = run(grid, roster, state, config, out, observe)
    if not state.best_round:
        raise InputError(f"no round was answered and validated; {out}/{round_log.FILE} says who was refused and why")
    metrics = {split: _measured(grid, roster, state, split, config) for split in config.measured}
    card = load_card(out) | {"finished": True, "rounds": state.round, "best_round": state.best_round}
    learned = fingerprint(state.best)
    card["fingerprints"] = {"adapter": learned}
    save_json(out / METRICS, metrics)
    if config.keeps:
        save_json(out / CARD, card)
        return
    vectors = model.item_vectors(state.best, public.matrix)
    card["model_version"] = f"{card['data']['name']}-{learned[:12]}"
    card["fingerprints"]["item_vectors"] = fingerprint({"vectors": vectors})
    Recommender(dataset.catalogue, vectors, state.best, card).save(out)


def _measured(grid: Grid, roster: Roster, state: State, split: str, config: RunConfig) -> dict[str, dict[str, float]]:
    """Everybody's metrics at the best round, by protocol. A peer's figures are published against sampled items."""
    found = {}
    for protocol in ("full", "sampled-99") if config.keeps else ("full",):
        order = Order(state.best_round, np.arange(len(roster)), split=split, protocol=protocol, run=state.run)
        metrics = request_updates(grid, wire.EVALUATE, orders_per_node(roster, order), state.best, config).metrics
        if metrics is None:
            raise InputError(f"nobody was ranked in the {split} evaluation; bring the nodes back and resume")
        found[protocol] = metrics
    return found


def new_card(
    config: RunConfig, manifest: Mapping[str, Any], encoder: Encoder, first: Recommender | None
) -> dict[str, Any]:
    """What a reader needs to know of a run, and to have it again. Nothing of any user is in it."""
    return {
        "finished": False,
        "config": asdict(config),
        "seed": config.seed,
        "start": origin(first) if first else None,  # None: from scratch
        "data": {name: manifest[name] for name in ("name", "items", "split", "catalogue_fingerprint", "citation")},
        "encoder": {"name": encoder.name, "revision": encoder.revision, "sha256": encoder.sha256},
        **environment_info(),
    }


def environment_info() -> dict[str, Any]:
    """What else bears on a result: versions and machine."""
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}
    return {
        "versions": versions,
        "machine": {"system": platform.platform(), "processor": processor_name(), **describe_hardware()},
    }


def processor_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
