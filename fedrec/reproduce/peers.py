"""Parts that train a federated peer: its private parts live in this process, so an interrupted one begins anew."""

from functools import partial

from data.errors import InputError
from data.reading import read_toml
from federation.client_app import open_node
from federation.config import RunConfig, from_knobs, knobs
from federation.server import State
from federation.train import RUN as RUN_FILES
from federation.train import TrainedOn, open_run
from fedrec.evaluate import measured
from fedrec.reproduce.parts import Figures, Part, Place, keep_ranks
from fedrec.reproduce.preset import PRESETS, Preset
from fedrec.reproduce.runs import RUN
from fedrec.train import train_shown
from recsys.rank import Ranking, rank_users

SAMPLED = "sampled-99"
PEERS = {
    "fedmf": {"method": "fedmf"},
    "pfedrec": {"method": "pfedrec"},
    "pfedrec-leak": {"method": "pfedrec", "peer_leak": True},
}
"""By name, what makes each: its authors' other settings stand in `benchmarks/peers/METHOD.toml`."""


def peers(preset: Preset) -> list[Part]:
    """A part for each peer and seed. Raises `InputError` for settings of a peer that does not exist."""
    if unknown := preset.peers.keys() - PEERS.keys():
        raise InputError(f"peers.{min(unknown)} is not known; the peers are {', '.join(PEERS)}")
    return [_part(name, _config(preset, name, seed)) for name in PEERS for seed in preset.seeds]


def _config(preset: Preset, name: str, seed: int) -> RunConfig:
    settings = PEERS[name]
    authors = read_toml(PRESETS / "peers" / f"{settings['method']}.toml", "fetch the repository again")
    return from_knobs(authors | settings | preset.peers.get(name, {}) | {"seed": seed})


def _part(name: str, config: RunConfig) -> Part:
    return Part("peers", name, f"peer-{name}-{config.seed}", knobs(config), partial(_train, config))


def _train(config: RunConfig, place: Place) -> Figures:
    out = place.folder / RUN
    RUN_FILES.clear(out)
    opened = open_run(out, place.data, config, resume=False, histories=TrainedOn.of(place.data))
    train_shown(place.data, out, opened)
    test = _ranked(config, place, "test", "full")
    keep_ranks(place.folder, test.ranks)
    return {
        "test": measured(test),
        "validation": measured(_ranked(config, place, "validation", "full")),
        SAMPLED: measured(_ranked(config, place, "test", SAMPLED)),
    }


def _ranked(config: RunConfig, place: Place, split: str, protocol: str) -> Ranking:
    """All users, ranked by the node that has just trained them and still keeps their private parts."""
    node, state = open_node(str(place.data), config, 0, 1, False), State.load(place.folder / RUN)
    assert state, "a run that is finished has a state"
    score = node.learner.scorer(state.best, node.shard, split, node.keep.at(state.run, state.best_round))
    return rank_users(score, node.shard, range(len(node.shard)), split, protocol, coverage=True)
