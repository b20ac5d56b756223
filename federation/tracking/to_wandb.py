"""Weights & Biases: a run in the project `fedrec`; with `WANDB_MODE=offline` in a folder, and nothing is sent."""

from collections.abc import Mapping

import wandb  # pyright: ignore[reportMissingImports] - an extra

from fedrec.federation.tracking.tracker import TrackedRun

PROJECT = "fedrec"


class WandB:
    """A run of Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = wandb.init(project=PROJECT, name=run.name, config=dict(run.settings), reinit="create_new")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Upload or write what is left."""
        self._run.finish()


open_tracker = WandB
