"""Parts that put the federated run to another test: items that nobody has touched, and a start from elsewhere."""

from dataclasses import replace
from functools import partial

from benchmarks.reproduce.baselines import baselines
from benchmarks.reproduce.jobs import Figures, Job, JobFolder, Preparation
from benchmarks.reproduce.preset import Preset, slug
from benchmarks.reproduce.runs import finished_run, measured_on, scored, trained, training
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig, to_flat
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.model.scoring import model_scorer
from fedrec.recsys.recommender import Recommender


def cold(preset: Preset) -> list[Job]:
    """The first seed's federated run, and some baselines, where a share of the items is in no training event."""
    config = preset.config(preset.seeds[0])
    known = {slug(part.model): part for part in baselines(preset)}
    if missing := [name for name in preset.cold.baselines if name not in known]:
        raise InputError(f"cold.baselines: {missing[0]!r} is not known; the baselines are {', '.join(known)}")
    parts = [
        training("cold", "federated", f"federated-{config.seed}", config),
        *(known[name] for name in preset.cold.baselines),
    ]
    wanted = Preparation(cold_share=preset.cold.share)
    return [replace(part, family="cold", name=f"cold-{part.name}", preparation=wanted) for part in parts]


def start(preset: Preset) -> list[Job]:
    """The first seed's federated run, begun from what one on another dataset learned."""
    if not preset.start:
        raise InputError("parts: 'start' needs a table [start] with benchmark = NAME, the one to start from")
    config, source = preset.config(preset.seeds[0]), preset.start.benchmark
    settings = to_flat(config) | {"start": source}
    return [Job("start", "start", f"start-{config.seed}", settings, partial(_go_on, config, source))]


def _go_on(config: RunConfig, source: str, place: JobFolder) -> Figures:
    part = f"federated-{config.seed}"
    run = finished_run(place.folder.parent.parent / source / part, f"fedrec reproduce {source} --part {part}")
    first = Recommender.load(run)
    before = _as_it_comes(first, place)
    return scored(trained(config, place, run).scorer(), place, config.measured) | {"before": before}


def _as_it_comes(first: Recommender, place: JobFolder) -> Figures:
    """How well a run on other items ranks these, before it has seen any of their users."""
    embeddings = embed_catalogue(Catalogue.load(place.data), first.encoder, place.data).matrix
    vectors = first.model.item_vectors(first.adapter, embeddings)
    return measured_on(model_scorer(first.model, first.adapter, vectors), place)
