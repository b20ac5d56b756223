"""What `fedrec data` prints of a dataset that was prepared, and of a check."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import typer

from fedrec.commands.parameters import with_options

if TYPE_CHECKING:
    from fedrec.data.check import Check
    from fedrec.data.dataset import Dataset


def report_check(found: "Check", as_json: bool) -> None:
    """Print what a check found, and exit with 1 if something would be refused."""
    from fedrec import console

    command = click.get_current_context().command
    kinds = {"refused": found.refused, "left out": found.left_out, "remark": found.remarks}
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for kind, lines in kinds.items():
            for line in lines:
                console.out.print(f"{kind:8}  {with_options(line, command)}", soft_wrap=True)
        last = f"{'':8}  nothing can be prepared" if found.refused else f"{'kept':8}  {found.kept}"
        console.out.print(last, soft_wrap=True)
    if not found.passed:
        raise typer.Exit(1)


def report_prepared(dataset: "Dataset", as_json: bool) -> None:
    """Print what was prepared: the manifest and the folder, or their figures in words."""
    from fedrec import console

    manifest, out = dataset.manifest, dataset.folder
    if as_json:
        print(json.dumps({**manifest, "out": str(out)}))
        return
    ranked = manifest["ranked_users"]
    cold = f"cold: {manifest['cold_items']:,} items\n" if manifest["cold_items"] else ""
    unranked = (
        f"ranked: {ranked['validation']:,} users for validation, {ranked['test']:,} for test; "
        f"{manifest['training_only_users']:,} users train and are not ranked\n"
    )
    console.out.print(
        f"{out}: {manifest['users']:,} users, {manifest['items']:,} items, {manifest['interactions']:,} interactions\n"
        f"{cold}{unranked if min(ranked.values()) < manifest['users'] else ''}split: {manifest['split']}",
        soft_wrap=True,
    )
    steps = console.table("left after", *map(console.figures, ("users", "items", "events")))
    for step in manifest["steps"]:
        steps.add_row(step["step"], *(f"{step[column]:,}" for column in ("users", "items", "events")))
    console.show(steps)
