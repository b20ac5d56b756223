"""Change and weigh the sums of a run's closed form: forget users, add new events, tell each node's worth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Data, Json, OtherHistories, RunFolder, Users
from fedrec.data.errors import InputError

app = typer.Typer()

MEASURED_BEFORE = "metrics.json is of the model before; `fedrec evaluate` measures this one"


@app.command()
def forget(
    run: RunFolder,
    data: Data = None,
    user: Users = None,
    summand: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of --user: what `fedrec node withdraw` has written."),
    ] = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Subtract users from a run's sums: the closed form is then that of a run without them, to the bit."""
    from fedrec import console
    from fedrec.forgetting import forget_summand, forget_users, setup_of, trains_towers
    from fedrec.run import load

    if bool(user) == (summand is not None):
        raise InputError("give either `user`, for users of `data`, or `summand`, a file of a node")
    trained = load(run)
    dataset = trained.open_dataset(data, other_histories or summand is not None)
    setup = setup_of(run, trained.card, dataset)
    count = forget_users(run, user or [], setup) if summand is None else forget_summand(run, summand, setup)
    version = load(run).card["model_version"]
    if trains_towers(setup):
        console.warn("the towers were trained on them, too, and are as before: only the closed form has forgotten")
    if as_json:
        print(json.dumps({"forgotten": count, "model_version": version}))
        return
    console.out.print(f"{run}: forgotten {count:,}, now {version}. {MEASURED_BEFORE}.", soft_wrap=True)


@app.command()
def update(
    run: RunFolder,
    data: Annotated[Path, typer.Option(help="The folder prepared with the new events.", show_default=False)],
    before: Annotated[
        Path | None,
        typer.Option(
            help="The folder that the run was trained on.", show_default="var/prepared/, the name in the card"
        ),
    ] = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Replace histories in a run's sums by newer ones: the closed form is then fitted to these, to the bit."""
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.forgetting import setup_of, trains_towers
    from fedrec.run import load
    from fedrec.updating import open_before, update_run

    trained = load(run)
    setup = setup_of(run, trained.card, Dataset.open(data))
    old = open_before(run, trained.card, before)
    counts = update_run(run, trained.card, old, setup, other_histories)
    version = load(run).card["model_version"]
    if trains_towers(setup):
        console.warn("the towers are as before: only the closed form knows the new events")
    if as_json:
        print(json.dumps(counts | {"model_version": version}))
        return
    users = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count and name != "new_items"]
    told = "users: " + (", ".join(users) or "as before")
    if counts["new_items"]:
        told += f"; {counts['new_items']:,} new items"
    console.out.print(f"{run}: {told}; now {version}. {MEASURED_BEFORE}.", soft_wrap=True)


@app.command()
def contribute(
    run: RunFolder,
    data: Data = None,
    shapley: Annotated[
        bool, typer.Option("--shapley", help="Also Shapley values, of at most 10 nodes: 2^n solutions are ranked.")
    ] = False,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Tell each node's worth to the closed form: what NDCG@10 on validation loses without its sums; on the test items,
    if those of validation are in the sums."""
    from fedrec import console
    from fedrec.run import load

    trained = load(run)
    found = trained.contributions(trained.open_dataset(data, other_histories), shapley)
    if as_json:
        print(json.dumps(found.to_dicts()))
        return
    names, split = [name for name in found.columns if name != "all"], trained.config.measured[-1]
    shown = console.table(*map(console.figures, names), title=f"NDCG@10 on {split}: {found['all'][0]:.4f} with all")
    for row in found.select(names).iter_rows():
        shown.add_row(*(f"{value:.4f}" if isinstance(value, float) else f"{value:,}" for value in row))
    console.show(shown)
