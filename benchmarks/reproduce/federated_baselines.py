"""Parts that train a federated peer: its private parts live in this process, so an interrupted one begins anew."""

from functools import partial
from pathlib import Path

from benchmarks.reproduce.jobs import Figures, Job, JobFolder, keep_ranks
from benchmarks.reproduce.preset import PRESETS, Preset
from benchmarks.reproduce.runs import RUN
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml
from fedrec.evaluation import measured
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.node import Node
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import RUN as RUN_FILES
from fedrec.federation.training_run import open_run
from fedrec.recsys.evaluation.ranking import Ranking, rank_users
from fedrec.training import train_shown

SAMPLED = "sampled-99"
PEERS = {
    "fedmf": {"method": "fedmf"},
    "pfedrec": {"method": "pfedrec"},
    "pfedrec-leak": {"method": "pfedrec", "baseline_leak": True},
}
"""By name, what makes each: its authors' other settings stand in `benchmarks/peers/METHOD.toml`."""


def peers(preset: Preset) -> list[Job]:
    """A part for each peer and seed. Raises `InputError` for settings of a peer that does not exist."""
    if unknown := preset.peers.keys() - PEERS.keys():
        raise InputError(f"peers.{min(unknown)} is not known; the peers are {', '.join(PEERS)}")
    return [_part(name, _config(preset, name, seed)) for name in PEERS for seed in preset.seeds]


def _config(preset: Preset, name: str, seed: int) -> RunConfig:
    settings = PEERS[name]
    authors = read_toml(PRESETS / "peers" / f"{settings['method']}.toml", "fetch the repository again")
    return from_flat(authors | settings | preset.peers.get(name, {}) | {"seed": seed})


def _part(name: str, config: RunConfig) -> Job:
    return Job("peers", name, f"peer-{name}-{config.seed}", to_flat(config), partial(_train, config))


def _train(config: RunConfig, place: JobFolder) -> Figures:
    out = place.folder / RUN
    RUN_FILES.clear(out)
    run = open_run(out, Dataset.open(place.data), config, resume=False, histories=TrainedOn.of(place.data))
    (node,) = train_shown(run).nodes
    test = _ranked(node, out, "test", "full")
    keep_ranks(place.folder, test.ranks)
    return {
        "test": measured(test),
        "validation": measured(_ranked(node, out, "validation", "full")),
        SAMPLED: measured(_ranked(node, out, "test", SAMPLED)),
    }


def _ranked(node: Node, out: Path, split: str, protocol: str) -> Ranking:
    """Rank all users by the node that has just trained them and still keeps their client states."""
    state = State.load(out)
    assert state, "a run that is finished has a state"
    score = node.setup.method.scorer(state.best, node.shard, split, node.states.at(state.run, state.best_round))
    return rank_users(score, node.shard, range(len(node.shard)), split, protocol, coverage=True)
