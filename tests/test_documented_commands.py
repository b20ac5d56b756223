"""Every command that a document prints is run by a test, read by the program's own parser, or listed with a reason.

The pages in `RUN` are followed literally by the tests named there. Everything else is parsed here: sub-commands,
options, values and settings exist, and so do the targets of make, the fields of a question and the names in Python.
"""

import ast
import contextlib
import importlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import typer

from fedrec.federation.config import RunConfig, to_flat
from fedrec.serving.schema import Question
from fedrec.serving.settings import Settings
from fedrec.settings_file import read_settings
from tests.support.commands import SHELL, blocks, command_lines, commands, parse_command
from tests.support.source import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
RUN = {
    "docs/deploy.md": "test_the_guide_can_be_followed",
    "docs/quickstart.md": "test_the_quick_start_can_be_followed",
    "docs/your-data.md": "test_the_documented_import_gives_what_is_documented",
    "docs/extending.md": "test_a_recipe_does_what_it_says",
}
"""Pages whose blocks are run as they are printed, and the test that does it. Those of deploy.md in `sh`."""

NOT_RUN = {
    "docker": "needs a container engine",
    "kubectl": "needs a cluster",
    "nginx": "runs in the tests of a federation, where it is installed",
    "git": "needs a network",
    "tensorboard": "serves until it is stopped",
}
"""Programs whose commands are not parsed here, and why."""

SHELL_WORDS = {
    ".",
    "cat",
    "cd",
    "chmod",
    "cp",
    "cut",
    "exit",
    "export",
    "mkdir",
    "pip",
    "pre-commit",
    "python3",
    "wait",
}
"""Of the shell and of Python: their words are not this project's."""

OWN_METHOD = "shared-scores"
"""The method that a recipe of docs/extending.md adds."""

NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def check_fedrec(words: list[str]) -> None:
    here = ["runs/try" if word.startswith("hf://") else word for word in words[1:]]  # parsing fetches from the hub
    with contextlib.redirect_stdout(io.StringIO()):  # of --settings and --help
        found = parse_command(here)
    if found.get("command") == "train":
        read_settings(None, found["settings"] or [], found["preset"])
    if found.get("command") == "serve":
        Settings.parse_pairs(found["changes"] or [])


def check_make(words: list[str]) -> None:
    targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word and word != "fedrec"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def check_flwr(words: list[str]) -> None:
    from flwr.cli.app import app

    found = parse_command(words[1:], typer.main.get_command(app))
    given = " ".join(found.get("run_config_overrides") or ())
    names = set(re.findall(r"([\w-]+)=", given))
    assert names <= {*to_flat(RunConfig()), "data", "out", "resume", "start"}, names


def check_superlink(words: list[str]) -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    with pytest.raises(SystemExit) as stop:
        _parse_args_run_superlink().parse_args([*words[1:], "--help"])
    assert stop.value.code == 0


def check_curl(words: list[str]) -> None:
    """The body is a question, and the path a route."""
    (url,) = [word for word in words[1:] if re.match(r"(https?://|localhost|127\.)", word)]
    path = urlsplit(url if "//" in url else f"http://{url}").path
    assert path in ("/v1/recommend", "/readyz", "/healthz", "/metrics", "/v1/models")
    if path == "/v1/recommend":
        Question.model_validate(json.loads(words[words.index("-d") + 1]))


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "fedrec": check_fedrec,
    "make": check_make,
    "flwr": check_flwr,
    "flower-superlink": check_superlink,
    "curl": check_curl,
}


def faults(page: Path) -> list[str]:
    """The commands of a page's blocks that would not run, each with the reason."""
    bare = [block for block in blocks(page, "") if is_known(next(iter(command_lines(block)), ""))]
    found = []
    for line in (line for block in [*blocks(page, *SHELL), *bare] for line in command_lines(block)):
        for words in commands(line):
            try:
                CHECKS.get(words[0], _require_known)(words)
            except Exception as error:
                found.append(f"{page.name}: {' '.join(words)}: {type(error).__name__} {error}")
    return found


def is_known(line: str) -> bool:
    """Whether a line begins with a program of the tables: a block without a language may be an output, or a picture."""
    first = next(iter(line.split()), "")
    return first in CHECKS or first in NOT_RUN or first in SHELL_WORDS


def _require_known(words: list[str]) -> None:
    if not is_known(words[0]):
        raise LookupError("is no program that documents may name; add it to a table here")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_printed_command_can_be_typed(page: Path) -> None:
    assert faults(page) == []
    assert inline_faults(page) == []


def inline_faults(page: Path) -> list[str]:
    """The commands in a page's prose that name a sub-command or option that there is not; arguments may be missing."""
    found = []
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for text in re.findall(r"`(fedrec [a-z][^`]*)`", prose):
        words = [word for word in re.sub(r"\s+", " ", text).replace("…", "").split(" ") if word]
        try:
            check_fedrec(words)
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            pass
        except Exception as error:
            if "requires an argument" in str(error) or OWN_METHOD in text:
                continue
            found.append(f"{page.name}: {text}: {type(error).__name__} {error}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_printed_python_names_what_there_is(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedrec"):
                module = importlib.import_module(node.module or "")
                assert not [alias.name for alias in node.names if not _has(module, alias.name)]
        for dotted in re.findall(r"\bfedrec((?:\.\w+)+)\(", block):
            value: object = importlib.import_module("fedrec")
            for name in dotted[1:].split("."):
                value = getattr(value, name)


def _has(module: object, name: str) -> bool:
    if hasattr(module, name):
        return True
    importlib.import_module(f"{module.__name__}.{name}")  # type: ignore[attr-defined]
    return True


def test_the_tests_that_run_pages_exist() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert not [name for name in RUN.values() if f"def {name}(" not in source]
    assert set(RUN) <= set(NAMES)


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("```sh\nfedrec train DATA --out RUN --set rounds=3 && make test\n```", None),
        ("```sh\nfedrec trian DATA\n```", "No such command"),
        ("```sh\nfedrec train DATA --out RUN --rounds 3\n```", "No such option"),
        ("```sh\nfedrec train DATA --out RUN --set rouns=3\n```", "rouns"),
        ("```sh\nfedrec recommend RUN -k 0\n```", "-k"),
        ("```\n$ fedrec evaluate RUN --baseline\nndcg\n```", "No such option"),
        ("```sh\nmake tests\n```", "tests"),
        ("```sh\nrsync a b\n```", "add it to a table"),
        ('```sh\ncurl -s localhost:8080/v1/recommend -d \'{"histroy": [],\n "k": 1}\'\n```', "histroy"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(block: str, fault: str | None, tmp_path: Path) -> None:
    (page := tmp_path / "page.md").write_text(f"# Page\n{block}\n", "utf-8")
    found = faults(page)
    assert (found == []) if fault is None else (len(found) == 1 and fault in found[0])


def test_a_block_is_split_into_commands() -> None:
    block = "# a comment\na --b 'c\nd' | e; f \\\n  g   # why\nX=1 h $(i (j)) > k <<END\nl\nEND\nm\n"
    lines = list(command_lines(block))
    assert [list(commands(line)) for line in lines] == [
        [],
        [["a", "--b", "c\nd"], ["e"], ["f", "g"]],
        [["h", "PRINTED"]],
        [["m"]],
    ]
    assert list(command_lines("$ a\nprinted\n$ b\n")) == ["a", "b"]
