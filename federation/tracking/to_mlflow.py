"""MLflow: a run in the experiment `fedrec`, where `MLFLOW_TRACKING_URI` says, else where MLflow's default is."""

import re
import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports] - an extra
from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

from fedrec.federation.tracking.tracker import TrackedRun

EXPERIMENT = "fedrec"
_UNNAMED = re.compile(r"[^\w\-. :/]")
"""Characters that a name of a metric may not have."""


class MLflow:
    """A run of MLflow, by a client of its own: no run of the caller's is touched."""

    def __init__(self, run: TrackedRun) -> None:
        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        self._run = self._client.create_run(experiment, run_name=run.name).info.run_id
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in run.settings.items()])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round; `ndcg@10` becomes `ndcg_at_10`."""
        now = time.time_ns() // 1_000_000
        named = {_UNNAMED.sub("_", name.replace("@", "_at_")): number for name, number in figures.items()}
        self._client.log_batch(self._run, [Metric(name, number, now, step) for name, number in named.items()])

    def close(self, finished: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


open_tracker = MLflow
