"""Jobs that train a federated baseline. Its client states live in this process: an interrupted job starts over."""

from functools import partial

from benchmarks.preset import PRESETS, Preset
from benchmarks.reproduce.jobs import RUN, Figures, Job, JobFolder, keep_ranks
from benchmarks.reproduce.runs import metrics_of, rank_on_node
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import RUN as RUN_FILES
from fedrec.federation.training_run import open_run
from fedrec.training import train_rounds

FAMILY = "peers"
"""The family's name on the command line and in files, as in version 0.1; a job's name begins with `peer-`."""

FEDERATED_BASELINES = {
    "fedmf": {"method": "fedmf"},
    "pfedrec": {"method": "pfedrec"},
    "pfedrec-leak": {"method": "pfedrec", "baseline_leak": True},
}
"""Name → its own settings; the other settings of its authors are in `benchmarks/peers/METHOD.toml`."""


def federated_baseline_jobs(preset: Preset) -> list[Job]:
    """Build a job for each federated baseline and seed. Raises `InputError` for settings of an unknown one."""
    if unknown := preset.peers.keys() - FEDERATED_BASELINES.keys():
        names = ", ".join(FEDERATED_BASELINES)
        raise InputError(f"peers.{min(unknown)} is not known; the federated baselines are {names}")
    return [_job(name, _config(preset, name, seed)) for name in FEDERATED_BASELINES for seed in preset.seeds]


def _config(preset: Preset, name: str, seed: int) -> RunConfig:
    settings = FEDERATED_BASELINES[name]
    authors = read_toml(PRESETS / "peers" / f"{settings['method']}.toml", "fetch the repository again")
    return from_flat(authors | settings | preset.peers.get(name, {}) | {"seed": seed})


def _job(name: str, config: RunConfig) -> Job:
    return Job(FAMILY, name, f"peer-{name}-{config.seed}", to_flat(config), partial(_train_and_rank, config))


def _train_and_rank(config: RunConfig, place: JobFolder) -> Figures:
    out, dataset = place.folder / RUN, Dataset.open(place.data)
    RUN_FILES.clear(out)
    run = open_run(out, dataset, config, resume=False, histories=TrainedOn.of(place.data))
    (node,) = train_rounds(run).nodes
    test = rank_on_node(node, out, "test")
    keep_ranks(place.folder, test.ranks)
    return Figures(
        test=metrics_of(test),
        validation=metrics_of(rank_on_node(node, out, "validation")),
        sampled_99=metrics_of(rank_on_node(node, out, "test", "sampled-99")),
    )
