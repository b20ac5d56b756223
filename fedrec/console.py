"""Output in the terminal: progress on stderr, answers on stdout."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
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
from rich.table import Column, Table
from rich.text import Text

from fedrec.data.progress import Progress as Report
from fedrec.federation import round_log

if TYPE_CHECKING:
    from fedrec.recsys.baselines.sasrec import Epoch

out = Console(highlight=False, markup=False)  # names of files, items and datasets may hold [brackets]
err = Console(stderr=True, highlight=False, markup=False)


def status(text: str, heading: str = "") -> None:
    err.print(Text.assemble((heading, "bold"), text), soft_wrap=True)


def warn(text: str) -> None:
    err.print(Text.assemble(("note", "yellow"), " ", text), soft_wrap=True)


@contextmanager
def counting(what: str, download: bool = False) -> Iterator[Report]:
    """Show a bar for a count of known or unknown length; it appears with the first report."""
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
def rounds(total: int, every: int, done: int = 0) -> Iterator[round_log.Observer]:
    """Show the live line of a training run or, without a terminal, a line for each `every` rounds."""
    columns = (
        SpinnerColumn("dots" if err.encoding.startswith("utf") else "line"),
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
            if "exposure" in record:  # after the last round, and told in one line at the end
                progress.update(task, news=f"counting what users are shown  {size(crossed)} crossed")
                return
            if record["validation"]:
                best = f"{record['validation'][round_log.SCORE]:.4f}"
            loss = ("–" if record["loss"] is None else f"{record['loss']:.3f}") + round_log.without_loss(record)
            news = f"loss {loss}  validation NDCG@10 {best}"
            if crossed:  # under differential privacy it is not told
                news += f"  {record['clients_per_second']:.0f} clients/s  {size(crossed)} crossed"
            progress.update(task, completed=record["round"], news=news)
            told = record["round"] % every == 0 or record["round"] == total or "candidate" in record
            if not err.is_terminal and told:
                status(f"round {record['round']}/{total}  {news}")

        yield observe


def show_epoch(epoch: "Epoch") -> None:
    """Print the line of an epoch of a baseline's training, if it was validated."""
    if epoch.ndcg is not None:
        status(f"epoch {epoch.epoch}  loss {epoch.loss:.3f}  validation NDCG@10 {epoch.ndcg:.4f}")


def size(count: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def table(*columns: str | Column, title: str | None = None) -> Table:
    """Build a table for `show`; a column given by its name is one of text."""
    return Table(*(words(c) if isinstance(c, str) else c for c in columns), title=title, title_justify="left")


def words(name: str, width: int = 0) -> Column:
    """Build a column of text of a least width; longer text is folded, so that nothing is cut off."""
    return Column(name, overflow="fold", min_width=max(len(name), width))


def figures(name: str, width: int = 0) -> Column:
    """Build a column of numbers, which are not folded if they are no wider than `width` or the name."""
    return Column(name, justify="right", no_wrap=True, min_width=max(len(name), width))


def show(shown: Table) -> None:
    """Print a table on stdout. In a terminal too narrow for it, lines wrap and nothing is cut off."""
    least = 1 + sum((column.min_width or 1) + 3 for column in shown.columns)  # a border and two spaces for each
    shown.width = least if least > out.width else None
    out.print(shown, crop=False)


def items_table(title: str, items: Sequence[Any]) -> Table:
    """Build the table of an answer's items, best first."""
    shown = table(figures("#", len(str(len(items)))), "title", figures("score"), "item id", title=title)
    for place, item in enumerate(items, start=1):
        shown.add_row(str(place), item.title, f"{item.score:.3f}", item.item_id)
    return shown


def metrics_table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """Build a table with a row of metrics for each model."""
    names = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage@10")
    label = words("", min(10, max(map(len, rows), default=0)))
    shown = table(label, *(figures(name, len("0.0000")) for name in names), title=title)
    for name, metrics in rows.items():
        shown.add_row(name, *(f"{metrics[metric]:.4f}" if metric in metrics else "–" for metric in names))
    return shown
