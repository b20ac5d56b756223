"""`fedrec federation up`: a real federation on this machine, for a try."""

import shlex
import signal
import time
from pathlib import Path

from rich.live import Live
from rich.table import Table

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.manifest import NODE_POLICY
from fedrec.data.node_folders import SERVER, partition_dataset
from fedrec.data.partition import UserPartition, partition_evenly
from fedrec.data.storage.contents import refuse_occupied
from fedrec.data.storage.locks import in_use
from fedrec.local_federation.processes import LINK, Federation, federation
from fedrec.recsys.hardware import cores

DATA = "data"
FOR_A_TRY = """\
# For a try: all histories are of the person who starts the federation.
smallest_open_statistics = 1
"""
"""The policy of a node of this federation."""
EVERY = 1.0
"""Seconds between two looks at the processes."""


def up(data: Path, nodes: int, folder: Path) -> None:
    """Partition the users over nodes, start all processes, and show them until Ctrl-C; then stop them all.

    Raises `InputError` if the folder is not empty, or if the processes do not start.
    """
    dataset = Dataset.open(data)
    refuse_occupied(folder, "`folder`", "choose another, or remove it")
    partitions = partition_evenly(len(dataset.users), nodes)
    with in_use(folder):
        _run_processes(dataset, partitions, folder)


def _run_processes(dataset: Dataset, partitions: list[UserPartition], folder: Path) -> None:
    nodes = len(partitions)
    folders = partition_dataset(dataset, folder / DATA, partitions, keep_salts=True)  # the model of `fedrec train`
    for path in folders:
        (path / NODE_POLICY).write_text(FOR_A_TRY, encoding="utf-8")
    console.status(
        f"Dealt the users to {nodes} nodes; starting a SuperLink, then the nodes, each with a key of its own"
    )
    configs = {path.name: {"data": str(path.resolve())} for path in folders}
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: no process may outlive this one
        signal.signal(ending, signal.default_int_handler)
    try:
        with federation(folder, configs, max(1, cores() // nodes)) as here:
            console.status(_how_to_train(here, nodes))
            _show_state(here)
    except KeyboardInterrupt:
        console.status(f"Stopped all processes. Logs, keys and the nodes' folders are in {folder}.")


def _show_state(here: Federation) -> None:
    with Live(_state_table(here), console=console.err, auto_refresh=False) as live:
        while True:
            time.sleep(EVERY)
            live.update(_state_table(here), refresh=True)


def _state_table(here: Federation) -> Table:
    table = console.table("process", "state", "log")
    for name in here.running:
        table.add_row("SuperLink" if name == LINK else name, here.state(name), str(here.log(name)))
    return table


def _how_to_train(here: Federation, nodes: int) -> str:
    places = f'data="{here.folder / DATA / SERVER}" out="{Path("runs/federation").resolve()}" nodes={nodes}'
    return (
        f"TLS on localhost:{here.port}, which only this machine reaches: whoever can log in to it can start runs. "
        "The nodes run the fedrec that is installed here, and refuse other code. Train from another terminal:\n\n"
        f"  export FLWR_HOME={shlex.quote(str(here.home))} FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1\n"
        f"  flwr run {shlex.quote(str(here.app))} here --stream --run-config {shlex.quote(places)}\n\n"
        "Ctrl-C here stops everything."
    )
