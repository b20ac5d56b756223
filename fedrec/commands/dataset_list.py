"""The list of the datasets that can be prepared by name, as text and as records."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from fedrec import console
from fedrec.data.readers.source import Family, Publisher, Size, Source
from fedrec.data.readers.sources import FAMILIES, SOURCES


def as_records() -> list[dict[str, Any]]:
    """Return a record of each dataset; a family's has its members, and its addresses with the member's place open."""
    return [_as_record(name, source, family) for name, source, family in _entries()]


def _as_record(name: str, source: Source, family: Family | None) -> dict[str, Any]:
    size, publisher = source.size or (None, None, None), source.publisher
    return {
        "name": name,
        "about": family.about if family else source.about,
        "members": list(family.members) if family else None,
        **dict(zip(Size._fields, size, strict=True)),
        "publisher": publisher.title,
        "terms": publisher.terms,
        "citation": publisher.citation,
        "page": publisher.page,
        "urls": _addresses(source, family),
        "md5": source.md5,
        "by_hand": source.by_hand or None,
    }


def _entries() -> Iterator[tuple[str, Source, Family | None]]:
    """Iterate over the datasets by publisher: names, sources (of a family, a member's), and families."""
    entries: list[tuple[str, Source, Family | None]] = [(source.name, source, None) for source in SOURCES.values()]
    entries += [(f"{each.name}:{each.member_word}", each.source(each.members[0]), each) for each in FAMILIES.values()]
    return iter(sorted(entries, key=lambda entry: (entry[1].publisher.title, entry[2] is None)))


def _addresses(source: Source, family: Family | None) -> list[str]:
    addresses = [source.url, *source.more_urls] if source.url else []
    return [url.replace(family.members[0], family.member_word) for url in addresses] if family else addresses


def show_datasets() -> None:
    """Print the datasets, grouped by publisher."""
    for publisher, entries in groupby(_entries(), key=lambda entry: entry[1].publisher):
        _print(_heading(publisher))
        for name, source, family in entries:
            _print(f"  {name:<26}{_size(source, family)}")
            for line in _origin(source, family):
                _print(f"  {'':<26}{line}")
        _print("")


def _print(line: str) -> None:
    console.out.print(line, soft_wrap=True)


def _heading(publisher: Publisher) -> str:
    facts = [f"terms: {publisher.terms}", publisher.citation and f"cite: {publisher.citation}", publisher.page]
    return f"{publisher.title}\n  " + "\n  ".join(fact for fact in facts if fact)


def _size(source: Source, family: Family | None) -> str:
    if family:
        return f"one of {len(family.members)}, which --json names; {family.about}"
    if not source.size:
        return source.about
    return ", ".join(f"{count:,} {unit}" for unit, count in source.size._asdict().items()) + f": {source.about}"


def _origin(source: Source, family: Family | None) -> list[str]:
    if not source.url:
        return [f"by --source: {source.by_hand}" if source.by_hand else "made by this package"]
    if source.benchmark:
        return []
    checksum = "its MD5 is checked" if source.md5 else "no checksum is published"
    first, *others = _addresses(source, family)
    return [f"{first} ({checksum})", *others]
