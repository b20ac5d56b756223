"""`docs/extending.md`: each recipe is a program, and runs as it is printed there."""

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from fedrec.federation.deployment.app_bundle import ROOT

PAGE = ROOT / "docs" / "extending.md"
SECTIONS = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
RECIPES = {title: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for title, text in SECTIONS}
TABLES = re.findall(r"^from (fedrec\S+) import ([A-Z]{2,})\b", PAGE.read_text("utf-8"), re.MULTILINE)
"""The tables that recipes add a row to: module, name."""


@pytest.fixture(autouse=True)
def _tables_as_before() -> Iterator[None]:
    """Remove the rows that a recipe adds to the tables."""
    tables = [getattr(importlib.import_module(module), name) for module, name in TABLES]
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        for name in table.keys() - rows.keys():
            del table[name]


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_does_what_it_says(title: str, toy: Path, run: Path, embeddings: Tensor, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    shutil.copytree(toy, data)
    folder.mkdir()
    program = compile("\n".join(RECIPES[title]), f"{PAGE.name}: {title}", "exec")
    exec(program, {"__name__": "recipe", "folder": folder, "data": data, "run": run})


def test_the_page_has_the_recipes_that_it_names() -> None:
    named = re.findall(r"\[([^]]+)\]\(#", PAGE.read_text("utf-8").partition("\n## ")[0])
    assert [title.lower() for title in RECIPES] == [" ".join(name.split()) for name in named]
