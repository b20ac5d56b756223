"""The Flower ServerApp: `flwr run` trains over real nodes what `fedrec train` trains in one process."""

import logging
import sys
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.app.exception import AppExitException
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.exit import ExitCode

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log
from fedrec.federation.attentive_grid import AttentiveGrid
from fedrec.federation.config import from_run_config, to_flat
from fedrec.federation.exposure_rounds import describe as describe_exposure
from fedrec.federation.round_log import join_observers
from fedrec.federation.tracking.tracker import TrackedRun, check_trackers, tracking
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.card import load_card

app = ServerApp()
logger = logging.getLogger("flwr")

PATIENCE = 60.0
"""The seconds that a resumed run waits for the app before it, which ends as it finds its SuperLink killed."""


class RunStopped(AppExitException):
    """The end of a run for a reason that its operator can fix."""

    exit_code = ExitCode.SERVERAPP_EXCEPTION


@app.main()
def main(grid: Grid, context: Context) -> None:
    try:
        _train(grid, context.run_config)
    except (InputError, OSError) as error:
        sys.tracebacklimit = 0  # Flower logs the exception that ends an app; there is no fault in the code to be found
        raise RunStopped(
            f"stopped: {error}; every round in the log is saved, resume=true goes on with the next"
        ) from None


def _train(grid: Grid, table: UserConfig) -> None:
    for name in ("data", "out"):
        if not table[name]:
            raise InputError(f"{name} is not set; pass --run-config '{name}=\"/absolute/path\"'")
    dataset, out = Dataset.open(Path(str(table["data"]))), Path(str(table["out"]))
    start = Path(str(table["start"])) if table["start"] else None
    names = [name for name in str(table["track"]).split(",") if name]
    check_trackers(names)
    config = from_run_config(table)
    if config.buffer.asynchronous:
        raise InputError(
            f"setting buffer_size = {config.buffer.buffer_size}: asynchronous rounds are simulated in one process, by "
            "`fedrec train`; set it to 0 over real nodes"
        )
    run = open_run(out, dataset, config, bool(table["resume"]), start)
    with tracking(names, TrackedRun(out, to_flat(run.config))) as tracked:
        train(AttentiveGrid(grid), run, join_observers(_report, tracked.observe), PATIENCE)
        tracked.finish(round_log.load_metrics(out))
    logger.info("%s", describe_exposure(load_card(out)["exposure"]))


def _report(record: dict[str, Any]) -> None:
    validated = record["validation"]
    logger.info(
        "round %s: loss %s%s%s%s%s",
        record["round"],
        "–" if record["loss"] is None else f"{record['loss']:.4f}",
        round_log.without_loss(record),
        ", {clients_answered} of {clients_asked} clients answered, {clients_refused} refused".format_map(record)
        if record["clients_asked"]
        else "",  # under differential privacy it is not told
        f", validation NDCG@10 {validated['ndcg@10']:.4f}" if validated else "",
        ", counts of exposure" if "exposure" in record else "",
    )
