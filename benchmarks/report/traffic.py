"""The bytes that a client sends over a whole run, on average."""

from benchmarks.results_file import AblationResult, BenchmarkResult, ModelResult, VariantResult
from fedrec.federation.config import RunConfig

TOWERS = ("federated", "refit", "personal")
"""Our models whose clients send what the federated run's do."""


def bytes_over_run(result: BenchmarkResult, name: str, model: ModelResult) -> int | None:
    """Return the bytes of one client in a model's run; None if it has no clients.

    Earlier files lack the figure. There it is rounds × probability of being drawn × bytes of a round; in a federated
    baseline every client trains in every round.
    """
    if model.bytes_up_per_client_run is not None:
        return model.bytes_up_per_client_run
    if name in result.federated_baselines:
        return (model.rounds or 0) * (model.bytes_up_per_client_round or 0)
    if name in TOWERS and result.bytes_up_per_client_round:
        drawn = _share_drawn(result.clients_per_round or 0, result.data.users)
        return round((result.rounds or 0) * drawn * result.bytes_up_per_client_round)
    return 0 if name == "alone" else None


def bytes_of_variant(result: AblationResult, variant: VariantResult) -> int:
    """Return the bytes of one client in a variant's run."""
    if variant.bytes_up_per_client_run is not None:
        return variant.bytes_up_per_client_run
    settings = result.base_settings | result.preset.settings | variant.settings
    clients = settings.get("clients_per_round", RunConfig().clients_per_round)
    return round(variant.rounds * _share_drawn(clients, result.data.users) * variant.bytes_up_per_client_round)


def _share_drawn(clients: int, users: int) -> float:
    """Return the share of the rounds in which a client takes part."""
    return min(1, clients / users)
