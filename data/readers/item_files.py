"""Item metadata of published datasets: a record per item → title, text, and columns to filter by.

Only the items that occur in the events are kept, and no more than a batch of records is held beside them: a file of
metadata may have 20 GB.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from fedrec.data.readers.columns import infer_type
from fedrec.data.readers.lines import DEFAULT_TEXT_FORMAT, line_label
from fedrec.data.readers.plain_text import plain_texts
from fedrec.data.readers.raw import File
from fedrec.data.readers.reading_report import BadRows, ReadingReport
from fedrec.data.readers.records import RecordFormat, Wanted, read_record_batches


@dataclass(frozen=True)
class ItemFields:
    """The keys of a record that make up an item."""

    id: str
    titles: tuple[str, ...]  # the first with a text is the title
    texts: tuple[str, ...] = ()  # of the text, after the title
    columns: Mapping[str, str] = field(default_factory=dict)  # name in the catalogue → key
    blanks: tuple[str, ...] = ()  # texts that stand for none
    code: str | None = None  # a mark of the code of a page, which stands where a text was not found

    def describe(self, record: Mapping[str, Any]) -> dict[str, str | None]:
        """Describe an item: its id, title and text, then its columns; None for what it lacks."""
        texts = {key: self._texts(record.get(key)) for key in (*self.titles, *self.texts)}
        titled = next((key for key in self.titles if texts[key]), None)
        parts = [", ".join(texts[key]) for key in dict.fromkeys([titled, *self.texts]) if key]
        columns = {name: "|".join(self._texts(record.get(key))) or None for name, key in self.columns.items()}
        text = ". ".join(part for part in parts if part)
        title = parts[0] if titled else None
        return {"item_id": str(record[self.id]), "title": title, "text": text or None} | columns

    def count_code(self, record: Mapping[str, Any]) -> int:
        """Count the titles that are code of a page: 0 or 1."""
        return int(bool(self.code) and any(str(self.code) in str(record.get(key)) for key in self.titles))

    def _texts(self, value: object) -> list[str]:
        texts = plain_texts(value)
        return [text for text in texts if text not in self.blanks and not (self.code and self.code in text)]


def read_items(
    file: File, form: RecordFormat, fields: ItemFields, needed: Set[str], report: ReadingReport
) -> pl.DataFrame:
    """Read the items that are needed and have a text, in file order; an item may occur twice.

    Raises `InputError` if the file cannot be read, or if too many lines are broken.
    """
    batches = list(read_item_batches(file, form, fields, needed, report))
    items = pl.concat(batches) if batches else pl.DataFrame(schema=_schema(fields))
    typed = [infer_type(items[name]) for name in fields.columns]
    return items.with_columns(column for column in typed if column is not None)


def read_item_batches(
    file: File, form: RecordFormat, fields: ItemFields, needed: Set[str], report: ReadingReport
) -> Iterator[pl.DataFrame]:
    """Iterate over frames of items, and report the broken lines after the last one."""
    bad, lines, code, first = 0, 0, 0, ""
    for batch in read_record_batches(file, form, Wanted(fields.id, needed)):
        broken = [record for record in batch.records if record.fault]
        bad += sum(record.lines for record in broken)
        first = first or next((f"{line_label(file.name, each.line)}: {each.fault}" for each in broken), "")
        sound = [record.fields for record in batch.records if not record.fault]
        lines, code = lines + batch.lines, code + sum(map(fields.count_code, sound))
        frame = pl.DataFrame([fields.describe(record) for record in sound], schema=_schema(fields))
        yield frame.filter(pl.col("text").is_not_null()).with_columns(title=pl.coalesce("title", "item_id"))
    report.add_bad_rows("bad_item_rows", BadRows(bad, lines, first), DEFAULT_TEXT_FORMAT.bad_rows)
    if code:
        report.add_remark(f"titles of {file.name} that are code of a page, not read: {code:,}")


def _schema(fields: ItemFields) -> dict[str, type[pl.DataType]]:
    return dict.fromkeys(("item_id", "title", "text", *fields.columns), pl.String)
