"""Parts that train a federated peer: its private parts live in this process, so an interrupted one begins anew."""

from functools import partial

from benchmarks.reproduce.jobs import Figures, Job, JobFolder, keep_ranks
from benchmarks.reproduce.preset import PRESETS, Preset
from benchmarks.reproduce.runs import RUN
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml
from fedrec.evaluation import measured
from fedrec.federation.client_app import open_node
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.server import State
from fedrec.federation.training_run import RUN as RUN_FILES
from fedrec.federation.training_run import TrainedOn, open_run
from fedrec.recsys.evaluation.ranking import Ranking, rank_users
from fedrec.training import train_rounds

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
    opened = open_run(out, Dataset.open(place.data), config, resume=False, histories=TrainedOn.of(place.data))
    train_rounds(Dataset.open(place.data), out, opened)
    test = _ranked(config, place, "test", "full")
    keep_ranks(place.folder, test.ranks)
    return {
        "test": measured(test),
        "validation": measured(_ranked(config, place, "validation", "full")),
        SAMPLED: measured(_ranked(config, place, "test", SAMPLED)),
    }


def _ranked(config: RunConfig, place: JobFolder, split: str, protocol: str) -> Ranking:
    """All users, ranked by the node that has just trained them and still keeps their private parts."""
    node, state = open_node(str(place.data), config, 0, 1, False), State.load(place.folder / RUN)
    assert state, "a run that is finished has a state"
    score = node.method.scorer(state.best, node.shard, split, node.keep.at(state.run, state.best_round))
    return rank_users(score, node.shard, range(len(node.shard)), split, protocol, coverage=True)
