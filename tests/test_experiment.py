"""An A/B test of two models: who gets which, what is counted for which, and how far they are apart."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedrec.client import Client
from fedrec.recsys.recommender import Recommender
from fedrec.serving.database import Database
from fedrec.serving.experiment import Experiment, _compare
from fedrec.serving.http.app import create_app
from fedrec.serving.schema.experiment import ArmResult
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store
from tests.support.cli import Fedrec, is_refused
from tests.support.endpoint import WATCHED, is_problem, ready

ADMIN, SECRET_KEY = "a-key-to-change-9876543210", "s" * 32


def experiment_of(share: float = 0.5, name: str = "1", secret: bytes = b"") -> Experiment:
    return Experiment(name, share, Store(Database.open(None)), secret)


def test_callers_are_dealt_by_a_hash_and_nothing_else() -> None:
    callers = [f"visitor {number}" for number in range(4_000)]

    def deal(**settings: Any) -> list[int]:
        experiment = experiment_of(**settings)  # of its own, as another process would have it
        return [experiment.choose_arm(caller) for caller in callers]

    dealt, smaller, other = deal(), deal(share=0.1), deal(name="2")
    assert deal() == dealt
    assert abs(sum(dealt) / 4_000 - 0.5) < 0.03  # four standard deviations
    assert abs(sum(smaller) / 4_000 - 0.1) < 0.02
    assert all(dealt[place] for place, arm in enumerate(smaller) if arm)  # a larger share moves nobody back
    assert abs(sum(one == two for one, two in zip(dealt, other, strict=True)) / 4_000 - 0.5) < 0.03
    assert (set(deal(share=0.0)), set(deal(share=1.0))) == ({0}, {1})


def test_a_requests_mark_cannot_be_made_without_the_secret() -> None:
    request, ours, guessed = "0123456789abcdef" * 2, experiment_of(secret=b"x" * 32), experiment_of()
    for arm, name in enumerate("ab"):
        marked = ours.mark_request(request, arm)
        assert (len(marked), ours.find_arm(marked), ours.find_arm(f"{marked}-7")) == (32, name, name)
        assert ours.find_arm(guessed.mark_request(request, arm)) is None
        assert guessed.find_arm(guessed.mark_request(request, arm)) == name
        assert experiment_of(name="2", secret=b"x" * 32).find_arm(marked) is None
    assert [ours.find_arm(other) for other in ("", "-", "short", "é" * 40, request)] == [None] * 5


def test_the_interval_is_newcombes() -> None:
    """His example: 56 of 70 against 48 of 80 (table II, method 10)."""
    arms = [ArmResult(arm="x", model_version="v", shown=shown, liked=liked) for shown, liked in ((80, 48), (70, 56))]
    found = _compare(*arms)
    assert found
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert found.estimate == pytest.approx(0.2)
    assert _compare(arms[0], ArmResult(arm="x", model_version="v", shown=0, liked=0)) is None


def test_each_caller_gets_one_model_and_likes_count_for_it(run: Path, second_run: Path, tmp_path: Path) -> None:
    one, other = Recommender.load(run), Recommender.load(second_run)
    versions = {"a": one.version, "b": other.version}
    store = tmp_path / "store.db"
    settings = Settings.model_validate({"admin_keys": [ADMIN], "token_secret": SECRET_KEY, "store": store})

    def app() -> Any:
        return create_app(lambda: one, settings, against=lambda: other)

    def ask(client: httpx.Client, visitor: str) -> dict[str, Any]:
        headers = {"x-visitor": visitor}
        return client.post("/v1/recommend", json={"history": WATCHED}, headers=headers).raise_for_status().json()

    with ready(app(), ADMIN) as client:
        answers = {f"v{number}": ask(client, f"v{number}") for number in range(24)}
        arms = {visitor: answer["arm"] for visitor, answer in answers.items()}
        assert set(arms.values()) == {"a", "b"}
        assert all(answer["model_version"] == versions[answer["arm"]] for answer in answers.values())
        by_get = client.get("/v1/items/film-soup/similar", headers={"x-visitor": "v3"}).json()
        assert (by_get["arm"], by_get["model_version"]) == (arms["v3"], versions[arms["v3"]])
        # Likes are counted once for each answer, by the arm in its id, and not by what a caller makes up.
        for visitor, answer in list(answers.items())[:10] * 2:
            for item in answer["items"][:2]:
                feedback = {"item_id": item["item_id"], "request_id": answer["request_id"], "consent": True}
                sent = client.post("/v1/feedback", json=feedback | {"user": visitor, "kind": "like"})
                assert sent.json()["arm"] == answer["arm"]
        forged = {"user": "v0", "item_id": "film-moon", "kind": "like", "request_id": "f" * 32, "consent": True}
        assert "arm" not in client.post("/v1/feedback", json=forged).json()
        # Users are dealt by their names, whoever asks for them.
        names = [f"u{number}" for number in range(6)]
        for name in names:
            client.post("/v1/feedback", json=forged | {"user": name}).raise_for_status()
        batch = client.post("/v1/recommend:batch", json={"questions": [{"user": name} for name in names]})
        found = batch.raise_for_status().json()["answers"]
        assert [answer["model_version"] for answer in found] == [versions[answer["arm"]] for answer in found]
        token = client.post("/v1/users/u3/token").json()["token"]
        as_user = httpx.post(
            f"{client.base_url}/v1/recommend", json={"user": "u3"}, headers={"authorization": f"Bearer {token}"}
        )
        assert as_user.json()["arm"] == found[3]["arm"]
        assert {answer["arm"] for answer in found} == {"a", "b"}
        # Both have every item that is added.
        client.put("/v1/items/new", json={"title": "The lander"}).raise_for_status()
        assert {client.get("/v1/items/new", headers={"x-visitor": v}).status_code for v in arms} == {200}
        models = client.get("/v1/models").json()["models"]
        assert {model["arm"]: model["model_version"] for model in models} == versions
        shown = Counter([*arms.values(), by_get["arm"], as_user.json()["arm"], *(each["arm"] for each in found)])
        liked = Counter(list(arms.values())[:10])
        counted = {
            (sample.name, sample.labels.get("arm")): sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
        }
        assert {arm: counted["fedrec_shown_total", arm] for arm in "ab"} == shown
        assert counted["fedrec_items", "b"] == 25
        assert {arm: counted["fedrec_liked_total", arm] for arm in "ab"} == {a: 2 * n for a, n in liked.items()}
        with Client(str(client.base_url), key=ADMIN) as asked:
            result = asked.experiment()
        assert {arm.arm: (arm.shown, arm.liked) for arm in result.arms} == {a: (shown[a], liked[a]) for a in "ab"}
        assert result.difference
        assert result.difference.low < result.difference.estimate < result.difference.high
        is_problem(httpx.get(f"{client.base_url}/v1/experiment"), 403, None)

    with ready(app(), ADMIN) as client:  # after a restart
        assert {visitor: ask(client, visitor)["arm"] for visitor in arms} == arms
        client.delete("/v1/users/v0").raise_for_status()
        again = client.get("/v1/experiment").json()
        assert sum(arm["shown"] for arm in again["arms"]) == shown.total() + 24
        assert sum(arm["liked"] for arm in again["arms"]) == 9  # those of an erased user are gone

    with ready(create_app(lambda: one, settings), ADMIN) as client:  # without a test, nothing speaks of one
        assert "arm" not in ask(client, "v0")
        assert client.get("/v1/experiment").status_code == 404


def test_a_test_that_cannot_be_is_refused(fedrec: Fedrec, run: Path, tmp_path: Path) -> None:
    refused = fedrec("serve", run, "--port", "0", "--against", tmp_path / "none")
    is_refused(refused, "none")
    assert fedrec("serve", run, "--port", "0", "--against", run, "--share", "1.5").code == 2
    is_refused(fedrec("serve", run, "--port", "0", "--share", "0.5"), "--share goes with --against")
    is_refused(fedrec("serve", run, "--port", "0", "--set", "experiment="), "setting experiment")
