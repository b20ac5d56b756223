"""`fedrec personalise`: what each client gains by training a copy of a run's adapter on its own events."""

from dataclasses import dataclass
from typing import Any, Self

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.joined import open_encoder
from fedrec.recsys.evaluation.ranking import Ranking, metric_means, metric_sums
from fedrec.recsys.hardware import device
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.personalisation import Clients, PersonalConfig, config_grid
from fedrec.run import Run


@dataclass(frozen=True)
class Choices:
    """The values that validation chooses from."""

    steps: list[int]
    rates: list[float]
    parts: list[tuple[str, ...]]

    @classmethod
    def read(cls, steps: str, rates: str, parts: list[str]) -> Self:
        """Read lists of numbers with commas between. Raises `InputError` if one is none, or out of its range."""
        try:
            read = cls([int(n) for n in steps.split(",")], [float(x) for x in rates.split(",")], [])
        except ValueError as error:
            raise InputError(f"`steps` {steps} `rates` {rates}: {error}; write numbers with commas between") from error
        if min(read.steps) < 0 or not all(0 < rate < float("inf") for rate in read.rates):
            raise InputError(f"`steps` {steps} `rates` {rates}: steps count from 0, and rates are above it; mend them")
        return cls(read.steps, read.rates, [tuple(name.strip() for name in part.split(",")) for part in parts])


def personalise_run(run: Run, dataset: Dataset, alone: bool, choices: Choices) -> dict[str, Any]:
    """Train a copy of the adapter for each client: all trials on validation, the choice, and its test metrics.

    It begins from the run's adapter or, if `alone`, from a new one, and ranks by the towers alone. `dataset` comes from
    `Run.open_dataset`. Raises `InputError` if the run was trained on the validation items.
    """
    if not alone and not run.config.validated:
        raise InputError(
            f"{run.folder} was trained on the validation items too (held_out = {run.config.held_out}), so they cannot "
            "choose; personalise a run with held_out = 2"
        )
    recommender = run.recommender
    if recommender.closed_form:
        console.warn(f"{run.folder} ranks by a closed form, too, which is left out here: its towers rank alone")
    clients = clients_of(dataset, recommender.model, None if alone else recommender.adapter)
    choice, trials, test = tune_and_rank(clients, run.config, choices)
    return {
        "start": "scratch" if alone else recommender.version,
        "choice": choice.as_dict(),
        "trials": trials,
        "test": metric_means(metric_sums(test.ranks)),
    }


def clients_of(dataset: Dataset, model: TwoTowerModel, adapter: Adapter | None) -> Clients:
    """Build the clients of a dataset, which all begin from an adapter: by default from the model's initial one."""
    encoder, on = open_encoder(model.config.encoder, model.config.prompt, dataset.folder), device()
    start = model.adapter() if adapter is None else adapter
    embeddings = embed_catalogue(dataset.catalogue, encoder, dataset.folder).matrix
    return Clients(model.to(on), {name: t.to(on) for name, t in start.items()}, dataset.shard, embeddings.to(on))


def tune_and_rank(
    clients: Clients, config: RunConfig, choices: Choices
) -> tuple[PersonalConfig, list[dict[str, Any]], Ranking]:
    """Choose on validation, and rank the test once: the choice, every trial, and the ranking."""
    choice, trials = clients.tune(config_grid(config.fit, choices.steps, choices.rates, choices.parts, config.seed))
    return choice, trials, clients.rank(choice, "test")
