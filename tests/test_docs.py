"""The documentation: its links lead somewhere, and the API reference names what exists."""

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.attacks.registry import ATTACKS
from fedrec.federation.deployment.app_bundle import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE = ROOT / "docs" / "api"


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The local links and pictures of a page: path, anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {path}#{anchor}"


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One title\n[a](b.md#c) [d](#one-title) [e](https://f.g)\n```\n# no title\n[h](i.md)\n```\n", "utf-8"
    )
    assert list(links(page)) == [("b.md", "c"), ("", "one-title")]
    assert anchors(page) == {"one-title"}


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda page: page.name)
def test_the_reference_names_what_exists(page: Path) -> None:
    for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE):
        module, _, symbol = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), symbol), f"{page.name} names {name}"


def test_each_statement_about_another_project_links_to_where_it_was_read() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert len(sections) == 6
    for project, text in sections:
        statements = re.findall(r"^\* .+$", text, re.MULTILINE)
        assert statements, project
        assert not [line for line in statements if "](https://" not in line], project
        assert "**Use " in text, project
    _, _, fedrec, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert fedrec.startswith("| fedrec |")
    assert len(rows) == len(sections)
    assert not [row for row in rows if "](https://" not in row]


def test_the_files_about_the_project_are_what_their_readers_expect() -> None:
    """GitHub's forms name their fields once, hooks name programs of `make check`, the citation names this version."""
    forms = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")]
    bodies = [form["body"] for form in forms if "body" in form]
    assert len(bodies) == 2
    for body in bodies:
        assert len({field["id"] for field in body}) == len(body)
        assert all(field["attributes"]["label"] for field in body)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("$(BIN)", ".venv/bin")
    entries = [hook["entry"] for hook in repo["hooks"]]
    assert [entry for entry in entries if entry not in makefile] == ["make check"]


def test_the_contributing_guide_names_every_wing() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = [ROOT / room for room in ("data", "recsys", "federation", "serving", "fedrec", "benchmarks")]
    wings = {path.parent for room in rooms for path in room.glob("*/__init__.py") if not path.parent.is_symlink()}
    assert len(wings) > 10
    assert [wing.name for wing in sorted(wings) if f"`{wing.name}/`" not in guide] == []


def test_every_claim_of_the_threat_model_names_what_there_is() -> None:
    """Each test, file of tests and attack that the page names exists."""
    page = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 20
    assert not {name for name in named if f"def {name}(" not in tests}
    assert not {name for name in re.findall(r"`(tests/\w+\.py)`", page) if not (ROOT / name).is_file()}
    attacks = set(re.findall(r"`fedrec\s+attack\s+([a-z][\w-]*)`", page))
    assert attacks
    assert attacks <= set(ATTACKS)
