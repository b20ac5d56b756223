"""The page as a person uses it: headless Chromium, by keyboard and by mouse, in light and in dark."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fedrec.data.catalogue import Catalogue
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.settings import Settings
from tests.support.endpoint import ready

KEY = "a-key-to-read-0123456789"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    recommender = Recommender.load(run)
    with ready(create_app(lambda: recommender)) as client:
        yield str(client.base_url)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A new page that fails where its console tells of an error, or where it asks anybody else."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(url) else wrong.append(asked.url))
    page.goto(url)
    yield page
    context.close()
    assert not wrong


def settle(page: Page) -> None:
    """Wait until what is recommended is the answer to the latest question."""
    expect(page.locator("#recommended")).to_have_attribute("aria-busy", "false")


def titles(page: Page) -> list[str]:
    settle(page)
    return page.locator(".card h3").all_text_contents()


def search(page: Page, text: str) -> None:
    page.get_by_role("combobox").fill(text)
    expect(page.get_by_role("option").first).to_be_visible()


def watch(page: Page, *films: str) -> None:
    """Put films into the history, each found by its title."""
    for film in films:
        search(page, film)
        page.get_by_role("option").filter(has_text=film).first.click()
        expect(page.locator("#history li").filter(has_text=film)).to_be_visible()
    settle(page)


def picture(page: Page, name: str) -> None:
    """Kept where a person can look at it, if somebody wants to."""
    if folder := os.environ.get("FEDREC_TEST_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_what_is_recommended_follows_the_history(page: Page) -> None:
    expect(page.locator("#model")).to_contain_text("24 items")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("footer")).to_contain_text("trained by federated learning")
    watch(page, "The soup", "The bread")
    expect(page.locator(".card")).to_have_count(12)
    cooking = titles(page)
    assert "The soup" not in cooking
    expect(page.locator(".card .why").first).to_contain_text("Because of The ")
    expect(page.locator(".card .about").first).to_contain_text("Cooking")
    expect(page.locator("#status")).to_contain_text(f"the first is {cooking[0]}")
    picture(page, "history")
    watch(page, "The rocket", "The moon", "The orbit")
    page.get_by_role("button", name="Remove The soup").click()
    page.get_by_role("button", name="Remove The bread").click()
    expect(page.locator("#history li")).to_have_count(3)
    expect(page.locator(".card h3").first).not_to_have_text(cooking[0])
    assert titles(page)[0] != cooking[0]


def test_who_is_new_sees_what_is_popular_and_how_the_model_was_trained(browser: Browser, run: Path) -> None:
    """Here of a model that was trained centrally, over a catalogue that tells how popular an item is."""
    films = Recommender.load(run)
    frame = films.catalogue.frame.with_columns(popularity=pl.int_range(pl.len()) * 7)
    card = films.card | {"config": films.card["config"] | {"mode": "central"}}
    pooled = Recommender(Catalogue(frame), films.vectors, films.adapter, card)
    with ready(create_app(lambda: pooled)) as client:
        context = browser.new_context()
        page = context.new_page()
        page.goto(str(client.base_url))
        expect(page.get_by_role("heading", name="Popular")).to_be_visible()
        expect(page.locator("footer")).to_contain_text("trained centrally, on histories that were pooled")
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator(".card h3").first).to_have_text("The alien")
        expect(page.locator(".card .about").first).to_have_text("2013 · Space")
        expect(page.locator(".card .score").first).to_have_attribute("title", "popularity 161")
        expect(page.locator("#scale")).to_contain_text("the most popular one")
        expect(page.get_by_role("slider")).to_have_count(0)
        picture(page, "popular")
        page.get_by_role("button", name="Hide The alien").click()
        expect(page.locator(".card h3").first).to_have_text("The meteor")
        watch(page, "The soup")
        expect(page.get_by_role("heading", name="For me")).to_be_visible()
        expect(page.locator("#scale")).to_contain_text("it is no probability")
        expect(page.get_by_role("slider")).to_be_visible()
        context.close()


def test_likes_join_the_history_and_what_is_hidden_goes(page: Page) -> None:
    watch(page, "The soup")
    first, second = titles(page)[:2]
    page.get_by_role("button", name=f"Hide {first}").click()
    expect(page.get_by_role("heading", name=first, exact=True)).to_have_count(0)
    page.get_by_role("button", name=f"Like {second}").click()
    expect(page.locator("#history li").first).to_contain_text(second)
    expect(page.get_by_role("heading", name=second, exact=True)).to_have_count(0)
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".card")).to_have_count(0)
    watch(page, "The soup")
    assert first in titles(page)


def test_all_of_it_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.keyboard.type("the roc")
    expect(page.get_by_role("option").first).to_contain_text("The rocket")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#history li").first).to_contain_text("The rocket")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove The rocket")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Variety")).to_be_focused()
    before = titles(page)
    for _ in range(18):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#diversity-value")).to_have_text("90 %")
    expect(page.locator(".card h3").nth(1)).not_to_have_text(before[1])
    page.get_by_role("combobox").focus()
    search(page, "soup")
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)


def test_everything_has_a_name_for_who_cannot_see_it(page: Page) -> None:
    watch(page, "The soup")
    for kind in ("button", "combobox", "slider", "list", "link"):
        for thing in page.get_by_role(kind).all():
            name = thing.evaluate("e => e.ariaLabel || e.labels?.[0]?.textContent || e.textContent")
            assert name.strip(), kind
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("main section[aria-labelledby]").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(page: Page, scheme: Literal["light", "dark"]) -> None:
    """Text stands out from what is behind it by 4.5 to 1 at least (WCAG 2.2, 1.4.3), on a wide and a narrow screen."""
    page.emulate_media(color_scheme=scheme)
    watch(page, "The soup")
    for text in (".card h3", ".card .about", ".card .why", "h2", "#history li", "button.like", "footer a"):
        assert contrast(page, text) >= 4.5, text
    picture(page, scheme)
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"{scheme}-narrow")


def contrast(page: Page, selector: str) -> float:
    return page.locator(selector).first.evaluate(
        """(element) => {
            const light = (colour) => {
                const part = (n) => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4;
                const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
                return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
            };
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }"""
    )


def test_a_server_that_wants_a_key_is_given_one(browser: Browser, run: Path) -> None:
    recommender = Recommender.load(run)
    app = create_app(lambda: recommender, Settings.model_validate({"read_keys": [KEY]}))
    with ready(app, KEY) as client:
        context = browser.new_context()
        page = context.new_page()
        page.goto(str(client.base_url))
        expect(page.get_by_role("alert")).to_contain_text("give an API key")
        page.get_by_label("This server needs an API key").fill(KEY)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#model")).to_contain_text("24 items")
        watch(page, "The soup")
        expect(page.locator(".card")).to_have_count(12)
        context.close()


def test_the_documentation_comes_from_the_server_alone(page: Page, url: str) -> None:
    """Without the internet, too; nobody else learns who reads it, and no script runs that is not the server's."""
    answer = page.goto(f"{url}docs" if url.endswith("/") else f"{url}/docs")
    assert answer
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]
    expect(page.locator(".opblock-summary-path").filter(has_text="/v1/recommend")).to_have_count(2)
    page.locator(".opblock-summary-path").filter(has_text="/healthz").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    picture(page, "docs")
