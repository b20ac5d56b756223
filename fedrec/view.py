"""What a person sees in the terminal: progress on stderr, answers on stdout."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from data.download import Progress as Report

if TYPE_CHECKING:
    from federation.rounds import Observer

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    err.print(text, soft_wrap=True)


def warn(text: str) -> None:
    err.print(f"[yellow]note[/yellow] {escape(text)}", soft_wrap=True)


@contextmanager
def counting(what: str, download: bool = False) -> Iterator[Report]:
    """A bar for a count of known or unknown length; it appears with the first report."""
    columns = [DownloadColumn()] if download else [MofNCompleteColumn()]
    progress = Progress(TextColumn(what), BarColumn(), *columns, TimeRemainingColumn(), console=err)
    task = progress.add_task(what, total=None)
    with ExitStack() as shown:

        def report(done: int, total: int | None) -> None:
            if not progress.live.is_started:
                shown.enter_context(progress)
            progress.update(task, completed=done, total=total)

        yield report


@contextmanager
def rounds(total: int, every: int, done: int = 0) -> Iterator["Observer"]:
    """The live line of a training run; where there is no terminal, a line for each `every` rounds."""
    from federation import log
    from federation.rounds import SCORE  # brings torch, which other commands need not wait for

    columns = (
        SpinnerColumn(),
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[news]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("training", total=total, completed=done, news="starting")
        best, crossed = "–", 0

        def observe(record: dict[str, Any]) -> None:
            nonlocal best, crossed
            crossed += record["bytes_down"] + record["bytes_up"]
            if record["validation"]:
                best = f"{record['validation'][SCORE]:.4f}"
            loss = ("–" if record["loss"] is None else f"{record['loss']:.3f}") + log.without_loss(record)
            news = (
                f"loss {loss}  validation NDCG@10 {best}  {record['clients_per_second']:.0f} clients/s  "
                f"{size(crossed)} crossed"
            )
            progress.update(task, completed=record["round"], news=news)
            if not err.is_terminal and (record["round"] % every == 0 or record["round"] == total):
                say(f"round {record['round']}/{total}  {news}")

        yield observe


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def items_table(title: str, items: Sequence[Any]) -> Table:
    """Answered items, best first."""
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("title")
    table.add_column("score", justify="right")
    table.add_column("item id")
    for place, item in enumerate(items, start=1):
        table.add_row(str(place), escape(item.title), f"{item.score:.3f}", escape(item.item_id))
    return table


def metrics_table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """One row of metrics for each thing that ranks."""
    names = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage@10")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for label, metrics in rows.items():
        table.add_row(label, *(f"{metrics[name]:.4f}" if name in metrics else "–" for name in names))
    return table
