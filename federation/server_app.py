"""The Flower ServerApp: `flwr run` trains over real nodes what `fedrec train` trains in one process."""

import logging
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from data.errors import InputError
from federation.config import from_run_config
from federation.train import open_run, train

app = ServerApp()
logger = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    table = context.run_config
    for name in ("data", "out"):
        if not table[name]:
            raise InputError(f"{name} is not set; pass --run-config '{name}=\"/absolute/path\"'")
    data, out = Path(str(table["data"])), Path(str(table["out"]))
    if (asked := from_run_config(table)).keeps:
        raise InputError(f"method = {asked.method} keeps private parts in one process: train it with `fedrec train`")
    start = Path(str(table["start"])) if table["start"] else None
    config = open_run(out, data, asked, bool(table["resume"]), start)
    train(grid, out, data, config, _report)


def _report(record: dict[str, Any]) -> None:
    validated = record["validation"]
    logger.info(
        "round %s: loss %s, %s of %s clients answered, %s refused%s",
        record["round"],
        "–" if record["loss"] is None else f"{record['loss']:.4f}",
        record["clients_answered"],
        record["clients_asked"],
        record["clients_refused"],
        f", validation NDCG@10 {validated['ndcg@10']:.4f}" if validated else "",
    )
