"""`fedrec node policy` and `fedrec node key`: what a node's owner decides on, and is known by."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Json
from fedrec.data.errors import InputError

Policy = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The file of the node's policy.", show_default="node.toml in its folder, if any"),
]

app = typer.Typer()


@app.command("policy")
def node_policy(
    data: Annotated[Path, typer.Argument(metavar="FOLDER", help="The node's folder.")],
    policy: Policy = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the file, if there is none: all fields, commented out, explained.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a node answers: each limit that holds, and where it is from."""
    from fedrec import console
    from fedrec.data.manifest import NODE_POLICY, read_manifest
    from fedrec.federation.policy.node_policy import FIELDS, load_policy

    read_manifest(data)
    if write:
        _write_policy(policy or data / NODE_POLICY)
    found = load_policy(data, policy)
    if as_json:
        values = {name: getattr(found.policy, name) for name in FIELDS}
        told = {name: "inf" if value == math.inf else value for name, value in values.items()}  # JSON has no infinity
        print(json.dumps({name: {"value": value, "from": found.source_of(name)} for name, value in told.items()}))
        return
    table = console.table("field", "value", "from")
    for name in FIELDS:
        value = getattr(found.policy, name)
        table.add_row(
            name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value), found.source_of(name)
        )
    console.show(table)


def _write_policy(file: Path) -> None:
    from fedrec.data.storage.atomic_files import replaced_file
    from fedrec.settings_reference import policy_template

    if file.exists():
        raise InputError(f"{file} is there already; edit it, or move it away")
    with replaced_file(file) as partial:
        partial.write_text(policy_template(), "utf-8")


@app.command("key")
def node_key(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The node's folder.")],
    part: Annotated[int, typer.Option(min=0, help="The part of the folder's users that the node hosts.")] = 0,
    parts: Annotated[int, typer.Option(min=1, help="Number of parts: other nodes share the folder.")] = 1,
) -> None:
    """Print the public key by which other nodes know this one in secure aggregation; it is made at the first use.

    A node whose folder has a file secure/known-nodes.txt, with such a key at the start of each line, masks its sums
    with these nodes alone.
    """
    from fedrec.data.manifest import read_manifest
    from fedrec.federation.secure_aggregation.node_memory import NodeMemory, memory_file

    read_manifest(data)
    print(NodeMemory(memory_file(data, part, parts)).public_identity.hex())
