"""Jobs for two more tests of the federated run: cold items, and a warm start from another dataset's adapter."""

from dataclasses import replace
from functools import partial

from benchmarks.preset import Preset, slug
from benchmarks.reproduce.baselines import baseline_jobs
from benchmarks.reproduce.closed_forms import job_of, models_of
from benchmarks.reproduce.jobs import Figures, Job, JobFolder, Preparation, Ranked
from benchmarks.reproduce.runs import finished_run, metrics_of, rank_held_out, train_or_resume, training_job
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation.config import RunConfig, to_flat
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.evaluation.evaluate import rank_all_users
from fedrec.recsys.model.scoring import model_scorer
from fedrec.recsys.recommender import Recommender


def cold_start_jobs(preset: Preset) -> list[Job]:
    """Build the first seed's federated runs and some baselines on data in which a share of the items is cold."""
    config = preset.config(preset.seeds[0])
    baselines = {slug(job.model): job for job in baseline_jobs(preset)}
    if missing := [name for name in preset.cold.baselines if name not in baselines]:
        raise InputError(f"cold.baselines: {missing[0]!r} is not known; the baselines are {', '.join(baselines)}")
    jobs = [
        training_job("cold", "federated", f"federated-{config.seed}", config),
        # cold items are in no sum
        *(job_of(preset, model, config.seed, final_held_out=2) for model in models_of(preset)),
        *(baselines[name] for name in preset.cold.baselines),
    ]
    preparation = Preparation(cold_share=preset.cold.share)
    return [replace(job, family="cold", name=f"cold-{job.name}", preparation=preparation) for job in jobs]


def warm_start_jobs(preset: Preset) -> list[Job]:
    """Build the first seed's federated run that starts from the adapter of another benchmark's run."""
    if not preset.start:
        raise InputError("parts: 'start' needs a table [start] with benchmark = NAME, the benchmark to start from")
    config, source = preset.config(preset.seeds[0]), preset.start.benchmark
    settings = to_flat(config) | {"start": source}
    return [Job("start", "start", f"start-{config.seed}", settings, partial(_train_from, config, source))]


def _train_from(config: RunConfig, source: str, place: JobFolder) -> Figures:
    job = f"federated-{config.seed}"
    run = finished_run(place.folder.parent.parent / source / job, f"fedrec reproduce {source} --part {job}")
    before = _metrics_before_training(Recommender.load(run), place)
    figures = rank_held_out(train_or_resume(config, place, run).scorer(), place, config.measured)
    return figures.model_copy(update={"before": before})


def _metrics_before_training(source: Recommender, place: JobFolder) -> Ranked:
    """Rank this dataset's test items with a run that was trained on other items and users."""
    embeddings = embed_catalogue(Catalogue.load(place.data), source.encoder, place.data).matrix
    vectors = source.model.item_vectors(source.adapter, embeddings)
    scorer = model_scorer(source.model, source.adapter, vectors)
    return metrics_of(rank_all_users(scorer, Shard.load(place.data), "test"))
