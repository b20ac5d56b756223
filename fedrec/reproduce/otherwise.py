"""Parts that put the federated run to another test: items that nobody has touched, and a start from elsewhere."""

from dataclasses import replace
from functools import partial

from data.catalogue import Catalogue
from data.errors import InputError
from federation.config import RunConfig, knobs
from fedrec.reproduce.parts import Figures, Part, Place, Preparation
from fedrec.reproduce.preset import Preset, slug
from fedrec.reproduce.rivals import baselines
from fedrec.reproduce.runs import made, measured_on, scored, trained, training
from recsys.embed import embed
from recsys.rank import model_scorer
from recsys.recommender import Recommender


def cold(preset: Preset) -> list[Part]:
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


def start(preset: Preset) -> list[Part]:
    """The first seed's federated run, begun from what one on another dataset learned."""
    if not preset.start:
        raise InputError("parts: 'start' needs a table [start] with benchmark = NAME, the one to start from")
    config, source = preset.config(preset.seeds[0]), preset.start.benchmark
    settings = knobs(config) | {"start": source}
    return [Part("start", "start", f"start-{config.seed}", settings, partial(_go_on, config, source))]


def _go_on(config: RunConfig, source: str, place: Place) -> Figures:
    part = f"federated-{config.seed}"
    run = made(place.folder.parent.parent / source / part, f"fedrec reproduce {source} --part {part}")
    first = Recommender.load(run)
    before = _as_it_comes(first, place)
    return scored(trained(config, place, run).scorer(), place, config.measured) | {"before": before}


def _as_it_comes(first: Recommender, place: Place) -> Figures:
    """How well a run on other items ranks these, before it has seen any of their users."""
    embeddings = embed(Catalogue.load(place.data), first.encoder, place.data).matrix
    vectors = first.model.item_vectors(first.adapter, embeddings)
    return measured_on(model_scorer(first.model, first.adapter, vectors), place)
