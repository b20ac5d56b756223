"""Train a run, rank with it, and let each client go on by itself."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import PREPARED, Data, Json, OtherHistories, Protocol, Run
from fedrec.data.errors import InputError

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes; an earlier demo there is replaced.")] = Path(
        "runs/demo"
    ),
) -> None:
    """The whole job on generated data: prepare, embed, train federated, compare, recommend."""
    from fedrec.demo import play

    play(PREPARED / "demo", out)


def _list_settings(asked: bool) -> None:
    if asked:
        from fedrec.settings_reference import as_toml, training

        print(as_toml(training()), end="")
        raise typer.Exit


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared folder.")],
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, or a preset: benchmarks/NAME.toml.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, over the file's. `mode=central` pools the data."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Begin from what this run learned, on these or other items.", show_default="scratch"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--settings", callback=_list_settings, is_eager=True, help="Print all settings as a TOML file, and stop."
        ),
    ] = False,
    other_histories: Annotated[
        bool, typer.Option("--other-histories", help="With --resume: on other histories than it began on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train federated: in this process, over the same loop and records that a network would carry."""
    from fedrec import console
    from fedrec.training import read_settings, train_here

    if other_histories and not resume:
        raise InputError("--other-histories goes with --resume: a new run takes the histories that DATA holds")
    metrics = train_here(data, out, read_settings(config, settings or []), resume, start, other_histories)
    if as_json:
        print(json.dumps(metrics | {"run": str(out)}))
        return
    for protocol in metrics.get("test", ()):
        rows = {split: metrics[split][protocol] for split in metrics}
        console.show(console.metrics_table(f"held-out items {Protocol(protocol).against}", rows))
    told = f"Next:\n  fedrec recommend {out} --query 'space opera'\n  fedrec serve {out}"
    if not metrics:
        told = f"It was trained on every event, so there is nothing to measure it with. {told}"
    if Protocol.sampled in metrics.get("test", ()):
        told = "A federated baseline: its users' private parts are gone, and there is nothing to serve."
    console.out.print(f"Wrote {out}. {told}", soft_wrap=True)


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    protocol: Annotated[
        Protocol, typer.Option(help="sampled-99 only compares with papers; cold needs --split cold-items.")
    ] = Protocol.full,
    ranks: Annotated[
        Path | None, typer.Option(help="Also write each user's test rank, without ids, to this .npy file.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also fit popularity, item-kNN, EASE and others on the same data.")
    ] = False,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Rank every held-out item with a trained run: NDCG, Recall, HR, MRR and catalogue coverage."""
    from fedrec import console
    from fedrec.baseline_comparison import compare_baselines
    from fedrec.evaluation import Given, evaluate_run, folder_of

    given = Given(data, PREPARED, other_histories)
    found = evaluate_run(run, given, protocol.value, ranks)
    others = compare_baselines(run, folder_of(run, given), protocol.value) if baselines else {}
    if as_json:
        print(json.dumps(found | ({"baselines": others} if baselines else {})))
        return
    console.show(console.metrics_table(f"held-out items {protocol.against}", {s: found[s][protocol] for s in found}))
    if baselines:
        rows = {name: other["test"][protocol] for name, other in others.items()} | {"this run": found["test"][protocol]}
        console.show(console.metrics_table(f"test items {protocol.against}", rows))


@app.command()
def personalise(
    run: Run,
    data: Data = None,
    alone: Annotated[bool, typer.Option("--alone", help="From scratch instead: what a client learns alone.")] = False,
    steps: Annotated[str, typer.Option(metavar="N,…", help="Numbers of local steps to try; 0 always is.")] = "5,10,20",
    rates: Annotated[str, typer.Option(metavar="X,…", help="Lengths of a step to try.")] = "0.01,0.03",
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Parameters that are the client's own; again to try others."),
    ] = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Each client fine-tunes a copy for itself: settings chosen on validation, then the test ranked once."""
    from fedrec import console
    from fedrec.evaluation import Given
    from fedrec.personalise import Choices, personalise_run

    choices = Choices.read(steps, rates, part or ["item,user"])
    found = personalise_run(run, Given(data, PREPARED, other_histories), alone, choices)
    if as_json:
        print(json.dumps(found))
        return
    rows = {", ".join(f"{k} {t[k]}" for k in ("parts", "rate", "steps")): t["validation"] for t in found["trials"]}
    console.show(console.metrics_table("validation, every trial", rows))
    console.show(console.metrics_table(f"test, {'alone' if alone else 'personal'}", {"test": found["test"]}))
