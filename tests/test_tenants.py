"""Several models in one process: each has its own rows, keys, callers and catalogue, and no other's."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedrec.client import Client, ProblemError
from fedrec.data.errors import InputError
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.recommender import Recommender
from fedrec.serving.database import Database
from fedrec.serving.http.app import create_app, host_app
from fedrec.serving.http.metrics import Metrics
from fedrec.serving.http.process import Process
from fedrec.serving.http.server import build_endpoint
from fedrec.serving.model_source import ModelSource
from fedrec.serving.settings import Settings
from tests.support.cli import Fedrec, is_refused
from tests.support.commands import blocks
from tests.support.endpoint import SECRET, WATCHED, is_problem, ready
from tests.support.source import ROOT

OPERATOR = "the-operators-key-0123456789"
KEYS = {"shop": "a-key-of-the-shop-0123456789", "films": "a-key-of-the-films-0123456789"}
NEW = {"title": "The lander", "text": "The lander. A spaceship lands on the moon."}


def settings_of(run: Path, second_run: Path, **more: Any) -> Settings:
    runs = {"shop": run, "films": second_run}
    tenants = {
        name: {"run": runs[name], "admin_keys": [key], "read_keys": [f"{key}-read"], "token_secret": name * 8}
        for name, key in KEYS.items()
    }
    return Settings.model_validate({"tenants": tenants, "read_keys": [OPERATOR], **more})


def test_nothing_of_a_tenant_is_another_ones(run: Path, second_run: Path, tmp_path: Path) -> None:
    settings = settings_of(run, second_run, store=tmp_path / "store.db", rate_per_minute=500)
    process = Process(Database.open(settings.store_address), metrics=Metrics(has_tenants=True))
    models = {"shop": Recommender.load(run), "films": Recommender.load(second_run)}
    sources = {name: [ModelSource(lambda found=found: found)] for name, found in models.items()}
    with ready(host_app(build_endpoint(sources, settings, process), process)) as http, ExitStack() as stack:
        urls = {name: f"{http.base_url}/t/{name}" for name in KEYS}
        clients = {name: stack.enter_context(Client(urls[name], key=key)) for name, key in KEYS.items()}
        shop, films = clients["shop"], clients["films"]
        # Each answers as it would alone.
        for name, client in clients.items():
            answer = client.recommend(history=WATCHED)
            with ready(create_app(lambda name=name: models[name])) as alone:
                expected = alone.post("/v1/recommend", json={"history": WATCHED}).json()
            assert answer.model_version == expected["model_version"] == models[name].version
            assert [item.item_id for item in answer.items] == [item["item_id"] for item in expected["items"]]
        # Keys of one open nothing of another, nor the operator's anything of a tenant.
        for key in (KEYS["shop"], f"{KEYS['shop']}-read", OPERATOR, ""):
            with Client(f"{http.base_url}/t/films", key=key) as stranger:
                for attempt in (
                    lambda: stranger.recommend(history=WATCHED),
                    lambda: stranger.put_item("x", "x"),
                    lambda: stranger.users(),
                    lambda: stranger.reload(),
                    lambda: stranger.models(),
                ):
                    with pytest.raises(ProblemError) as refused:
                        attempt()
                    assert refused.value.problem.status in (401, 403)
        # Feedback of the same user, and items of the same id.
        like = {"user": "ann", "item_id": "film-moon", "kind": "like", "consent": True}
        admin = {"x-api-key": KEYS["shop"]}
        http.post("/t/shop/v1/feedback", json=like | {"request_id": SECRET}, headers=admin).raise_for_status()
        shop.put_item(SECRET, NEW["title"], NEW["text"])
        shop.drop_item("film-soup")
        assert films.user("ann").feedback == []
        assert films.users() == []
        assert films.item("film-soup").title == "The soup"
        _is_refused(404, lambda: films.item(SECRET))
        _is_refused(404, lambda: shop.item("film-soup"))
        assert SECRET not in str(films.search("lander", k=25)) + str(films.recommend(query=NEW["text"], k=25))
        films.erase_user("ann")
        assert len(shop.user("ann").feedback) == 1
        # A token of one is no token of another; the control is its own.
        token = {"authorization": f"Bearer {shop.token('ann').token}"}
        assert http.get("/t/shop/v1/users/ann", headers=token).status_code == 200
        is_problem(http.get("/t/films/v1/users/ann", headers=token), 401, None)
        is_problem(http.post("/t/films/v1/recommend", json={"user": "ann"}, headers=token), 401, None)
        # Paths lead to no other tenant, however they are written.
        for path in (
            "/t/shop/../films/v1/models",
            "/t/shop/%2e%2e/films/v1/models",
            "/t/%66ilms/v1/models",
            "/v1/models",
        ):
            sent = http.build_request("GET", path, headers=admin)
            sent.url = sent.url.copy_with(raw_path=path.encode())
            assert http.send(sent).status_code in (401, 404), path
        assert http.get("/t/nobody/v1/models").status_code == 401  # as if it were there
        assert http.get("/t/nobody/v1/models", headers={"x-api-key": OPERATOR}).status_code == 404
        assert http.get("/t/shop").headers["location"] == "shop/"
        page = http.get("/t/shop/static/page.js")
        assert page.status_code == 200
        # The metrics are the operator's, by tenant; the states are anybody's, without names.
        assert http.get("/t/shop/metrics", headers=admin).status_code == 404
        is_problem(http.get("/metrics", headers=admin), 401, None)
        samples = [
            sample
            for family in text_string_to_metric_families(http.get("/metrics", headers={"x-api-key": OPERATOR}).text)
            for sample in family.samples
        ]
        items = {sample.labels["tenant"]: sample.value for sample in samples if sample.name == "fedrec_items"}
        assert items == {"shop": 24, "films": 24}
        versions = {
            sample.labels["tenant"]: sample.labels["version"] for sample in samples if "version" in sample.labels
        }
        assert versions == {name: model.version for name, model in models.items()}
        assert SECRET not in str(samples)
        assert http.get("/readyz").json() == {"status": "ready", "model_version": None, "items": None}
        assert shop.reload().model_version == models["shop"].version
        assert films.ready().items == 24


def _is_refused(status: int, ask: Callable[[], object]) -> None:
    with pytest.raises(ProblemError) as refused:
        ask()
    assert refused.value.problem.status == status


def test_a_text_encoder_is_loaded_once(run: Path, second_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For models that were trained on the same one, and when one of them is loaded again."""
    opened: list[int] = []
    model = Encoder.__dict__["model"]
    noted = type(model)(lambda encoder: (opened.append(id(encoder)), model.func(encoder))[1])
    noted.__set_name__(Encoder, "model")
    monkeypatch.setattr(Encoder, "model", noted)
    sources = [ModelSource(lambda folder=folder: Recommender.load(folder)) for folder in (run, second_run, run)]
    engines = [source.build_engine({}) for source in sources]
    for engine in engines:
        engine.load_text_encoder()
    assert len({id(engine.recommender.encoder) for engine in engines}) == 1
    assert len(opened) <= 1  # none, if another test has it in use


def test_a_limit_is_of_each_tenant(run: Path, second_run: Path) -> None:
    settings = settings_of(run, second_run, rate_per_minute=2)
    process = Process(Database.open(None), metrics=Metrics(has_tenants=True))
    sources = {name: [ModelSource(lambda: Recommender.load(run))] for name in KEYS}
    with ready(host_app(build_endpoint(sources, settings, process), process)) as http:

        def ask(tenant: str) -> int:
            return httpx.get(f"{http.base_url}/t/{tenant}/v1/models").status_code  # without a key, by address

        assert [ask("shop") for _ in range(3)] == [401, 401, 429]
        assert ask("films") == 401


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either RUN or tenants"),
        (["--tenant", "shop"], "--tenant 'shop' is not NAME=RUN; write --tenant shop=runs/shop"),
        (["--tenant", "a=x", "--tenant", "a=y"], "--tenant a is given twice"),
        (["--tenant", "Shop/1=x"], "setting tenants.Shop/1"),
        (["--tenant", "shop=x", "--against", "y"], "--against goes with RUN; a tenant has its own"),
        (["--tenant", "shop=/none"], "/none"),
    ],
)
def test_tenants_that_cannot_be_are_refused(fedrec: Fedrec, options: list[str], message: str) -> None:
    is_refused(fedrec("serve", "--port", "0", *options), message)


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    """With keys for the dots, each its own; what the command line says is added."""
    (block,) = (block for block in blocks(ROOT / "docs" / "serving.md", "toml") if "[tenants.shop]" in block)
    keys = (f"{number:032}" for number in count())
    (file := tmp_path / "endpoint.toml").write_text(re.sub("…", lambda _: next(keys), block), "utf-8")
    found = Settings.read(file, {"tenants": {"shop": {"run": Path("runs/ml-100k")}}})
    runs = {name: (tenant.run, tenant.against) for name, tenant in found.tenants.items()}
    assert runs == {"shop": (Path("runs/ml-100k"), None), "films": (Path("runs/other"), Path("runs/third"))}
    own = found.of_tenant("films")
    assert (len(own.admin_keys), own.read_keys, own.against, own.tenants) == (1, (), Path("runs/third"), {})
    # One key for several is refused, and not repeated.
    file.write_text(block.replace("…", SECRET * 4), "utf-8")
    with pytest.raises(InputError, match=r"^setting tenants: .* share a key or a token_secret; give each") as refused:
        Settings.read(file, {"tenants": {"shop": {"run": Path("a")}}})
    assert SECRET not in str(refused.value)
