"""UniSRec's released splits of Amazon 2018: `NAME.{train,valid,test}.inter`, `.text`, `.user2index`, `.item2index`.

Split: Hou et al. 2022, arXiv:2206.05941; reviews: Ni, Li and McAuley 2019, doi:10.18653/v1/D19-1018. A row of
`.test.inter` holds a user's last event and up to 50 before it, and this reader takes the history from it. The other two
files repeat parts of it, row by row; they are compared with it, so that files of two copies are noticed.
"""

import html
import re

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.plain_text import MARKUP
from fedrec.data.readers.raw import File, Frames, Layout, Root, find_file, read_table
from fedrec.data.readers.recbole import read_atomic

Histories = dict[str, list[str]]
"""Each user's events, oldest first. Users and items are the files' own numbers."""


def read_unisrec(root: Root, name: str, department: str) -> Frames:
    """Read the histories and the items. `department` is the first of all categories: a title ends before it."""
    test = find_file(root, f"{name}.test.inter")
    rows = _read_rows(test)
    histories = dict(rows)
    if len(histories) < len(rows):
        raise InputError(f"{test.name} names a user twice; a user has one row there: take all files from one copy")
    _check_consistent(histories, find_file(root, f"{name}.valid.inter"), held_out=1)
    _check_consistent(histories, find_file(root, f"{name}.train.inter"), held_out=2)
    return Frames(_build_events(histories, root, name), _read_items(find_file(root, f"{name}.text"), department))


def _read_rows(file: File) -> list[tuple[str, list[str]]]:
    """Read each row's user and events: the history, then the event to predict."""
    table = read_atomic(file, {"user_id": "token", "item_id_list": "token_seq", "item_id": "token"})
    return table.select("user_id", pl.concat_list("item_id_list", "item_id")).rows()


def _check_consistent(histories: Histories, file: File, held_out: int) -> None:
    """Raise `InputError` if no row of a user ends as the user's history does without the last `held_out` events."""
    missing = {user for user, events in histories.items() if len(events) > held_out + 1}
    for user, events in _read_rows(file):
        known = histories.get(user, [])[:-held_out]
        if events[-len(known) :] == known:
            missing.discard(user)
    if missing:
        raise InputError(
            f"{file.name}: user {min(missing)!r} has no row that ends {held_out} before the last event of the row in "
            "the .test.inter file; take all files from one copy"
        )


def _build_events(histories: Histories, root: Root, name: str) -> pl.DataFrame:
    """Build the interactions under the ids of Amazon; `timestamp` is the position in the user's history."""
    numbered = pl.DataFrame(list(histories.items()), schema=["user", "item"], orient="row")
    events = numbered.with_columns(timestamp=pl.int_ranges(pl.col("item").list.len())).explode("item", "timestamp")
    for column in ("user", "item"):
        file = find_file(root, f"{name}.{column}2index")
        known = read_table(file, Layout([f"{column}_id", column], "\t"))
        if known[column].n_unique() < known.height:
            raise InputError(f"{file.name} gives a number twice; take all files from one copy")
        events = events.join(known, on=column, how="left", maintain_order="left")
        if (unknown := events[f"{column}_id"].is_null()).any():
            number = events[column][int(unknown.arg_max() or 0)]
            raise InputError(f"{file.name} has no {column} {number!r}, which {name}.test.inter names; take one copy's")
    return events.select("user_id", "item_id", "timestamp")


def _read_items(file: File, department: str) -> pl.DataFrame:
    """Read the items that have a text."""
    table = read_atomic(file, {"item_id": "token", "text": "token_seq"})
    parsed = [_parse_text(text, department) for text in table["text"].list.join(" ")]
    titles, texts = zip(*parsed, strict=True)
    return pl.DataFrame({"item_id": table["item_id"], "title": titles, "text": texts}).filter(pl.col("text") != "")


def _parse_text(raw: str, department: str) -> tuple[str, str]:
    """Parse `title. categories. brand.` into title and text, without entities, markup and empty parts.

    A title that is the department alone was page code: the rest of the text is kept.
    """
    plain = " ".join(MARKUP.sub("", html.unescape(raw)).split())
    plain = plain.removeprefix(f"{department}. ") if plain.startswith(f"{department}. {department}") else plain
    title = re.split(rf"\. (?={re.escape(department)}|\.)", plain, maxsplit=1)[0]
    title = title if title != plain else plain.partition(". ")[0]
    parts = [part.strip() for part in plain.split(". ") if part.strip(" .")]
    return title.removesuffix(".").rstrip(), ". ".join(parts)
