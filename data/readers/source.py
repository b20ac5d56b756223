"""What is declared of a published dataset: its name and size, its publisher and terms, its files and their reader."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fedrec.data.errors import InputError
from fedrec.data.readers.raw import Frames, Root
from fedrec.data.readers.rules import DEFAULT_RULES, Rules
from fedrec.data.split import LEAVE_ONE_OUT, Split


@dataclass(frozen=True)
class Publisher:
    """The publisher of some datasets, and what it asks of their users."""

    title: str
    citation: str = ""
    terms: str = ""
    page: str = ""


THIS_PACKAGE = Publisher("Generated", terms="as this package")


class Size(NamedTuple):
    """The size of a dataset as published."""

    users: int
    items: int
    events: int


@dataclass(frozen=True)
class Source:
    """A dataset that can be prepared by name. `md5` is None if the publisher gives no checksum of the file."""

    name: str
    about: str
    read: Callable[[Root], Frames]
    url: str | None = None  # of a zip, or of the first of several files
    md5: str | None = None
    publisher: Publisher = THIS_PACKAGE
    size: Size | None = None  # None: nowhere published
    by_hand: str = ""  # how to get the files, if they cannot be downloaded
    split: Split = LEAVE_ONE_OUT
    texts: tuple[str, ...] = ()  # the columns that make up the items' text; empty: the reader's choice
    rules: Rules = DEFAULT_RULES
    more_urls: tuple[str, ...] = ()  # of the other files
    benchmark: bool = False  # papers report on exactly this size

    @property
    def folder_name(self) -> str:
        """The name as a folder's."""
        return self.name.replace(":", "-")

    def check_size(self, found: Size) -> str | None:
        """Return a warning if a benchmark has another size than papers report."""
        if not self.benchmark or self.size is None or found == self.size:
            return None
        differing = [
            f"{count:,} {name} where {published:,} are published"
            for name, count, published in zip(Size._fields, found, self.size, strict=True)
            if count != published
        ]
        return f"{self.name} has {', '.join(differing)}: its figures do not compare with those of papers"


@dataclass(frozen=True)
class Family:
    """Datasets of one publisher and one format, one for each member: `NAME:MEMBER`."""

    name: str
    member_word: str  # for the members: CATEGORY
    members: tuple[str, ...]
    about: str
    build: Callable[[str], Source]

    def source(self, member: str) -> Source:
        """Return a member's source. Raises `InputError`, which lists the members."""
        if member not in self.members:
            raise InputError(
                f"dataset {self.name}:{member} is not known; {self.member_word} is one of {', '.join(self.members)}"
            )
        return self.build(member)
