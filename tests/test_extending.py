"""`docs/extending.md`: each recipe is a program, and runs as it is printed there."""

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from fedrec.federation.deployment.app_bundle import ROOT
from fedrec.serving.http.routes import asking

PAGE = ROOT / "docs" / "extending.md"
SECTIONS = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
RECIPES = {title: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for title, text in SECTIONS}
TABLES = re.findall(r"^from (fedrec\S+) import ([A-Z]{2,})\b", PAGE.read_text("utf-8"), re.MULTILINE)
"""The tables that recipes add a row to: module, name."""


@pytest.fixture
def tables(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take out of the tables, and of the endpoint, what a recipe has put in."""
    for module, _ in TABLES:
        if module in "".join(RECIPES[request.getfixturevalue("title")]):
            pytest.importorskip(module)
    found = [getattr(importlib.import_module(module), name) for module, name in TABLES if _exists(module)]
    before, routes = [dict(table) for table in found], len(asking.routes)
    yield
    for table, rows in zip(found, before, strict=True):
        for name in table.keys() - rows.keys():
            del table[name]
    del asking.routes[routes:]


def _exists(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("title", RECIPES)
@pytest.mark.usefixtures("tables")
def test_a_recipe_does_what_it_says(title: str, toy: Path, run: Path, embeddings: Tensor, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    shutil.copytree(toy, data)
    folder.mkdir()
    program = compile("\n".join(RECIPES[title]), f"{PAGE.name}: {title}", "exec")
    exec(program, {"__name__": "recipe", "folder": folder, "data": data, "run": run})


def test_the_page_has_the_recipes_that_it_names() -> None:
    named = re.findall(r"\[([^]]+)\]\(#", PAGE.read_text("utf-8").partition("\n## ")[0])
    assert [title.lower() for title in RECIPES] == [" ".join(name.split()) for name in named]
