"""Folders that commands write: none is replaced that holds what somebody else put there, and writers take turns."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmarks.reproduce.jobs import CONTENTS as PART
from fedrec.data.errors import InputError
from fedrec.data.manifest import PREPARED
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.storage import swap
from fedrec.data.storage.atomic_files import check_place, replaced_file, replaced_folder, unreplaced
from fedrec.data.storage.contents import is_vacant, refuse_occupied
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use, lock_beside, locked
from fedrec.data.storage.names import LONGEST_NAME, name_fault, plain_name
from fedrec.recsys.card import load_card
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import toy_interactions, toy_items, write_toy


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- names


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\\b", ".a", "-a", "a\nb", " a", "a ", "x" * 129, "\ud800"]
)
def test_a_name_that_is_no_plain_part_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^--name .*; a name is one plain part of a path"):
        plain_name(name, "--name")


@pytest.mark.parametrize("name", ["shop-2025", "a", "Größe 3", "a.b", "...".join("ab"), "x" * LONGEST_NAME])
def test_any_other_name_is_taken(name: str) -> None:
    assert plain_name(name, "--name") == name
    assert name_fault(name) is None


@pytest.fixture
def events(tmp_path: Path) -> Path:
    toy_interactions().write_csv(tmp_path / "events.csv")
    return tmp_path / "events.csv"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x"])
def test_an_import_without_a_name_takes_no_other_folder(name: str, events: Path, fedrec: Fedrec) -> None:
    fedrec("data", "import", events, "--name", "shop-2024")
    before = tree(events.parent)
    is_refused(fedrec("data", "import", events, "--name", name), f"--name {name!r}")
    assert tree(events.parent) == before


# ---- what is not ours


@pytest.mark.parametrize("foreign", ["notes.txt", "run-1/card.json", "shard/notes.txt", "empty/", "keep/mine.pt"])
def test_a_prepared_folder_with_a_foreign_file_is_left_as_it_is(foreign: str, events: Path, fedrec: Fedrec) -> None:
    asked = ["data", "import", events, "--name", "q", "--out", "data"]
    assert fedrec(*asked).code == 0
    place = events.parent / "data" / foreign
    place.parent.mkdir(exist_ok=True)
    place.mkdir() if foreign.endswith("/") else place.write_text("mine")
    before = tree(events.parent)
    is_refused(
        fedrec(*asked), f"--out data holds {foreign.split('/card')[0].rstrip('/')}", "move it away", "another folder"
    )
    assert tree(events.parent) == before
    assert place.exists()


def test_what_fedrec_leaves_in_a_prepared_folder_is_no_obstacle(events: Path, fedrec: Fedrec) -> None:
    asked = ["data", "import", events, "--name", "q", "--out", "data"]
    fedrec(*asked)
    data = events.parent / "data"
    (data / "embeddings-0123456789ab.safetensors").touch()
    (data / ".catalogue.parquet.0a1b2c3d.partial").mkdir()
    (data / ".catalogue.parquet.lock").touch()
    (data / "keep").mkdir()
    (data / "keep" / "part-0-of-1.pt").write_bytes(b"private")
    assert fedrec(*asked).code == 0
    assert not (data / "embeddings-0123456789ab.safetensors").exists(), "it is of the old catalogue"
    assert (data / "keep" / "part-0-of-1.pt").read_bytes() == b"private"


def test_a_part_of_a_benchmark_is_thrown_away_only_if_all_of_it_is_ours(tmp_path: Path) -> None:
    part = tmp_path / "federated-0"
    (part / "run").mkdir(parents=True)
    for name in ("part.json", "ranks.npy", "run/card.json", "run/index.json"):
        (part / name).touch()
    (part / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"federated-0 holds notes\.txt, which is no file of a part of a benchmark"):
        PART.clear(part)
    assert len(tree(part)) == 5
    (part / "notes.txt").unlink()
    PART.clear(part)
    assert list(part.iterdir()) == []


def test_a_folder_of_another_kind_is_no_part(toy: Path) -> None:
    before = tree(toy)
    with pytest.raises(InputError, match="exists and is no part of a benchmark"):
        PART.clear(toy)
    assert tree(toy) == before


def test_a_demo_in_which_something_else_lies_is_not_replaced(run: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    (out := tmp_path / "demo").mkdir()
    card = load_card(run)
    save_json(out / "card.json", card | {"data": card["data"] | {"name": "demo"}})
    (out / "store.db").write_text("feedback of users")
    is_refused(
        fedrec("demo", "--out", out), "demo holds store.db, which is no file of a run of the demo", "move it away"
    )
    assert (out / "store.db").read_text() == "feedback of users"


@pytest.mark.parametrize("taken", ["ca.crt", "server.crt", "server.key", "node", "node.pub"])
def test_no_certificate_and_no_key_is_written_over(taken: str, fedrec: Fedrec, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("mine")
    asked = ["key", "node"] if taken.startswith("node") else ["certify", "--out", "."]
    is_refused(fedrec("federation", *asked), f"{taken} is there already")
    assert tree(tmp_path) == {taken: b"mine"}


def test_a_place_with_leftovers_of_killed_writers_alone_is_free(tmp_path: Path) -> None:
    for name in (".lock", ".card.json.lock", "lost+found"):
        (tmp_path / name).touch()
    (tmp_path / ".card.json.0a1b2c3d.partial").mkdir()
    assert is_vacant(tmp_path)
    refuse_occupied(tmp_path)
    (tmp_path / ".env").touch()
    assert not is_vacant(tmp_path)


# ---- places that cannot be renamed


def test_a_symbolic_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    write_toy(tmp_path / "disk" / "toy")
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "toy")
    write_dataset(Frames(toy_interactions(), toy_items()), tmp_path / "data", name="second")
    assert (tmp_path / "data").is_symlink()
    assert '"second"' in (tmp_path / "disk" / "toy" / "manifest.json").read_text()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["data", "disk", "shard", "toy"]


def test_a_link_to_what_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "toy")
    write_toy(tmp_path / "data")
    assert (tmp_path / "data").is_symlink()
    assert (tmp_path / "disk" / "toy" / "manifest.json").is_file()


def test_the_working_folder_is_not_replaced_under_the_shells_feet(tmp_path: Path, monkeypatch) -> None:
    write_toy(tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    (Path() / "lost+found").mkdir()
    place = Path().stat().st_ino
    write_dataset(Frames(toy_interactions(), toy_items()), Path(), name="second")
    assert Path().stat().st_ino == place == (tmp_path / "toy").stat().st_ino
    assert '"second"' in Path("manifest.json").read_text()
    shown = ["catalogue.parquet", "lost+found", "manifest.json", "shard"]
    assert sorted(path.name for path in Path().iterdir()) == shown


BOUND = """
import subprocess, sys
from pathlib import Path
from tests.support.toy_world import write_toy
at = Path(sys.argv[1])
(at / "disk").mkdir(), (at / "data").mkdir()
if subprocess.run(["mount", "--bind", at / "disk", at / "data"]).returncode:
    sys.exit(77)
write_toy(at / "data")
(at / "data" / "manifest.json").write_text("{}")
write_toy(at / "data")
"""


def test_a_mount_point_is_written_inside(tmp_path: Path) -> None:
    """A bind of the same device, which no look at the devices tells."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", BOUND, str(tmp_path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("no mounts here")
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = ["catalogue.parquet", "manifest.json", "shard"]
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == shown
    assert '"toy"' in (tmp_path / "disk" / "manifest.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk"]


STEPS = range(8)


@pytest.mark.parametrize("way", [swap.replace_entries, swap.replace_folder])
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(
    way: Callable[[Path, Path], None], exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before each rename in turn, as a kill does, and mended by the next writer."""
    if not exchanges:
        monkeypatch.setattr(swap, "EXCHANGE", 99)  # which no system knows
    rename, seen = Path.replace, set()
    for step in STEPS:
        (folder := tmp_path / f"{step}").mkdir()
        (folder / "one").write_text("old")
        (folder / "two").write_text("old")
        new = (folder if way is swap.replace_entries else tmp_path) / f".{step}.0a1b2c3d.partial"
        new.mkdir()
        (new / "one").write_text("new")
        (new / "three").write_text("new")
        left = iter(range(step))

        def cut(path: Path, target: Path, left=left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "replace", cut)
        with suppress(KeyboardInterrupt):
            way(new, folder)
        monkeypatch.setattr(Path, "replace", rename)
        swap.recover_folder(folder)
        found = {name: text.decode() for name, text in tree(folder).items() if "partial" not in name}
        assert found in ({"one": "old", "two": "old"}, {"one": "new", "three": "new"})
        seen.add(found["one"])
    assert seen == ({"new"} if exchanges and way is swap.replace_folder else {"old", "new"})


def test_what_a_kill_left_is_mended_before_it_is_judged(tmp_path: Path) -> None:
    """Without its manifest it would be taken for somebody else's folder."""
    write_toy(tmp_path / "toy")
    (tmp_path / "toy" / swap.LEAVING).mkdir()
    (tmp_path / "toy" / "manifest.json").rename(tmp_path / "toy" / swap.LEAVING / "manifest.json")
    check_place(tmp_path / "toy", PREPARED.check)
    assert (tmp_path / "toy" / "manifest.json").is_file()


# ---- several writers


def test_a_folder_in_use_is_refused_in_one_line_until_its_writer_ends(tmp_path: Path) -> None:
    def second() -> None:
        with in_use(tmp_path / "run"):
            pass

    def as_another(act: Callable[[], None]) -> list[str]:
        said: list[str] = []

        def told() -> None:
            try:
                act()
            except InputError as error:
                said.append(str(error))

        thread = threading.Thread(target=told)
        thread.start()
        thread.join()
        return said

    with in_use(tmp_path / "run"):
        second()  # the one who holds it may take it again
        (line,) = as_another(second)
    assert (
        line == f"{tmp_path / 'run'} is in use by another command; wait until that has ended, or choose another place"
    )
    assert as_another(second) == []
    assert list((tmp_path / "run").iterdir()) == []


def test_a_writer_who_waits_takes_the_folder_when_it_is_free(tmp_path: Path) -> None:
    taken = threading.Event()

    def wait() -> None:
        with in_use(tmp_path / "run", wait=60):
            taken.set()

    waiting = threading.Thread(target=wait)
    with in_use(tmp_path / "run"):
        waiting.start()
        assert not taken.wait(0.2)
    waiting.join()
    assert taken.is_set()


def hold_and_die(path: Path) -> None:
    with locked(lock_beside(path)):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writers_lock_is_free(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=hold_and_die, args=(tmp_path / "out",))
    process.start()
    process.join()
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    with locked(lock_beside(tmp_path / "out"), wait=0):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_of_writers_at_the_same_moment_each_writes_a_whole_one(kind: str, tmp_path: Path) -> None:
    out, all_begin = tmp_path / "out", threading.Barrier(4)

    def write_as(name: str) -> None:
        all_begin.wait()
        if kind == "file":
            with replaced_file(out) as path:
                path.write_text(name * 3)
            return
        with replaced_folder(out, lambda path: None) as folder:
            for part in "abc":
                (folder / part).write_text(name)

    writers = [threading.Thread(target=write_as, args=(name,)) for name in "1234"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    held = out.read_text() if kind == "file" else "".join((out / part).read_text() for part in "abc")
    assert held in {name * 3 for name in "1234"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_writer_leaves_alone_what_another_files_writer_is_writing(tmp_path: Path) -> None:
    with replaced_file(tmp_path / "state.old") as other:
        with replaced_file(tmp_path / "state") as path:
            path.write_text("whole")
        other.write_text("whole")
    assert tree(tmp_path) == {"state": b"whole", "state.old": b"whole"}


def test_a_file_that_came_while_the_new_folder_was_written_is_not_lost(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")

    def write_both() -> None:
        with replaced_folder(tmp_path / "toy", PREPARED.check) as folder:
            (folder / "manifest.json").touch()
            (tmp_path / "toy" / "notes").write_text("mine")

    with pytest.raises(InputError, match="toy holds notes, which is no file"):
        write_both()
    assert (tmp_path / "toy" / "notes").read_text() == "mine"


def test_who_reads_a_folder_while_it_is_replaced_is_told(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")
    told = pytest.raises(InputError, match="toy was replaced while it was read; run the command again")
    with told, unreplaced(tmp_path / "toy"):
        write_toy(tmp_path / "toy")


def test_a_second_training_into_a_folder_in_use_is_refused(toy: Path, embeddings, run: Path, fedrec: Fedrec) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with in_use(run):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        is_refused(fedrec("train", toy, "--out", run, "--resume"), f"{run} is in use by another command")
        is_refused(fedrec("train", toy, "--out", run), "is not empty")
    finally:
        done.set()
        holder.join()
