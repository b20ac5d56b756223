"""Second stage of an answer: encode histories and texts to unit vectors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch

from fedrec.recsys.recommender import Recommender
from fedrec.serving.index.vector_index import Index
from fedrec.serving.plan import Plan

UNIT_TOLERANCE = 1e-6
"""How far the length of a unit vector in float32 may be from 1."""


@dataclass(frozen=True, eq=False)
class QuestionEncoder:
    """A recommender's two towers. Threads take turns at the text encoder."""

    recommender: Recommender
    _turn: Lock = field(default_factory=Lock, repr=False)

    def encode_plans(self, plans: Sequence[Plan], index: Index) -> list[np.ndarray | None]:
        """Encode each question to a unit vector (E,); None if it has neither a known item nor a text nor a vector."""
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
        """Compute user vectors (E,) from histories of rows, added items included."""
        if not histories:
            return []
        vectors, places = index.vector_table(np.concatenate(histories))
        ends = np.cumsum([len(history) for history in histories])[:-1]
        return list(self.recommender.user_vectors(torch.from_numpy(vectors), np.split(places, ends)).numpy())

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Compute vectors (E,) of texts, in the space of the items."""
        if not texts:
            return []
        with self._turn:
            return list(self.recommender.text_vectors(texts).numpy())


def unit_vector(numbers: Sequence[float]) -> np.ndarray:
    """Scale a vector to length 1 in float32; one that has it, to float32's precision, stays as it is."""
    vector, length = np.array(numbers), math.hypot(*numbers)
    if math.isinf(length):
        return unit_vector((vector / np.abs(vector).max()).tolist())
    return (vector if abs(length - 1) < UNIT_TOLERANCE else vector / length).astype(np.float32)


def mix_vectors(taste: np.ndarray, text: np.ndarray, share: float) -> np.ndarray:
    """Mix two unit vectors, `share` of the text's; return the text's if they cancel out."""
    mixed = (1 - share) * taste + share * text
    length = math.hypot(*mixed.tolist())
    return (mixed / length if length > 1e-6 else text).astype(np.float32)
