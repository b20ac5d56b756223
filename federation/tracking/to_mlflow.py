"""MLflow: a run in the experiment `fedrec`, where `MLFLOW_TRACKING_URI` says, else where MLflow's default is."""

import re
from collections.abc import Mapping

from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports] - an extra

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
        for name, value in run.settings.items():
            self._client.log_param(self._run, name, value)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round; `ndcg@10` becomes `ndcg_at_10`."""
        for name, number in figures.items():
            self._client.log_metric(self._run, _UNNAMED.sub("_", name.replace("@", "_at_")), number, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


open_tracker = MLflow
