"""TensorBoard: event files in the folder `tensorboard` beside the run, shown by `tensorboard --logdir`."""

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from fedrec.federation.tracking.tracker import TrackedRun

FOLDER = "tensorboard"


class TensorBoard:
    """The event file of a run."""

    def __init__(self, run: TrackedRun) -> None:
        self._writer = SummaryWriter(str(run.out.resolve().parent / FOLDER / run.name))
        table = "\n".join(["| setting | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in run.settings.items())])
        self._writer.add_text("settings", table)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round."""
        for name, number in figures.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """Close the file, which has no mark of an end."""
        self._writer.close()


open_tracker = TensorBoard
