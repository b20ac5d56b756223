"""A client of the endpoint, in Python: each call a method, each answer a typed object, each problem an exception."""

from collections.abc import Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from fedrec.serving.schema import (
    Answer,
    Answers,
    Everybody,
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
    """What the endpoint says is wrong (RFC 9457): `problem.status`, and in `problem.errors` the fields."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem


class Client:
    """`with Client("https://recommend.example.org", key=…) as client: client.recommend(history=["50", "181"])`.

    What is kept of a user is asked for with an admin `key`, or with that user's `token`.

    Every method raises `ProblemError` for what the endpoint refuses, and `httpx.HTTPError` where it cannot be reached.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 30.0, token: str | None = None) -> None:
        given = {b"x-api-key": key, b"x-user-token": token}
        headers = [(name, value.encode()) for name, value in given.items() if value]
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def recommend(self, question: Question | None = None, **fields: Any) -> Answer:
        """The top k. The fields are those of `Question`."""
        return self._asked(Answer, "POST", "recommend", question or Question(**fields))

    def recommend_batch(self, questions: Sequence[Question]) -> list[Answer]:
        asked = Questions(questions=list(questions))
        return self._asked(Answers, "POST", "recommend:batch", asked).answers

    def similar(self, item_id: str, k: int = 10) -> Answer:
        return self._asked(Answer, "GET", f"items/{_segment(item_id)}/similar", params={"k": k})

    def search(self, text: str, k: int = 10, details: bool = False) -> Answer:
        return self._asked(Answer, "GET", "search", params={"q": text, "k": k, "details": details})

    def item(self, item_id: str) -> KnownItem:
        return self._asked(KnownItem, "GET", f"items/{_segment(item_id)}")

    def put_item(self, item_id: str, title: str, text: str | None = None, **columns: Any) -> KnownItem:
        """Offer an item from now on; needs an admin key, as do `drop_item`, `users`, `token` and `reload`."""
        new = NewItem(title=title, text=text, columns=columns)
        return self._asked(KnownItem, "PUT", f"items/{_segment(item_id)}", new)

    def drop_item(self, item_id: str) -> None:
        self._sent("DELETE", f"items/{_segment(item_id)}")

    def feedback(self, feedback: Feedback) -> StoredFeedback:
        return self._asked(StoredFeedback, "POST", "feedback", feedback)

    def user(self, user: str) -> UserData:
        """All that is kept of a user; needs that user's token or an admin key, as do `feedback` and `erase_user`."""
        return self._asked(UserData, "GET", f"users/{_segment(user)}")

    def erase_user(self, user: str) -> None:
        self._sent("DELETE", f"users/{_segment(user)}")

    def users(self, after: str = "", k: int = 100) -> list[Remembered]:
        """Users of whom something is kept, in the order of their ids, from the first beyond `after`."""
        return self._asked(Everybody, "GET", "users", params={"after": after, "k": k}).users

    def token(self, user: str, seconds: int = 3600) -> Token:
        """A token for one user's browser or app, valid for so long."""
        return self._asked(Token, "POST", f"users/{_segment(user)}/token", NewToken(seconds=seconds))

    def models(self) -> list[ModelInfo]:
        return self._asked(Models, "GET", "models").models

    def reload(self) -> ModelInfo:
        """Have the model's folder opened anew."""
        return self._asked(ModelInfo, "POST", "models:reload")

    def ready(self) -> Health:
        """Raises `ProblemError` while the model is loading."""
        return Health.model_validate_json(self._sent("GET", "/readyz").content)

    def _asked(self, kind: type[T], method: str, path: str, body: BaseModel | None = None, **more: Any) -> T:
        return kind.model_validate_json(self._sent(method, path, body, **more).content)

    def _sent(self, method: str, path: str, body: BaseModel | None = None, **more: Any) -> httpx.Response:
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
    """An id in a path. The dots, too: "." and ".." alone would be taken out of it on the way."""
    return quote(text, safe="").replace(".", "%2E")
