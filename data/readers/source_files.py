"""The files of a published dataset, found by their names in what the user has, and read into frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.event_files import EventFields, read_events
from fedrec.data.readers.item_files import ItemFields, read_items
from fedrec.data.readers.raw import File, Frames, Place, Root
from fedrec.data.readers.reading_report import join_names
from fedrec.data.readers.records import PARQUET, RecordFormat

DEPTH = 5
"""The number of folders within folders that are searched: a clone of Amazon Reviews 2023 has three."""

COMPRESSED = ".gz"


@dataclass(frozen=True)
class EventFiles:
    """The files of a dataset's events: all of them are read, in this order."""

    names: tuple[str, ...]
    form: RecordFormat
    fields: EventFields
    find_form: Callable[[File], RecordFormat] | None = None  # if the form depends on the file


@dataclass(frozen=True)
class ItemFile:
    """The file of a dataset's items."""

    name: str
    form: RecordFormat
    fields: ItemFields

    def read(self, root: Root, files: list[File], ids: pl.Series) -> pl.DataFrame:
        """Read the items that occur (T,) from the files of this name in `root`; without any, they have no text."""
        if not files:
            root.warn(f"{root} holds no {self.name!r}: all items are known by their id alone")
        needed = frozenset(ids.unique())
        none = pl.DataFrame(schema=dict.fromkeys(("item_id", "title", "text"), pl.String))
        frames = [read_items(file, self.form, self.fields, needed, root.report) for file in files]
        return pl.concat(frames, how="diagonal") if frames else none


@dataclass(frozen=True)
class FileSet:
    """A reader of a dataset with one file of items and one of several kinds of events, the preferred kind first."""

    events: tuple[EventFiles, ...]
    items: ItemFile

    def __call__(self, root: Root) -> Frames:
        """Read the events, then the items that occur in them. Raises `InputError`, which names what is missing."""
        index = FileIndex(root)
        index.check_given([*(name for kind in self.events for name in kind.names), self.items.name])
        chosen, files = self._choose(index)
        form = chosen.find_form(files[0]) if chosen.find_form else chosen.form
        events = read_events(files, form, chosen.fields, root.report)
        items = [index.find(self.items.name)] if index.holds(self.items.name) else []
        return Frames(events, self.items.read(root, items, events["item_id"]))

    def _choose(self, index: "FileIndex") -> tuple[EventFiles, list[File]]:
        """Choose the kind of files that was given, or the first that is there, and note the others."""
        there = [kind for kind in self.events if index.holds(kind.names[0])]
        there = [kind for kind in there if any(map(index.was_given, kind.names))] or there
        if not there:
            raise InputError(
                f"{index.root} holds none of {', '.join(kind.names[0] for kind in self.events)}, but "
                f"{join_names(index.names) or 'no files'}; is it the dataset you named?"
            )
        if others := [kind.names[0] for kind in there[1:]]:
            index.root.warn(f"{there[0].names[0]} is read, not {', '.join(others)}, which are there, too")
        return there[0], [index.find(name) for name in there[0].names]


@dataclass(frozen=True)
class FileIndex:
    """The files in a folder, below it or in a zip, by their names without the suffix of compression.

    Of a single file, the folder is searched, so that the files beside it are found.
    """

    root: Root

    @cached_property
    def _files(self) -> dict[str, list[File]]:
        files = dict[str, list[File]]()
        for place in _walk(self.root.place, 0 if self.root.given else DEPTH):
            files.setdefault(place.name.removesuffix(COMPRESSED), []).append(File(place, self.root.warn))
        return files

    @property
    def names(self) -> list[str]:
        """The names of all files; of a single file, its own."""
        return [self.root.given] if self.root.given else sorted(self._files)

    def all_named(self, name: str) -> list[File]:
        """List the files of a name, or of its parquet copy, in the order of their places; the given one is alone."""
        stem = name.rpartition(".")[0]
        found = [*self._files.get(name, []), *self._files.get(stem + PARQUET, [])]
        given = [file for file in found if file.name == self.root.given]
        return given or sorted(found, key=lambda file: str(file.place))

    def was_given(self, name: str) -> bool:
        """Check whether the one file that was given has this name."""
        return any(file.name == self.root.given for file in self.all_named(name))

    def holds(self, name: str) -> bool:
        """Check whether a file of this name is there."""
        return bool(self.all_named(name))

    def find(self, name: str) -> File:
        """Find a file by its name; of one file and its compressed copy, the first.

        Raises `InputError` if it is not there, or in two folders.
        """
        found = self.all_named(name)
        if not found:
            raise InputError(f"{self.root} holds no {name!r}, but {join_names(self.names)}; give the whole dataset")
        folders = sorted({str(file.place.parent) for file in found})
        if len(folders) > 1:
            raise InputError(f"{self.root} holds {name!r} in {folders[0]} and in {folders[1]}; give one of them")
        return found[0]

    def check_given(self, names: list[str]) -> None:
        """Raise `InputError` if the one file that was given has none of these names."""
        if self.root.given and not any(map(self.was_given, names)):
            raise InputError(f"{self.root} is none of {', '.join(names)}; is it the dataset you named?")


def _walk(place: Place, depth: int) -> Iterator[Place]:
    """Iterate over the files in a folder, and in those below it."""
    for child in place.iterdir():
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from _walk(child, depth - 1) if depth else ()
        else:
            yield child
