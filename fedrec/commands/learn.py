"""Train a run, evaluate it, and fine-tune it for each client."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from fedrec.commands.options import Data, Json, OtherHistories, Protocol, RunFolder
from fedrec.commands.parameters import with_options

if TYPE_CHECKING:
    from fedrec.run import Run

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder; an earlier demo there is replaced.")] = Path("runs/demo"),
) -> None:
    """Run everything on generated data: prepare, embed, train federated, compare, recommend."""
    from fedrec.datasets import PREPARED
    from fedrec.demo import play

    with _stoppable(f"fedrec train {PREPARED / 'demo'} --out {out} --resume"):
        play(out)


@contextmanager
def _stoppable(resuming_command: str) -> Iterator[None]:
    """End with status 130 after Ctrl-C, and print what can be resumed, and how."""
    from fedrec import console

    try:
        yield
    except KeyboardInterrupt as interrupt:
        for note in getattr(interrupt, "__notes__", []):
            how = f": {resuming_command}" if "`resume=True`" in note else ""
            console.status(f"Stopped; {with_options(note, click.get_current_context().command)}{how}")
        raise typer.Exit(130) from interrupt


def _list_settings(wanted: bool) -> None:
    if wanted:
        from fedrec.settings_reference import as_toml, training_settings

        print(as_toml(training_settings()), end="")
        raise typer.Exit


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared folder.")],
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)],
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file of settings.")] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings tuned for a published dataset, such as ml-100k.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, over those of the file. mode=central pools the data."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Begin from the adapter of this run, of these or other items.", show_default="scratch"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also log each round to tensorboard, mlflow or wandb, each an extra of fedrec; repeatable.",
            show_default="none",
        ),
    ] = None,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--settings", callback=_list_settings, is_eager=True, help="Print all settings as a TOML file, and stop."
        ),
    ] = False,
    other_histories: Annotated[
        bool, typer.Option("--other-histories", help="With --resume: accept other histories than it began on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train federated: in this process, over the same loop and messages as over a network."""
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.federation.config import to_flat
    from fedrec.settings_file import read_settings
    from fedrec.training import train

    chosen = read_settings(config, settings or [], preset)
    table: dict[str, Any] = to_flat(chosen) if chosen else {}
    with _stoppable(f"fedrec train {data} --out {out} --resume"):
        run = train(
            Dataset.open(data),
            out=out,
            resume=resume,
            start=start,
            other_histories=other_histories,
            track=track or (),
            **table,
        )
    metrics = run.metrics_by_protocol
    if as_json:
        print(json.dumps(metrics | {"run": str(out)}))
        return
    for protocol in metrics.get("test", ()):
        rows = {split: metrics[split][protocol] for split in metrics}
        console.show(console.metrics_table(f"held-out items {Protocol(protocol).against}", rows))
    if guarantee := run.card.get("privacy"):
        console.out.print(_told(run), soft_wrap=True)
    console.out.print(f"Wrote {out}. {_next_step(out, list(metrics.get('test', ())), guarantee)}", soft_wrap=True)


def _told(run: "Run") -> str:
    """Return what a run has spent of its guarantee, and on which model, in one line."""
    guarantee, config = run.card["privacy"], run.config
    spent, summed = guarantee["spent"], config.method_row.summed
    model = config.method + (f", features {config.closed_form.features}" if summed else "")
    return (
        f"Differential privacy of {model}, {guarantee['relation']}: "
        f"ε = {spent['epsilon']:.3g} of {guarantee['epsilon']:g}, δ = {spent['delta']:.2g}, "
        f"after {guarantee['rounds']} rounds and {guarantee['statistics']} release of sums."
    )


def _next_step(out: Path, protocols: list[str], guarantee: object) -> str:
    """Return what can be done with a run that was measured by these protocols on the test."""
    if Protocol.sampled in protocols:
        return "It is a federated baseline: its users' private parts are gone, and there is nothing to serve."
    commands = f"Next:\n  fedrec recommend {out} --query 'something for children'\n  fedrec serve {out}"
    if guarantee:
        return f"Nothing was measured, as figures carry no noise. {commands}"
    if protocols:
        return commands
    return f"It was trained on every event, so there is nothing to measure it with. {commands}"


@app.command()
def evaluate(
    run: RunFolder,
    data: Data = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="sampled-99 is for comparing with papers; cold needs data prepared with --split cold-items."),
    ] = Protocol.full,
    ranks: Annotated[
        Path | None, typer.Option(help="Also write each user's test rank, without ids, to this .npy file.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also tune popularity, item-kNN, EASE and others on the same data.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Also report on groups of users, and on the exposure of popular items.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="With --groups: another run on the same data, to compare with side by side."),
    ] = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Rank every held-out item with a trained run: NDCG, Recall, HR, MRR and catalogue coverage."""
    from fedrec import console, fairness_tables
    from fedrec.baselines import measure_all, quick_baselines
    from fedrec.data.errors import InputError
    from fedrec.evaluation import refuse_ranks_in_run, save_ranks
    from fedrec.fairness import measure_fairness
    from fedrec.recsys.evaluation.evaluate import ranking_metrics
    from fedrec.run import load

    if against and not groups:
        raise InputError("`against` compares groups; add `groups=True`")
    trained = load(run)
    if ranks:
        refuse_ranks_in_run(ranks, run)
    dataset = trained.open_dataset(data, other_histories)
    rankings = {split: trained.rank_held_out(dataset, protocol.value, split) for split in trained.measured_splits}
    if ranks:
        save_ranks(ranks, rankings["test"].ranks)
    found = {split: {protocol.value: ranking_metrics(ranking)} for split, ranking in rankings.items()}
    rivals = quick_baselines(trained.config.model.encoder, trained.config.model.prompt) if baselines else ()
    others = measure_all(dataset, rivals, protocol.value)
    rival = load(against) if against else None
    fairness = measure_fairness(rankings["test"], rival, dataset, protocol.value, other_histories) if groups else None
    if as_json:
        extra = ({"baselines": others} if baselines else {}) | ({"groups": fairness.as_record()} if fairness else {})
        print(json.dumps(found | extra))
        return
    console.show(console.metrics_table(f"held-out items {protocol.against}", {s: found[s][protocol] for s in found}))
    if baselines:
        rows = {name: other["test"][protocol] for name, other in others.items()} | {"this run": found["test"][protocol]}
        console.show(console.metrics_table(f"test items {protocol.against}", rows))
    for shown in fairness_tables.build_tables(fairness) if fairness else ():
        console.show(shown)


@app.command()
def personalise(
    run: RunFolder,
    data: Data = None,
    alone: Annotated[bool, typer.Option("--alone", help="Begin from scratch: each client learns alone.")] = False,
    steps: Annotated[str, typer.Option(metavar="N,…", help="Numbers of local steps to try, beside 0.")] = "5,10,20",
    rates: Annotated[str, typer.Option(metavar="X,…", help="Learning rates to try.")] = "0.01,0.03",
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Parameters to fine-tune; repeatable, to try others."),
    ] = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a copy for each client: settings are chosen on validation, then the test is ranked once."""
    from fedrec import console
    from fedrec.personalise import Choices, personalise_run
    from fedrec.run import load

    choices, trained = Choices.read(steps, rates, part or ["item,user"]), load(run)
    found = personalise_run(trained, trained.open_dataset(data, other_histories), alone, choices)
    if as_json:
        print(json.dumps(found))
        return
    rows = {", ".join(f"{k} {t[k]}" for k in ("parts", "rate", "steps")): t["validation"] for t in found["trials"]}
    console.show(console.metrics_table("validation, every trial", rows))
    console.show(console.metrics_table(f"test, {'alone' if alone else 'personal'}", {"test": found["test"]}))
