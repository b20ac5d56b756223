"""Weights & Biases: a run in the project `fedrec`; with `WANDB_MODE=offline` in a folder, and nothing is sent.

By itself the package also sends the terminal's output, which names nodes, and the machine's name, paths, repository,
packages and load; all of that is switched off. What stays is its telemetry: its version, Python's, imported libraries.
"""

from collections.abc import Mapping

import wandb  # pyright: ignore[reportMissingImports] - an extra

from fedrec.federation.tracking.tracker import TrackedRun

PROJECT = "fedrec"


class WandB:
    """A run of Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = wandb.init(
            project=PROJECT, name=run.name, config=dict(run.settings), reinit="create_new", settings=figures_alone()
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round."""
        self._run.log(dict(figures), step=step)

    def close(self, finished: bool) -> None:
        """Upload or write what is left; a run that did not finish counts as failed."""
        self._run.finish(exit_code=int(not finished))


def figures_alone() -> "wandb.Settings":
    """Return settings by which the package adds nothing of the terminal or the machine to the figures."""
    return wandb.Settings(
        console="off",
        host="",
        save_code=False,
        disable_git=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


open_tracker = WandB
