"""The commands that need a clone: measure speed, reproduce benchmarks, and write the documents of their results."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Json, RunFolder

app = typer.Typer()
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")
app.add_typer(bench_app, name="bench")


class Part(StrEnum):
    """The parts of `bench engine`."""

    cohort = "cohort"
    scale = "scale"
    nodes = "nodes"


TOWERS = ("method=fedrec",)
"""Settings before those of a caller who measures rounds: a closed form has none."""


@bench_app.command("engine")
def bench_engine(
    part: Annotated[list[Part] | None, typer.Option(help="Measure only this part.", show_default="all")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the time of each operation in one block instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the cohort engine with central training, a loop over clients and Flower's simulation; also at scale."""
    from benchmarks.speed import printing
    from benchmarks.speed.profile import profile_block
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, [*TOWERS, *(settings or [])]) or RunConfig()
    if profile:
        rows = profile_block(config)
        print(json.dumps(rows)) if as_json else printing.show_profile(rows)
        return
    figures = printing.run_parts(config, [p.value for p in part or Part], " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(figures, indent=2)) if as_json else printing.show_engine(figures)


@bench_app.command("frameworks")
def bench_frameworks(
    python: Annotated[Path, typer.Option(help="The Python that has BlazeFL and pfl: see benchmarks/frameworks.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the cohort engine with BlazeFL and pfl-research, which train the same clients one after the other."""
    from benchmarks.frameworks import compare
    from benchmarks.speed import printing
    from fedrec import console
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, [*TOWERS, *(settings or [])]) or RunConfig()
    found = compare.measure(config, python, console.status)
    figures = printing.with_origin(found, config, " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(figures, indent=2)) if as_json else compare.show(found)


@bench_app.command("serving")
def bench_serving(run: RunFolder, as_json: Json = False) -> None:
    """Measure the endpoint over RUN: latency beyond the model's, throughput, reloads under load, a large index."""
    from benchmarks.speed import endpoint, printing
    from fedrec import console

    figures = endpoint.measure(run, console.status) | {"command": "fedrec bench serving RUN --json"}
    print(json.dumps(figures, indent=2)) if as_json else printing.show_serving(figures)


@bench_app.command("encoder")
def bench_encoder(
    encoder: Annotated[
        str | None, typer.Option(help="A hub id or a folder.", show_default="the default of the setting `encoder`")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the processor time of embedding a text on one thread."""
    from benchmarks.speed import encoder as bench
    from benchmarks.speed import printing
    from fedrec.recsys.model.config import ModelConfig

    figures = bench.measure(encoder or ModelConfig().encoder) | {"command": " ".join(["fedrec", *sys.argv[1:]])}
    print(json.dumps(figures, indent=2)) if as_json else printing.show_encoder(figures)


@bench_app.command("secure")
def bench_secure(
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    clients: Annotated[list[int] | None, typer.Option(help="Clients of a round.", show_default="16, 128, 1000")] = None,
    as_json: Json = False,
) -> None:
    """Measure the bytes and seconds of a round under secure aggregation, beside the same round in the open; of its
    protocol alone; and of a round whose sum gets noise."""
    from benchmarks.speed import printing, secure_aggregation
    from benchmarks.speed.masked_group import measure_groups
    from benchmarks.speed.noised_round import measure_noise
    from fedrec import console
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, [*TOWERS, *(settings or [])]) or RunConfig()
    rows = secure_aggregation.measure(config, console.status, clients or secure_aggregation.CLIENTS)
    found = {"rounds": rows, "groups": measure_groups(), "noise": measure_noise(config)}
    figures = printing.with_origin(found, config, " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(figures, indent=2)) if as_json else printing.show_secure(found)


@bench_app.command("privacy")
def bench_privacy(
    data: Annotated[list[Path] | None, typer.Option(help="A prepared folder; repeatable.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users of the synthetic federation.")] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Folder of what is measured already.")] = Path("runs/privacy"),
) -> None:
    """Measure NDCG@10 of the closed form over pairs against ε, on prepared data and on a synthetic federation."""
    from benchmarks.privacy_utility import measure

    figures = measure({folder.name: folder for folder in data or ()}, users, out)
    print(json.dumps(figures | {"command": " ".join(["fedrec", *sys.argv[1:]])}, indent=2))


@bench_app.command("huge")
def bench_huge(
    folder: Annotated[Path, typer.Argument(help="A folder for the made-up federation; it is kept.")],
    users: Annotated[int, typer.Option(min=1)] = 10_000_000,
    items: Annotated[int, typer.Option(min=1)] = 1_000_000,
    interactions: Annotated[int, typer.Option(min=1)] = 200_000_000,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a federation of millions: prepare, open, draw, train, sum, serve. After Ctrl-C the same command resumes.

    The default takes 9 GB on disk.
    """
    from benchmarks.speed import huge, printing
    from fedrec import console
    from fedrec.data.synthetic.random_tables import SyntheticConfig
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, [*TOWERS, *(settings or [])]) or RunConfig()
    world = huge.World(SyntheticConfig(users, items, interactions, seed=config.seed, longest=100), folder)
    found = huge.measure(world, config, console.status)
    figures = printing.with_origin(found, config, " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(figures, indent=2)) if as_json else printing.show_figures("huge", found)


@bench_app.command("asynchronous")
def bench_asynchronous(
    data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/asynchronous"),
    as_json: Json = False,
) -> None:
    """Compare the time to quality of synchronous and buffered rounds under simulated fleets of unequal devices.

    After Ctrl-C the same command resumes.
    """
    from benchmarks.speed import asynchronous, printing
    from fedrec import console
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(None, [*TOWERS, *(settings or [])]) or RunConfig()
    found = asynchronous.measure(data, config, out, console.status)
    figures = printing.with_origin(found, config, " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(figures)) if as_json else printing.show_asynchronous(found)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str, typer.Argument(help="A benchmark: benchmarks/NAME.toml.")],
    source: Annotated[
        Path | None, typer.Option(help="A zip or folder of the raw data.", show_default="downloaded")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of its jobs.", show_default="runs/reproduce/NAME")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Run only this job or family of jobs.", show_default="all")
    ] = None,
    preset: Annotated[Path | None, typer.Option(metavar="FILE", help="Your own preset, to be called NAME.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of NAME.json.")] = Path("benchmarks/results"),
    as_json: Json = False,
) -> None:
    """Reproduce a benchmark from the raw data. Finished jobs are kept: after Ctrl-C the same command resumes."""
    from benchmarks.preset import read_preset
    from benchmarks.reproduce.benchmark import Benchmark, reproduce
    from benchmarks.reproduce.collect import metrics_by_model
    from fedrec import console

    benchmark = Benchmark(name, *read_preset(name, preset), out or Path("runs/reproduce") / name, source)
    result = reproduce(benchmark, part or [], results)
    if as_json:
        print(json.dumps(result.to_json()))
        return
    console.show(console.metrics_table(f"{name}, test, full catalogue", metrics_by_model(result)))


@app.command("attack")
def attack_command(
    name: Annotated[str, typer.Argument(help="An attack of docs/attacks.md, or all.")],
    run_config: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN-CONFIG]", help="A TOML file of a run's settings.", show_default="none"),
    ] = None,
    data: Annotated[str, typer.Option(help="A dataset's name, or a prepared folder.")] = "ml-100k",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few victims and short runs: seconds, not minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the attacker's draws.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of what has been measured.")] = Path("runs/attacks"),
    results: Annotated[Path, typer.Option(help="File of the figures.")] = Path("benchmarks/attacks.json"),
    as_json: Json = False,
) -> None:
    """Attack a federation in this process, with each defence on and off. Finished cases are kept: it resumes."""
    from benchmarks.attacks.printing import show_results
    from benchmarks.attacks.run import Experiment, run
    from fedrec.federation.config import RunConfig
    from fedrec.settings_file import read_settings

    config = read_settings(run_config, settings or []) or RunConfig()
    found = run(Experiment(name, data, config, quick, seed, out, results))
    print(json.dumps([result.to_json() for result in found])) if as_json else show_results(found)


Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with status 1 if a file differs.")]
Root = Annotated[Path, typer.Option(help="A clone of the repository.")]


@app.command()
def results(check: Check = False, root: Root = Path()) -> None:
    """Write docs/results.md, docs/attacks.md, their plots and the results in README.md from benchmarks/."""
    from benchmarks.report.write import find_differing, write_documents

    _report(find_differing(root) if check else write_documents(root), "results", check)


@app.command()
def settings(check: Check = False, root: Root = Path()) -> None:
    """Write docs/settings.md, the reference of all settings, from the classes that define them."""
    from benchmarks.report.settings_page import find_differing, write_page

    _report(find_differing(root) if check else write_page(root), "settings", check)


def _report(paths: list[Path], command: str, check: bool) -> None:
    from fedrec import console

    for path in paths:
        console.out.print(f"{path} {f'differs; run `fedrec {command}`' if check else 'written'}", soft_wrap=True)
    raise typer.Exit(1 if check and paths else 0)
