"""The reference of settings is what the classes say, and nothing of it is left unexplained."""

import tomllib
from pathlib import Path

from benchmarks.preset import ROOT
from benchmarks.report.settings_page import PAGE, find_differing
from fedrec.federation.config import RunConfig, to_flat
from fedrec.serving.settings import Settings
from fedrec.settings_file import read_settings
from fedrec.settings_reference import endpoint_settings, training_settings
from tests.support.cli import Fedrec


def test_every_setting_is_there_and_explained() -> None:
    settings = [setting for section in training_settings() for setting in section.settings]
    assert [setting.name for setting in settings] == list(to_flat(RunConfig()))
    assert [setting.name for setting in endpoint_settings()] == list(Settings.model_fields)
    assert [s.name for s in [*settings, *endpoint_settings()] if not s.about.endswith(".")] == []


def test_a_setting_tells_the_values_that_it_may_have() -> None:
    allowed = {s.name: s.allowed for section in training_settings() for s in section.settings} | {
        s.name: s.allowed for s in endpoint_settings()
    }
    assert allowed["beta1"] == "at least 0, below 1"
    assert allowed["held_out"] == "0 to 2"
    assert allowed["bits"] == "1, 2, 3, 4, 5, 6, 7, 8 or 32"
    assert allowed["mode"] == "federated or central"
    assert allowed["max_body_bytes"] == "at least 1,000"
    assert allowed["read_keys"] == "at least 16 characters each"


def test_the_printed_settings_are_a_file_that_changes_nothing(fedrec: Fedrec, tmp_path: Path) -> None:
    printed = fedrec("train", "--settings")
    assert printed.code == 0
    assert tomllib.loads(printed.out) == to_flat(RunConfig())
    assert "# Rounds of training. (int, at least 1)\nrounds = 200\n" in printed.out
    (tmp_path / "settings.toml").write_text(printed.out, "utf-8")
    assert read_settings(tmp_path / "settings.toml", []) == RunConfig()


def test_the_page_is_written_where_it_differs(fedrec: Fedrec, tmp_path: Path) -> None:
    assert fedrec("settings", "--check").code == 1
    assert fedrec("settings").out == f"{PAGE} written\n"
    assert (tmp_path / PAGE).read_text("utf-8") == (ROOT / PAGE).read_text("utf-8")
    assert (fedrec("settings", "--check").code, fedrec("settings").out) == (0, "")
    (tmp_path / PAGE).write_text("# Settings\n", "utf-8")
    assert "run `fedrec settings`" in fedrec("settings", "--check").out


def test_our_page_of_settings_is_what_the_classes_say() -> None:
    assert find_differing(ROOT) == []
