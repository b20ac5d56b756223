"""What the commands print where the terminal is not as one would wish: no UTF-8, narrow, or gone."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fedrec import console
from fedrec.cli import main
from tests.support.cli import Fedrec, is_refused

Printed = Callable[..., bytes]


@pytest.fixture
def latin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Printed:
    """The console script where standard output and error are in ISO-8859-1: the bytes on standard output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> bytes:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-1") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["fedrec", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return streams[0].buffer.getvalue()  # type: ignore[attr-defined]

    return call


def test_a_terminal_without_utf_8_gets_a_plain_character_for_each_that_it_lacks(latin: Printed, toy: Path) -> None:
    table = latin("node", "split", toy, "--nodes", 2, "--out", "n")
    (server,) = [line for line in table.splitlines() if b"n/server" in line]
    assert [cell.strip() for cell in server.split(b"|")][2] == b"-"  # for "–"
    assert b"+--" in table


def test_a_terminal_without_utf_8_keeps_the_letters_that_it_has(latin: Printed, run: Path) -> None:
    assert b'caf\\u00e9 \\u65e5"' in latin("recommend", run, "--history", "film-soup,café 日", "--json")
    assert b"film-" in latin("recommend", run, "--history", "film-soup,café 日")
    stderr: io.TextIOWrapper = sys.stderr  # type: ignore[assignment]
    assert "skipped: café ?".encode("iso-8859-1") in stderr.buffer.getvalue()  # type: ignore[attr-defined]


def test_training_ends_well_without_utf_8(latin: Printed, toy: Path, run: Path) -> None:
    """What it prints once it has trained, for a run that has: resumed, nothing is left to do but to tell."""
    told = latin("train", toy, "--out", run, "--resume")
    assert b"| test " in told
    assert b" - |" in told  # the coverage, which training does not measure


@pytest.mark.parametrize("arguments", [["data", "list"], ["data", "list", "--json"], ["--help"], ["train", "--help"]])
def test_a_reader_that_has_gone_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(console.out, "quiet", False)  # which rich changes for good
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "argv", ["fedrec", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 1
    assert capfd.readouterr().err == ""


def test_an_argument_that_is_no_text_is_refused_and_shown(fedrec: Fedrec, run: Path) -> None:
    """A Latin-1 "é" where UTF-8 is expected reaches Python as a lone surrogate, which libraries cannot take."""
    is_refused(fedrec("data", "import", os.fsdecode(b"caf\xe9.csv"), "--name", "x"), "'caf\\xe9.csv' is not utf-8")
    is_refused(fedrec("recommend", run, "--query", os.fsdecode(b"caf\xe9")), "'caf\\xe9'", "LC_ALL")


def test_a_narrow_terminal_gets_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, width=20))
    console.show(console.metrics_table("", {"validation": {"ndcg@10": 0.1234, "coverage@10": 0.5678}}))
    assert all(word in shown.getvalue() for word in ("validation", "0.1234", "0.5678", "coverage@10"))


def test_what_is_too_long_for_a_column_goes_on_below(capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses that are twice as long as the page is wide."""
    address = "https://files.example.org/" + "datasets/" * 20 + "films.zip"
    shown = console.table("name", "from")
    shown.add_row("films", address)
    console.show(shown)
    lines = capsys.readouterr().out.splitlines()
    assert address == "".join(line.split("│")[2].strip() for line in lines if line.count("│") == 3)


def test_brackets_in_a_name_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    console.status("runs/[red]a[/b]")
    console.show(console.table("[bold]", title="[/i]"))
    printed = capsys.readouterr()
    assert printed.err == "runs/[red]a[/b]\n"
    assert "[bold]" in printed.out
    assert "[/i]" in printed.out


def test_json_of_an_answer_is_ascii(fedrec: Fedrec, run: Path) -> None:
    answered = fedrec("recommend", run, "--history", "film-soup,日", "--json").out
    assert answered.isascii()
    assert json.loads(answered)["unknown_ids"] == ["日"]
