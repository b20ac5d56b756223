"""Recommending on the device: the history stays, and at most a vector leaves."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from pydantic import ValidationError

from data.catalogue import Catalogue
from data.errors import InputError
from data.people import row_of
from data.shard import Shard
from recsys.recommender import Recommender
from serving.engine import Engine
from serving.schema import MAX_K, Answer, Question

PATIENCE = 30.0
"""Seconds to wait for the endpoint."""


def recommend(run: Path, folder: Path, user_id: str, k: int, endpoint: str | None) -> Answer:
    """The top k for a user of a node's folder, without what the user has had.

    The user vector is computed here. It is compared with the items here, or, where there is an endpoint, sent to it,
    and it alone; what the user has had is removed here either way. Raises `InputError`.
    """
    recommender = Recommender.load(run)
    if Catalogue.load(folder).fingerprint != recommender.catalogue.fingerprint:
        raise InputError(f"{folder} was prepared with other items than {run} was trained on; prepare it with the same")
    seen = Shard.load(folder).everything(row_of(folder, user_id))  # rows, oldest first
    vector = recommender.user_vector(seen).tolist()
    room = min(MAX_K, k + len(seen))  # among so many, k are left when all that was seen is removed
    question = Question(vector=vector, k=room)
    answer = _asked(endpoint, question, recommender.version) if endpoint else Engine.of(recommender).recommend(question)
    had = {recommender.catalogue.ids[row] for row in np.unique(seen)}
    return answer.model_copy(update={"items": [item for item in answer.items if item.item_id not in had][:k]})


def _asked(endpoint: str, question: Question, version: str) -> Answer:
    """What an endpoint answers. Raises `InputError` where it cannot, or serves another model than is here."""
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise InputError(f"--endpoint {endpoint}: give a URL, such as https://fedrec.example.org")
    try:
        reply = httpx.post(
            f"{endpoint.rstrip('/')}/v1/recommend",
            content=question.model_dump_json(include={"vector", "k"}),
            headers={"content-type": "application/json"},
            timeout=PATIENCE,
        )
        reply.raise_for_status()
        answer = Answer.model_validate_json(reply.content)
    except httpx.HTTPStatusError as error:
        raise InputError(
            f"--endpoint {endpoint} answered with status {error.response.status_code}; is it fedrec's?"
        ) from error
    except httpx.HTTPError as error:
        raise InputError(f"--endpoint {endpoint} cannot be reached ({error}); leave it out to rank here") from error
    except ValidationError as error:
        raise InputError(f"--endpoint {endpoint} answered something else than items; is it fedrec's?") from error
    if answer.model_version != version:
        raise InputError(
            f"--endpoint {endpoint} serves {answer.model_version}, and the vector is of {version}; copy that run here"
        )
    return answer
