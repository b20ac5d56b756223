"""A run and its data are told apart by the histories, too, of which the fingerprint in the card reveals nothing."""

import hashlib
import hmac
import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import FILE, fingerprint_of, same_key
from fedrec.data.node_folders import NODE_FOLDER, partition_dataset
from fedrec.data.partition import partition_evenly
from fedrec.data.prepare import Origin, write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.storage.json_file import save_json
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import open_run
from fedrec.recsys.card import load_card
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import begun, small_config, toy_interactions, toy_items, write_toy


def shorter() -> Frames:
    """An earlier export of the toy world: the same users and items, and the first four events of each."""
    return Frames(toy_interactions().group_by("user_id", maintain_order=True).head(4), toy_items())


def histories_of(folder: Path) -> str:
    found = fingerprint_of(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def places(toy: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared folders of the items that `run` was trained on, and runs whose cards tell more or less."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("copy", "shorter", "keyless", "damaged"):
        shutil.copytree(toy, folder / name)
    write_dataset(shorter(), folder / "shorter", name="toy")
    write_toy(folder / "anew")
    (folder / "keyless" / FILE).unlink()
    (folder / "damaged" / FILE).write_text("private 1234\n")
    for name, changed in {"silent": {"histories": None}, "mixed": {"earlier_histories": ["0:0"]}}.items():
        card = load_card(shutil.copytree(run, folder / name))
        save_json(folder / name / "card.json", card | {"data": card["data"] | changed})
    return {path.name: path for path in folder.iterdir()} | {"toy": toy, "run": run}


# ---- the fingerprint and its key


def test_it_is_an_hmac_of_the_shards_columns(toy: Path) -> None:
    key = bytes.fromhex((toy / FILE).read_text().removeprefix("private ").strip())
    bounds, items, salts = (np.load(toy / "shard" / f"{name}.npy") for name in ("starts", "items", "salts"))
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for column, kind in ((bounds[:-1], "<i8"), (bounds[1:], "<i8"), (items, "<i4"), (salts, "<u8")):
        digest.update(f"{kind} {len(column)} ".encode() + column.tobytes())
    assert histories_of(toy).split(":")[1] == digest.hexdigest()
    assert len(key) == 32


def test_it_tells_histories_apart_and_a_copy_from_neither(places: dict[str, Path]) -> None:
    toy, copy, shorter, anew = (histories_of(places[name]) for name in ("toy", "copy", "shorter", "anew"))
    assert toy == copy
    assert toy != shorter
    assert same_key(toy, shorter), "it was prepared in the place of a copy"
    assert not same_key(toy, anew), "the same histories, prepared anew"


def test_a_published_dataset_has_one_fingerprint_everywhere(tmp_path: Path) -> None:
    for place in "ab":
        write_dataset(
            Frames(toy_interactions(), toy_items()), tmp_path / place, name="toy", origin=Origin(published="toy")
        )
    write_dataset(Frames(toy_interactions(), toy_items()), tmp_path / "c", name="toy", origin=Origin(published="other"))
    assert histories_of(tmp_path / "a") == histories_of(tmp_path / "b") != histories_of(tmp_path / "c")


def test_private_histories_in_the_place_of_published_ones_get_a_key_of_their_own(tmp_path: Path) -> None:
    write_dataset(Frames(toy_interactions(), toy_items()), tmp_path / "out", name="toy", origin=Origin(published="toy"))
    write_dataset(Frames(toy_interactions(), toy_items()), tmp_path / "out", name="toy")
    assert (tmp_path / "out" / FILE).read_text().startswith("private ")


def test_the_key_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")
    before = (tmp_path / "toy" / FILE).read_text()
    write_toy(tmp_path / "toy")
    assert (tmp_path / "toy" / FILE).read_text() == before
    assert stat.S_IMODE((tmp_path / "toy" / FILE).stat().st_mode) == 0o600


def test_no_folder_of_a_federation_holds_the_key_of_the_whole(toy: Path, tmp_path: Path) -> None:
    folders = partition_dataset(Dataset.open(toy), tmp_path / "split", partition_evenly(12, 3))
    assert not list((tmp_path / "split" / "server").rglob("*.key"))
    held = b"".join(path.read_bytes() for path in (tmp_path / "split").rglob("*") if path.is_file())
    assert (toy / FILE).read_text().split()[1].encode() not in held
    assert len({(folder / FILE).read_text() for folder in folders}) == 3
    assert fingerprint_of(tmp_path / "split" / "server") is None
    assert [NODE_FOLDER.foreign(folder) for folder in folders] == [None] * 3


def test_a_damaged_key_is_refused_with_the_remedy(places: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"fingerprint\.key is damaged; remove it and prepare the data again"):
        fingerprint_of(places["damaged"])


# ---- a run on other histories


def test_the_card_tells_which_histories_and_nothing_of_them(toy: Path, run: Path) -> None:
    assert load_card(run)["data"]["histories"] == histories_of(toy)
    assert (toy / FILE).read_text().split()[1] not in (run / "card.json").read_text()


@pytest.mark.parametrize("command", [["evaluate"], ["personalise", "--steps", "1", "--rates", "0.01"]])
def test_measuring_on_other_histories_is_refused_unless_they_are_meant(
    command: list[str], places: dict[str, Path], fedrec: Fedrec
) -> None:
    asked = [command[0], places["run"], *command[1:], "--data"]
    other = "was trained on other histories than", "--data", "--other-histories"
    is_refused(fedrec(*asked, places["shorter"]), *other)
    is_refused(fedrec(*asked, places["anew"]), "cannot be told", "prepared anew or elsewhere", "--other-histories")
    assert fedrec(*asked, places["shorter"], "--other-histories").code == 0
    same = fedrec(*asked, places["copy"])
    assert (same.code, same.err) == (0, "")


@pytest.mark.parametrize(
    ("run_named", "data", "said"),
    [
        ("run", "keyless", "keyless has no key to tell its histories by"),
        ("silent", "toy", "silent does not tell which histories it was trained on"),
        ("mixed", "toy", "mixed was also trained on others than the histories in"),
    ],
)
def test_what_cannot_be_known_is_told_and_not_refused(
    run_named: str, data: str, said: str, places: dict[str, Path], fedrec: Fedrec
) -> None:
    told = fedrec("evaluate", places[run_named], "--data", places[data])
    assert told.code == 0
    assert said in told.err


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_card_leads_to_no_folder_but_one_of_the_prepared(
    name: str, run: Path, fedrec: Fedrec, tmp_path: Path
) -> None:
    card = load_card(shutil.copytree(run, tmp_path / "run"))
    (tmp_path / "run" / "card.json").write_text(json.dumps(card | {"data": card["data"] | {"name": name}}))
    (tmp_path / "var" / "prepared").mkdir(parents=True)
    is_refused(fedrec("evaluate", "run"), f"the dataset's name {name!r}", "--data")


def test_a_run_goes_on_with_other_histories_only_if_they_are_meant(
    places: dict[str, Path], embeddings: Tensor, tmp_path: Path
) -> None:
    toy, other, out = places["toy"], places["shorter"], tmp_path / "run"
    config = small_config(rounds=1)
    open_run(out, Dataset.open(toy), config, False, None, TrainedOn.of(toy))
    before = (out / "card.json").read_bytes()
    for name, said in (("shorter", "began on other histories than"), ("anew", "cannot be compared")):
        with pytest.raises(InputError, match=rf"{said}.*add `other_histories` if these are meant"):
            open_run(out, Dataset.open(toy), None, True, None, TrainedOn.of(places[name]))
    assert open_run(out, Dataset.open(toy), None, True, None, TrainedOn.of(toy)).config == config
    assert (out / "card.json").read_bytes() == before
    open_run(out, Dataset.open(other), None, True, None, TrainedOn.of(other, others_meant=True))
    told = load_card(out)["data"]
    assert (told["histories"], told["earlier_histories"]) == (histories_of(other), [histories_of(toy)])


def test_a_run_without_a_fingerprint_goes_on_and_it_is_told(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(rounds=1)
    open_run(tmp_path / "run", Dataset.open(toy), config, False)  # as a server does, which has no shard
    assert load_card(tmp_path / "run")["data"]["histories"] is None
    open_run(tmp_path / "run", Dataset.open(toy), None, True)
    assert caplog.messages == []
    assert open_run(tmp_path / "run", Dataset.open(toy), None, True, None, TrainedOn.of(toy)).config == config
    (message,) = caplog.messages
    assert "is unknown; resuming with these" in message


def test_a_start_from_other_histories_of_the_same_items_is_told(
    places: dict[str, Path], run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(("toy", "shorter")):
        place = places[name]
        open_run(tmp_path / name, Dataset.open(place), small_config(), False, run, TrainedOn.of(place))
        assert len(caplog.messages) == number
    assert "learned from other histories of these items" in caplog.text


def test_from_the_command_line_a_run_goes_on_with_the_flag(
    places: dict[str, Path], tmp_path: Path, fedrec: Fedrec
) -> None:
    begun(tmp_path / "run", places["toy"], small_config(rounds=1))
    asked = ["train", places["shorter"], "--out", tmp_path / "run", "--resume"]
    is_refused(fedrec(*asked), "began on other histories than", "--other-histories")
    assert fedrec(*asked, "--other-histories").code == 0
