"""The datasets that can be prepared by name."""

from fedrec.data.errors import InputError
from fedrec.data.readers import movielens
from fedrec.data.readers.amazon_sources import AMAZON_2014, AMAZON_2018, AMAZON_2023, BENCHMARKS, UNISREC_CUTS
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.other_sources import GOODREADS, OTHERS
from fedrec.data.readers.raw import Frames, Root
from fedrec.data.readers.source import Source
from fedrec.data.synthetic import demo_films


def read_demo(_: Root) -> Frames:
    """Generate the world of `fedrec demo`: `fedrec.data.synthetic.demo_films` describes the process."""
    interactions, items = demo_films.generate()
    return Frames(interactions, add_text(items).drop("plot"))


DEMO = Source("demo", "generated films and users", read_demo)

SOURCES = {each.name: each for each in (DEMO, *movielens.SOURCES, *BENCHMARKS, *UNISREC_CUTS, *OTHERS)}
"""The datasets with a name of their own."""

FAMILIES = {each.name: each for each in (AMAZON_2014, AMAZON_2018, AMAZON_2023, GOODREADS)}
"""The datasets whose name is followed by a member's: `amazon-2023:Video_Games`."""


def source_named(name: str) -> Source:
    """Return a dataset's source. Raises `InputError`, which lists the known names."""
    family, _, member = name.partition(":")
    if family in FAMILIES:
        return FAMILIES[family].source(member)
    if name not in SOURCES:
        placeholders = [f"{each.name}:{each.member_word}" for each in FAMILIES.values()]
        raise InputError(f"dataset {name!r} is not known; choose one of {', '.join([*SOURCES, *placeholders])}")
    return SOURCES[name]
