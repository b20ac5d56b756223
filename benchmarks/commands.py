"""Measure: the machine, the benchmarks, and the pages made from their results."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Json, RunFolder

app = typer.Typer()
bench_app = typer.Typer(no_args_is_help=True, help="Measure this machine: the claims of speed and size, as commands.")
app.add_typer(bench_app, name="bench")


class Part(StrEnum):
    """What `bench engine` measures."""

    cohort = "cohort"
    scale = "scale"
    nodes = "nodes"


@bench_app.command("engine")
def bench_engine(
    part: Annotated[list[Part] | None, typer.Option(help="Only this part.", show_default="all")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a block goes instead.")] = False,
    as_json: Json = False,
) -> None:
    """The cohort engine against central training, a loop over clients, and Flower's simulation; and at scale."""
    from benchmarks.speed import cohort_engine, printing
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, settings or []) or RunConfig()
    if profile:
        rows = cohort_engine.profile(config)
        print(json.dumps(rows)) if as_json else printing.show_profile(rows)
        return
    found = printing.run(config, [p.value for p in part or Part], " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(found, indent=2)) if as_json else printing.show(found)


@bench_app.command("serving")
def bench_serving(run: RunFolder, as_json: Json = False) -> None:
    """The endpoint over RUN: what it adds to the model's own time, how much it bears, reloads, a large index."""
    from benchmarks.speed import endpoint, printing
    from fedrec import console

    found = endpoint.measure(run, console.status) | {"command": "fedrec bench serving RUN --json"}
    print(json.dumps(found, indent=2)) if as_json else printing.show_serving(found)


@bench_app.command("encoder")
def bench_encoder(
    encoder: Annotated[
        str | None, typer.Option(help="A hub id or a folder.", show_default="the default of the setting `encoder`")
    ] = None,
    as_json: Json = False,
) -> None:
    """What it costs to embed a text: processor time on one thread."""
    from benchmarks.speed import encoder as bench
    from benchmarks.speed import printing
    from fedrec.recsys.model.two_tower import ModelConfig

    found = bench.measure(encoder or ModelConfig().encoder) | {"command": " ".join(["fedrec", *sys.argv[1:]])}
    print(json.dumps(found, indent=2)) if as_json else printing.show_encoder(found)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str, typer.Argument(help="A benchmark: benchmarks/NAME.toml.")],
    source: Annotated[Path | None, typer.Option(help="A zip or folder you have; else it is downloaded.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where its parts are kept.", show_default="runs/reproduce/NAME")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part or family of parts.", show_default="all")
    ] = None,
    preset: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A preset of your own, to be called NAME.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where NAME.json is written.")] = Path("benchmarks/results"),
    as_json: Json = False,
) -> None:
    """A benchmark from the raw data to its results. What is made is kept: the same command goes on after Ctrl-C."""
    from benchmarks.reproduce.benchmark import Benchmark, reproduce
    from benchmarks.reproduce.collect import rows
    from benchmarks.reproduce.preset import read_preset
    from fedrec import console

    asked, base = read_preset(name, preset)
    benchmark = Benchmark(name, asked, base, out or Path("runs/reproduce") / name, source)
    found = reproduce(benchmark, part or [], results)
    if as_json:
        print(json.dumps(found))
        return
    console.show(console.metrics_table(f"{name}, test, full catalogue", rows(found)))


Check = Annotated[bool, typer.Option("--check", help="Write nothing; status 1 where something differs.")]
Root = Annotated[Path, typer.Option(help="A clone of the repository.")]


@app.command()
def results(check: Check = False, root: Root = Path()) -> None:
    """Make docs/results.md, its plots and README's results from benchmarks/results."""
    from benchmarks.report.write import differing, write

    _report(differing(root) if check else write(root), "results", check)


@app.command()
def settings(check: Check = False, root: Root = Path()) -> None:
    """Make docs/settings.md, the reference of all settings, from the classes that hold them."""
    from benchmarks.report.settings_page import differing, write

    _report(differing(root) if check else write(root), "settings", check)


def _report(paths: list[Path], command: str, check: bool) -> None:
    from fedrec import console

    for path in paths:
        console.out.print(f"{path} {f'differs; run `fedrec {command}`' if check else 'written'}", soft_wrap=True)
    raise typer.Exit(1 if check and paths else 0)
