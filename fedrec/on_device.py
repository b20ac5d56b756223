"""Recommending on the device: the history stays, and at most a vector leaves."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from pydantic import ValidationError

from fedrec import console
from fedrec.client import Client, ProblemError
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.user_ids import find_user
from fedrec.run import Run
from fedrec.serving.schema import MAX_K, MAX_OFFSET, Answer, Item, Question

Ask = Callable[[Question], Answer]


def recommend_on_device(
    run: Run, folder: Path, user_id: str, k: int, endpoint: str | None, key: str | None = None
) -> Answer:
    """Recommend k items to a user of a node's folder, without the items of the user's history.

    The user vector is computed here, both halves of a hybrid's. It is compared with the items here, or sent to an
    endpoint, which gets nothing else; the history's items are removed here in both cases. The vector of a run with a
    closed form tells the most recent events to anybody with the run, hence a warning. Raises `InputError`.
    """
    recommender = run.recommender
    if Catalogue.load(folder).fingerprint != recommender.catalogue.fingerprint:
        raise InputError(
            f"{folder} was prepared with other items than {run.folder} was trained on; prepare it with the same"
        )
    seen = Shard.load(folder).full_history(find_user(folder, user_id))  # rows, oldest first
    vector = recommender.user_vector(seen).tolist()
    had = {recommender.catalogue.ids[row] for row in np.unique(seen)}
    if endpoint is None:
        return _unseen(run.engine.recommend, vector, had, k)
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise InputError(f"`endpoint` {endpoint}: give a URL, such as https://fedrec.example.org")
    if recommender.closed_form:
        console.warn(
            f"the vector tells {endpoint} the most recent events: the closed form's half is a sum over them, which can "
            "be undone; without an endpoint this device ranks"
        )
    with Client(endpoint, key) as client:
        return _unseen(lambda question: _ask(client, endpoint, question, recommender.version), vector, had, k)


def _unseen(ask: Ask, vector: list[float], had: set[str], k: int) -> Answer:
    """Return the k best items that the user has not had. Pages have a fixed size, to reveal nothing of the history."""
    left: list[Item] = []
    offset = 0
    while True:
        answer = ask(Question(vector=vector, k=MAX_K, offset=offset))
        left += [item for item in answer.items if item.item_id not in had]
        offset += MAX_K
        if len(left) >= k or len(answer.items) < MAX_K or offset > MAX_OFFSET:
            return answer.model_copy(update={"items": left[:k]})


def _ask(client: Client, endpoint: str, question: Question, version: str) -> Answer:
    """Ask an endpoint. Raises `InputError` if it cannot answer, or serves another model than the local one."""
    try:
        answer = client.recommend(question)
    except ProblemError as error:
        raise InputError(f"`endpoint` {endpoint} answered: {error}{_remedy(error)}") from error
    except httpx.HTTPStatusError as error:
        raise InputError(
            f"`endpoint` {endpoint} answered with status {error.response.status_code}; is it fedrec's?"
        ) from error
    except httpx.HTTPError as error:
        raise InputError(f"`endpoint` {endpoint} cannot be reached ({error}); leave it out to rank here") from error
    except ValidationError as error:
        raise InputError(f"`endpoint` {endpoint} answered something else than items; is it fedrec's?") from error
    if answer.model_version != version:
        raise InputError(
            f"`endpoint` {endpoint} serves {answer.model_version}, and the vector is of {version}; copy that run here"
        )
    return answer


def _remedy(error: ProblemError) -> str:
    return "; set FEDREC_API_KEY, or pass `api_key`" if error.problem.status == 401 else ""
