"""A stranger's Flower app: on every node it reads the histories in reach, and its server writes down what came back."""

import hashlib
import json
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()

PYPROJECT = """
[project]
name = "spy"
version = "1.0.0"
description = "Reads histories."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "stranger"

[tool.flwr.app.components]
serverapp = "stranger:server"
clientapp = "stranger:client"

[tool.flwr.app.config]
loot = ""
"""


def write(folder: Path, more: dict[str, str] | None = None) -> Path:
    """Write the app's folder, for `flwr run`. With `more`, write other files beside its own, or in place of them."""
    files = {"pyproject.toml": PYPROJECT, "stranger.py": Path(__file__).read_text()} | (more or {})
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def histories(folder: Path) -> dict[str, str]:
    """Find the files that hold a node's histories, and compute their digests."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("shard/*"))}


@client.query("loot")
def take(message: Message, context: Context) -> Message:
    found = histories(Path(str(context.node_config["data"])))
    return Message(RecordDict({"loot": ConfigRecord(dict(found))}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node for digests of histories, or for the reason why there are none."""
    asked = [Message(RecordDict(), node, "query.loot") for node in grid.get_node_ids()]
    told = {}
    for reply in grid.send_and_receive(asked, timeout=180):
        node = str(reply.metadata.src_node_id)
        told[node] = reply.error.reason if reply.has_error() else dict(reply.content["loot"])  # type: ignore[arg-type]
    Path(str(context.run_config["loot"])).write_text(json.dumps(told))
