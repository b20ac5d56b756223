"""Second stage of an answer: encode histories and texts to unit vectors.

W is the width of what is searched: E of the towers, and r more with a closed form.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch

from fedrec.recsys.recommender import Recommender
from fedrec.serving.index.inverted_file import AskAbout
from fedrec.serving.index.vector_index import Index
from fedrec.serving.plan import Plan
from fedrec.serving.refusals import UnanswerableError

UNIT_TOLERANCE = 1e-6
"""How far the length of a unit vector in float32 may be from 1."""


@dataclass(frozen=True, eq=False)
class QuestionEncoder:
    """A recommender's two towers, and its closed form. Threads take turns at the text encoder."""

    recommender: Recommender
    _turn: Lock = field(default_factory=Lock, repr=False)

    def encode_plans(self, plans: Sequence[Plan], index: Index) -> list[np.ndarray | None]:
        """Encode each question to a unit vector (W,); None if it has neither a known item nor a text nor a vector."""
        histories = iter(self.encode_histories([plan.history for plan in plans if len(plan.history)], index))
        texts = iter(self.encode_texts([plan.question.query for plan in plans if plan.question.query is not None]))

        def encode(plan: Plan) -> np.ndarray | None:
            question = plan.question
            if question.vector is not None:
                return unit_vector(question.vector)
            taste = next(histories) if len(plan.history) else None
            if question.query is None:
                return taste
            text = next(texts)
            return text if taste is None else mix_vectors(taste, text, question.mix)

        return [encode(plan) for plan in plans]

    def encode_histories(self, histories: Sequence[np.ndarray], index: Index) -> list[np.ndarray]:
        """Compute user vectors (W,) from histories of rows, added items included."""
        if not histories:
            return []
        vectors, places = index.read.part_with(np.concatenate(histories))
        ends = np.cumsum([len(history) for history in histories])[:-1]
        return list(self.recommender.user_vectors(torch.from_numpy(vectors), np.split(places, ends)).numpy())

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Compute unit vectors (W,) of texts to search with: by the towers alone, if there is a closed form.

        Raises `UnanswerableError` if the model reads no texts.
        """
        if not texts:
            return []
        self._check_reads_texts("query")
        with self._turn:
            return list(self.recommender.query_vectors(texts).numpy())

    def encode_items(self, items: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
        """Compute the vectors of items, id → text: to be searched (n, W), and to be read (n, R).

        An item that the model was trained with keeps what was learned of it beside the towers: the closed form's
        vectors and its bias. Raises `UnanswerableError` if the model reads no texts.
        """
        self._check_reads_texts("text")
        trained, width = self.recommender.items, self.recommender.tower_width
        with self._turn:
            encoded = self.recommender.new_items(list(items.values()))
        for place, row in enumerate(map(self.recommender.catalogue.row, items)):
            if row is not None:
                encoded.searched[place, width:] = trained.searched[row, width:]
                encoded.read[place, width:] = trained.read[row, width:]
        return encoded.searched.numpy(), encoded.read.numpy()

    def _check_reads_texts(self, field: str) -> None:
        encoder = self.recommender.encoder
        if not encoder.reads_texts:
            raise UnanswerableError(field, f"is a text, and the encoder of this model, {encoder.name}, reads none")

    def build_index(self) -> Index:
        """Build an index of the recommender's items, and tune it on questions as it will be asked."""
        return Index.build(self.recommender.items.searched.numpy(), self.ask_about)

    @property
    def ask_about(self) -> AskAbout | None:
        """The questions that an index is tuned on; None: mean vectors of items."""
        return self._ask_about if self.recommender.items.are_apart else None

    def _ask_about(self, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Ask about groups of rows (Q, n) by their user vectors, and about the first group's items as by a text."""
        items = self.recommender.items
        tastes = [self.recommender.user_vectors(items.read, list(rows)).numpy() for rows in groups]
        return [self.recommender.towers_only(items.searched[groups[0][:, 0]]).numpy(), *tastes]

    def query_by(self, tower_vector: np.ndarray) -> np.ndarray:
        """Make a vector to search with of the towers' vector of one item: (1, E) → (W,)."""
        return self.recommender.towers_only(torch.from_numpy(tower_vector))[0].numpy()


def unit_vector(numbers: Sequence[float]) -> np.ndarray:
    """Scale a vector to length 1 in float32; one that has it, to float32's precision, stays as it is."""
    vector, length = np.array(array("d", numbers)), math.hypot(*numbers)  # numpy reads a list number by number
    if math.isinf(length):
        return unit_vector((vector / np.abs(vector).max()).tolist())
    return (vector if abs(length - 1) < UNIT_TOLERANCE else vector / length).astype(np.float32)


def mix_vectors(taste: np.ndarray, text: np.ndarray, share: float) -> np.ndarray:
    """Mix two unit vectors, `share` of the text's; return the text's if they cancel out."""
    mixed = (1 - share) * taste + share * text
    length = math.hypot(*mixed.tolist())
    return (mixed / length if length > 1e-6 else text).astype(np.float32)
