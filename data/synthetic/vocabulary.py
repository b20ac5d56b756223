"""The words of the demo world: how each trait of a film appears in its title and its plot.

They are in `vocabulary.toml`, which is read when they are first needed.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from numpy.random import Generator

Kind = TypeVar("Kind")
Option = TypeVar("Option")


@dataclass(frozen=True)
class Era:
    """The time in which a film is set."""

    name: str
    earliest: int  # the first year in which such a film may be released
    whens: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """The place in which a film is set; `places` begin with a preposition, `images` are words for a title."""

    name: str
    places: tuple[str, ...]
    scenes: tuple[str, ...]
    images: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Genre:
    """The kind of a film; `premises` are for plots that it leads, `turns` for films of which it is the second genre."""

    name: str
    settings: tuple[str, ...]
    roles: tuple[str, ...]
    nouns: tuple[str, ...]
    premises: tuple[str, ...]
    turns: tuple[str, ...]
    eras: tuple[str, ...] = ("steam", "jazz", "forties", "sixties", "today")
    timeless: bool = False  # whether its turns fit any era and setting, outer space included


@dataclass(frozen=True)
class Theme:
    """The subject of a film; `subjects` follow the word "about"."""

    name: str
    titles: tuple[str, ...]
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Mood:
    """The mood of a film; `tones` are for titles, `characters` for heroes, and `verdicts` are sentences."""

    name: str
    tones: tuple[str, ...]
    characters: tuple[str, ...]
    adjectives: tuple[str, ...]
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """All kinds of traits with their words, and the templates of titles and plots."""

    titles: tuple[str, ...]
    openings: tuple[str, ...]
    reflections: tuple[str, ...]
    forms: tuple[str, ...]
    small_words: tuple[str, ...]  # words without a capital in a title
    eras: tuple[Era, ...]
    settings: tuple[Setting, ...]
    genres: tuple[Genre, ...]
    themes: tuple[Theme, ...]
    moods: tuple[Mood, ...]


@dataclass(frozen=True)
class Film:
    """The hidden traits of one film; the first genre leads."""

    genres: tuple[Genre, ...]
    setting: Setting
    era: Era
    theme: Theme
    mood: Mood

    @property
    def traits(self) -> frozenset[str]:
        """The names of all its traits."""
        single = (self.setting, self.era, self.theme, self.mood)
        return frozenset(trait.name for trait in (*self.genres, *single))


@cache
def load_vocabulary() -> Vocabulary:
    """Read the vocabulary from the file beside this module."""
    tables = tomllib.loads(files("fedrec.data.synthetic").joinpath("vocabulary.toml").read_text("utf-8"))
    kinds = {"eras": Era, "settings": Setting, "genres": Genre, "themes": Theme, "moods": Mood}
    traits = {name: tuple(_build(kind, table) for table in tables.pop(name)) for name, kind in kinds.items()}
    return _build(Vocabulary, tables | traits)


def _build(kind: type[Kind], table: dict[str, Any]) -> Kind:
    """Build a value from a table, with tuples in place of lists."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in table.items()})


def draw_words(film: Film, rng: Generator) -> dict[str, str]:
    """Draw one wording of each trait, under the names that the templates use."""
    lead, mood, setting = film.genres[0], film.mood, film.setting
    place, noun, role = pick(rng, setting.places), pick(rng, lead.nouns), pick(rng, lead.roles)
    first, second = (mood.adjectives[choice] for choice in rng.permutation(len(mood.adjectives))[:2])
    return {
        "place": place,
        "spot": place.split(" ", 1)[1],
        "scene": pick(rng, setting.scenes),
        "image": pick(rng, setting.images),
        "name": pick(rng, setting.names),
        "noun": noun,
        "a_noun": with_article(noun),
        "role": role,
        "hero": with_article(f"{pick(rng, mood.characters)} {role}"),
        "premise": pick(rng, lead.premises),
        "turn": pick(rng, film.genres[1].turns) if len(film.genres) > 1 else "",
        "when": pick(rng, film.era.whens),
        "theme": pick(rng, film.theme.titles),
        "subject": pick(rng, film.theme.subjects),
        "tone": pick(rng, mood.tones),
        "a_mood": with_article(f"{first}, {second}"),
        "verdict": pick(rng, mood.verdicts),
        "form": pick(rng, load_vocabulary().forms),
    }


def draw_title(words: dict[str, str], rng: Generator) -> str:
    """Draw a title, in title case."""
    vocabulary = load_vocabulary()
    first, *rest = pick(rng, vocabulary.titles).format_map(words).split()
    cased = (word if word in vocabulary.small_words else capitalise(word) for word in rest)
    return " ".join([capitalise(first), *cased])


def draw_plot(words: dict[str, str], rng: Generator) -> str:
    """Draw a plot: the premise, the turn of the second genre if any, the subject and the mood."""
    vocabulary = load_vocabulary()
    forms = (vocabulary.openings, vocabulary.reflections)
    opening, reflection = (pick(rng, templates).format_map(words) for templates in forms)
    events = [opening, words["turn"]]
    sentences = [reflection, *events] if rng.random() < 0.3 else [*events, reflection]
    return " ".join(capitalise(sentence) for sentence in sentences if sentence)


def with_article(phrase: str) -> str:
    """Put the indefinite article before a phrase."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith("uni")
    return f"an {phrase}" if vowel else f"a {phrase}"


def capitalise(text: str) -> str:
    """Change the first letter to upper case; the others stay as they are."""
    return text[0].upper() + text[1:]


def pick(rng: Generator, options: Sequence[Option]) -> Option:
    """Draw one of the options."""
    return options[int(rng.integers(len(options)))]
