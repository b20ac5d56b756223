"""A Python client of the endpoint: a method for each call, typed answers, problems as exceptions."""

from collections.abc import Sequence
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from fedrec.answers import QuestionFields, question_of
from fedrec.serving.schema import (
    Answer,
    Answers,
    Everybody,
    ExperimentResult,
    Feedback,
    Health,
    KnownItem,
    ModelInfo,
    Models,
    NewItem,
    NewToken,
    Problem,
    Question,
    Questions,
    Remembered,
    StoredFeedback,
    Token,
    UserData,
)

T = TypeVar("T", bound=BaseModel)


class ProblemError(Exception):
    """A problem that the endpoint reports (RFC 9457): `problem.status`, and in `problem.errors` the fields."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem


class Client:
    """A client of an endpoint that `fedrec serve` runs.

        with fedrec.Client("https://recommend.example.org", key="…") as client:
            client.recommend(history=["50", "181"])

    `key` is a read or admin key, `token` a user's; a user's data need an admin key or that user's token. `visitor`, any
    text of the application's, stands for the person that an A/B test deals into an arm. Every method raises
    `ProblemError` if the endpoint refuses, and `httpx.HTTPError` if it cannot be reached.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout: float = 30.0,
        token: str | None = None,
        visitor: str | None = None,
    ) -> None:
        sent = {b"x-api-key": key, b"x-user-token": token, b"x-visitor": visitor}
        headers = [(name, value.encode()) for name, value in sent.items() if value]
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(self, question: Question | None = None, **fields: Unpack[QuestionFields]) -> Answer:
        """Recommend items for a question, or for its fields as keywords, which are those of `Run.recommend`, too.

        client.recommend(history=["50", "181"], k=5).items
        """
        return self._fetch(Answer, "POST", "recommend", question or question_of(fields))

    def recommend_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer several questions in one request, in their order."""
        batch = Questions(questions=list(questions))
        return self._fetch(Answers, "POST", "recommend:batch", batch).answers

    def similar(self, item_id: str, k: int = 10) -> Answer:
        """Return the k items nearest to an item."""
        return self._fetch(Answer, "GET", f"items/{_segment(item_id)}/similar", params={"k": k})

    def search(self, text: str, k: int = 10, details: bool = False) -> Answer:
        """Search items by their titles, then by what they are about."""
        return self._fetch(Answer, "GET", "search", params={"q": text, "k": k, "details": details})

    def item(self, item_id: str) -> KnownItem:
        """Return an item on offer."""
        return self._fetch(KnownItem, "GET", f"items/{_segment(item_id)}")

    def put_item(self, item_id: str, title: str, text: str | None = None, **columns: Any) -> KnownItem:
        """Offer an item from now on. An admin key is needed, as for `drop_item`, `users`, `token` and `reload`."""
        new = NewItem(title=title, text=text, columns=columns)
        return self._fetch(KnownItem, "PUT", f"items/{_segment(item_id)}", new)

    def drop_item(self, item_id: str) -> None:
        """Offer an item no longer."""
        self._send("DELETE", f"items/{_segment(item_id)}")

    def feedback(self, feedback: Feedback) -> StoredFeedback:
        """Store a user's feedback, if the user consents."""
        return self._fetch(StoredFeedback, "POST", "feedback", feedback)

    def user(self, user: str) -> UserData:
        """Return the stored data of a user. The user's token or an admin key is needed, as for `feedback`."""
        return self._fetch(UserData, "GET", f"users/{_segment(user)}")

    def erase_user(self, user: str) -> None:
        """Erase everything that is stored about a user."""
        self._send("DELETE", f"users/{_segment(user)}")

    def users(self, after: str = "", k: int = 100) -> list[Remembered]:
        """Return the users with stored data, in the order of their ids, from the first beyond `after`."""
        return self._fetch(Everybody, "GET", "users", params={"after": after, "k": k}).users

    def token(self, user: str, seconds: int = 3600) -> Token:
        """Create a token for one user's browser or app, valid for `seconds`."""
        return self._fetch(Token, "POST", f"users/{_segment(user)}/token", NewToken(seconds=seconds))

    def models(self) -> list[ModelInfo]:
        """Return the models that are served."""
        return self._fetch(Models, "GET", "models").models

    def reload(self) -> ModelInfo:
        """Reload the model from its folder."""
        return self._fetch(ModelInfo, "POST", "models:reload")

    def experiment(self) -> ExperimentResult:
        """Return the result of the A/B test so far. An admin key is needed, as for `reload`."""
        return self._fetch(ExperimentResult, "GET", "experiment")

    def ready(self) -> Health:
        """Return the state of an endpoint that is ready. Raises `ProblemError` while the model is loading."""
        return Health.model_validate_json(self._send("GET", "/readyz").content)

    def _fetch(self, kind: type[T], method: str, path: str, body: BaseModel | None = None, **more: Any) -> T:
        return kind.model_validate_json(self._send(method, path, body, **more).content)

    def _send(self, method: str, path: str, body: BaseModel | None = None, **more: Any) -> httpx.Response:
        if body:
            more |= {
                "content": body.model_dump_json(exclude_unset=True),
                "headers": {"content-type": "application/json"},
            }
        reply = self._http.request(method, path if path.startswith("/") else f"/v1/{path}", **more)
        if reply.is_error:
            kind = reply.headers.get("content-type", "")
            if kind.startswith("application/problem+json"):
                raise ProblemError(Problem.model_validate_json(reply.content))
            reply.raise_for_status()
        return reply


def _segment(text: str) -> str:
    """Escape an id for a path, its dots too: a path loses the segments "." and ".." on the way."""
    return quote(text, safe="").replace(".", "%2E")
