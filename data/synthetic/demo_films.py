"""A small synthetic world of films and viewers, for trying the system without any private data.

Every film has hidden traits: one or two genres, a setting, an era, a theme and a mood. They are drawn at
random (though each setting is home to a few genres only) and put into words, each trait in several wordings.
A recommender gets these words and the histories, and nothing else; of the traits, only the genres are listed
as such.

A viewer picks the next film among those not seen yet. At the moment p of a life that runs from 0, the first
film, to 1, the last one, and after a film j, the pick is the film i with the highest

    (1 - p) * early(i) + p * late(i) - dislike(i) + habit(mood of j, mood of i) + fame(i) + Gumbel noise

that is, it is drawn from a softmax.

* early, late: each viewer has two ideal films, drawn independently of everybody else's, and likes a film in
  proportion to the genres and the setting that it shares with them. So tastes drift from one ideal to the
  other, and recent films are the best predictors of the next one.
* dislike: each viewer dislikes two genres, for life.
* habit: after one mood people look for another. Each mood calls for the next one in a ring, and half as
  loudly for the one after that. The ring is the same for everybody and drawn at random, so that no text reveals
  its order: it can be learned only from histories, and better from those of many viewers.
* fame: a mild Zipf law, -log(rank) times an exponent. Ranks have nothing to do with traits.
* A few picks are by fame and noise alone. Era and theme move nobody: they are there to be ignored.

The number of films per viewer is log-normal, clipped to [8, 120], or to half of the films if that is less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fedrec.data.synthetic.vocabulary import (
    Era,
    Film,
    Genre,
    Mood,
    Setting,
    draw_plot,
    draw_title,
    draw_words,
    load_vocabulary,
    pick,
)

Array = np.ndarray
Generator = np.random.Generator


@dataclass(frozen=True)
class DemoConfig:
    """The size of the world, and the strength of each cause on the scale of standard Gumbel noise."""

    films: int = 800
    users: int = 600
    seed: int = 7
    second_genre: float = 0.5  # share of films that have two genres
    love: float = 3.5  # for each genre or setting shared with the ideal film
    dislike: float = 2.0  # for each disliked genre
    habit: float = 3.0  # for the mood that the last one calls for
    fame: float = 0.6  # exponent of the Zipf law
    noise: float = 0.1  # share of picks by fame alone
    median_length: int = 25  # films per viewer
    spread: float = 0.6  # standard deviation of the logarithm of that number


@dataclass(frozen=True)
class World:
    """The causes of what is watched, without the noise."""

    early: Array  # (users, films)
    late: Array  # (users, films)
    habits: Array  # (moods + 1, moods); the last row, of zeros, is for viewers at their first film
    moods: Array  # (films,)
    fame: Array  # (films,)

    def utility(self, users: Array, moment: Array, last_mood: Array) -> Array:
        """Compute each film's utility for some users, at a moment in [0, 1], after a mood (-1: none)."""
        taste = self.early[users] + moment[:, None] * (self.late[users] - self.early[users])
        return taste + self.habits[last_mood][:, self.moods] + self.fame  # (users, films)


SHORTEST, LONGEST = 8, 120  # films per viewer
LAST_YEAR = 2024
EPOCH = 1_600_000_000  # seconds; the first viewers arrive here
DAY = 86_400  # seconds


def generate(config: DemoConfig = DemoConfig()) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generate the interactions (user_id, item_id, timestamp) and the items (item_id, title, year, genres, plot)."""
    rng = np.random.default_rng(config.seed)
    films = [draw_film(config, rng) for _ in range(config.films)]
    items = describe_items(films, rng)
    world = build_world(config, films, rng)
    history = simulate_viewing(config, world, draw_lengths(config, rng), rng)
    return build_log(history, rng), items


def draw_film(config: DemoConfig, rng: Generator) -> Film:
    """Draw a film whose traits go together: the setting first, so that settings have equally many films."""
    vocabulary = load_vocabulary()
    setting = pick(rng, vocabulary.settings)
    lead = pick(rng, [genre for genre in vocabulary.genres if setting.name in genre.settings])
    era = pick(rng, [era for era in vocabulary.eras if can_lead(lead, setting, era)])
    seconds = [genre for genre in vocabulary.genres if genre is not lead and can_come_second(genre, setting, era)]
    genres = (lead, pick(rng, seconds)) if rng.random() < config.second_genre else (lead,)
    return Film(genres, setting, era, pick(rng, vocabulary.themes), pick(rng, vocabulary.moods))


def can_lead(genre: Genre, setting: Setting, era: Era) -> bool:
    """Check whether a genre may lead a film of this setting and era."""
    at_home = setting.name in genre.settings and era.name in genre.eras
    return at_home and (setting.name != "space" or era.name == "future")


def can_come_second(genre: Genre, setting: Setting, era: Era) -> bool:
    """Check whether a genre may come second in a film of another genre."""
    return genre.timeless or can_lead(genre, setting, era)


def describe_items(films: Sequence[Film], rng: Generator) -> pl.DataFrame:
    """Describe the films in words; no two have the same title."""
    texts: dict[str, str] = {}  # title -> plot
    while len(texts) < len(films):
        words = draw_words(films[len(texts)], rng)
        texts.setdefault(draw_title(words, rng), draw_plot(words, rng))
    return pl.DataFrame(
        {
            "item_id": [f"f{row:04d}" for row in range(len(films))],
            "title": list(texts),
            "year": [int(rng.integers(film.era.earliest, LAST_YEAR + 1)) for film in films],
            "genres": ["|".join(genre.name for genre in film.genres) for film in films],
            "plot": list(texts.values()),
        }
    )


def build_world(config: DemoConfig, films: Sequence[Film], rng: Generator) -> World:
    """Draw the tastes of the viewers, the habits they share and the fame of the films."""
    early, late = draw_tastes(config, films, rng)
    return World(
        early=early,
        late=late,
        habits=draw_habits(config, rng),
        moods=mark_traits(films, load_vocabulary().moods).argmax(axis=1),
        fame=-config.fame * np.log(1.0 + rng.permutation(len(films))),
    )


def draw_tastes(config: DemoConfig, films: Sequence[Film], rng: Generator) -> tuple[Array, Array]:
    """Draw how much each viewer likes each film, early and late in life."""
    vocabulary = load_vocabulary()
    genres = mark_traits(films, vocabulary.genres)  # (films, genres)
    traits = np.hstack([genres, mark_traits(films, vocabulary.settings)])  # (films, traits)
    likeness = config.love * traits @ traits.T  # (films, films)
    early, late = draw_distinct(rng, config.users, len(films), 2).T  # (users,) each, the ideals
    disliked = draw_distinct(rng, config.users, len(vocabulary.genres), 2)  # (users, 2)
    dislike = config.dislike * genres.T[disliked].sum(axis=1)
    return likeness[early] - dislike, likeness[late] - dislike  # (users, films) each


def draw_habits(config: DemoConfig, rng: Generator) -> Array:
    """Draw how strongly each mood calls for each: in a random ring, the next one, and half as strongly its next."""
    ring = rng.permutation(len(load_vocabulary().moods))
    habits = np.zeros((len(ring) + 1, len(ring)))  # a last row for viewers at their first film
    habits[ring, np.roll(ring, -1)] = config.habit
    habits[ring, np.roll(ring, -2)] = config.habit / 2
    return habits


def mark_traits(films: Sequence[Film], kinds: Sequence[Genre | Setting | Mood]) -> Array:
    """Mark which films are of which kinds, as zeros and ones."""
    marks = [[kind.name in film.traits for kind in kinds] for film in films]
    return np.array(marks, dtype=float)  # (films, kinds)


def draw_distinct(rng: Generator, rows: int, options: int, count: int) -> Array:
    """Draw `count` different numbers below `options` in each row."""
    return rng.random((rows, options)).argsort(axis=1)[:, :count]  # (rows, count)


def draw_lengths(config: DemoConfig, rng: Generator) -> Array:
    """Draw the number of films of each viewer."""
    lengths = rng.lognormal(np.log(config.median_length), config.spread, config.users)
    return np.clip(lengths, SHORTEST, min(LONGEST, config.films // 2)).astype(int)  # (users,)


def simulate_viewing(config: DemoConfig, world: World, lengths: Array, rng: Generator) -> Array:
    """Simulate the films of each viewer, in order, padded with -1."""
    history = np.full((config.users, lengths.max()), -1)
    seen = np.zeros((config.users, config.films), dtype=bool)
    last_mood = np.full(config.users, -1)
    for step in range(lengths.max()):
        users = np.flatnonzero(lengths > step)
        utility = world.utility(users, step / (lengths[users] - 1), last_mood[users])
        utility[rng.random(len(users)) < config.noise] = world.fame
        utility += rng.gumbel(size=utility.shape)
        utility[seen[users]] = -np.inf
        films = utility.argmax(axis=1)
        history[users, step], seen[users, films], last_mood[users] = films, True, world.moods[films]
    return history


def build_log(history: Array, rng: Generator) -> pl.DataFrame:
    """Build the interactions in the order of time, viewers mixed; each viewer's times strictly increase."""
    gaps = rng.exponential(4 * DAY, history.shape).astype(int) + 3600
    arrivals = EPOCH + rng.integers(730 * DAY, size=(len(history), 1))
    users, steps = np.nonzero(history >= 0)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user:04d}" for user in users],
            "item_id": [f"f{film:04d}" for film in history[users, steps]],
            "timestamp": (arrivals + gaps.cumsum(axis=1))[users, steps],
        }
    )
    return frame.sort("timestamp", "user_id")
