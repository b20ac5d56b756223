"""`fedrec personalise`: what each client gains by training a copy of a run's adapter on its own events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.evaluation import Given, opened
from fedrec.federation.config import RunConfig, from_nested
from fedrec.recsys.embeddings import embed_catalogue, resolve_encoder
from fedrec.recsys.evaluation.ranking import Ranking, metric_means, metric_sums
from fedrec.recsys.hardware import device
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.personalisation import Clients, PersonalConfig, config_grid


@dataclass(frozen=True)
class Choices:
    """What validation may choose from."""

    steps: list[int]
    rates: list[float]
    parts: list[tuple[str, ...]]

    @classmethod
    def read(cls, steps: str, rates: str, parts: list[str]) -> Self:
        """From the command line. Raises `InputError` for what is no list of such numbers."""
        try:
            read = cls([int(n) for n in steps.split(",")], [float(x) for x in rates.split(",")], [])
        except ValueError as error:
            raise InputError(f"--steps {steps} --rates {rates}: {error}; write numbers with commas between") from error
        if min(read.steps) < 0 or not all(0 < rate < float("inf") for rate in read.rates):
            raise InputError(f"--steps {steps} --rates {rates}: steps count from 0, and rates are above it; mend them")
        return cls(read.steps, read.rates, [tuple(name.strip() for name in part.split(",")) for part in parts])


def personalise_run(run: Path, given: Given, alone: bool, choices: Choices) -> dict[str, Any]:
    """Every trial with its metrics on validation, the choice, and the choice's metrics on the test, ranked once.

    From the run's adapter, or with `alone` from the one that a model starts with. Raises `InputError`.
    """
    recommender, data = opened(run, given)
    config = from_nested(recommender.card["config"])
    if not alone and "validation" not in config.measured:
        raise InputError(
            f"{run} was trained on the validation items too (held_out = {config.held_out}), so they cannot choose; "
            "personalise a run with held_out = 2"
        )
    clients = clients_on(data, recommender.model, None if alone else recommender.adapter)
    choice, trials, test = chosen(clients, config, choices)
    return {
        "start": "scratch" if alone else recommender.version,
        "choice": choice.as_dict(),
        "trials": trials,
        "test": metric_means(metric_sums(test.ranks)),
    }


def clients_on(data: Path, model: TwoTowerModel, adapter: Adapter | None) -> Clients:
    """The clients of a prepared folder, from an adapter or, without one, from the one that the model starts with."""
    encoder, on = resolve_encoder(model.config.encoder), device()
    start = model.adapter() if adapter is None else adapter
    embeddings = embed_catalogue(Catalogue.load(data), encoder, data).matrix
    return Clients(model.to(on), {name: t.to(on) for name, t in start.items()}, Shard.load(data), embeddings.to(on))


def chosen(
    clients: Clients, config: RunConfig, choices: Choices
) -> tuple[PersonalConfig, list[dict[str, Any]], Ranking]:
    """What validation chooses, every trial, and the test ranked with the choice."""
    choice, trials = clients.tune(config_grid(config.fit, choices.steps, choices.rates, choices.parts, config.seed))
    return choice, trials, clients.rank(choice, "test")
