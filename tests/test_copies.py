"""Copies of published files that are not as published: saved again in another encoding, packed by other hands."""

import os
import socket
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedrec.data.errors import InputError
from fedrec.data.readers import raw
from fedrec.data.readers.raw import find_file, open_root
from fedrec.data.readers.sources import source_named
from tests.support.movielens_files import CASES, ML_1M, ML_100K, Case, Files, flat
from tests.support.recbole_files import FILMS, GOODS

RECBOLE = {name: content.encode() for name, content in FILMS.items()}
UNISREC = {name: content.encode() for name, content in GOODS.items()}
READERS = {name: (name, case.files) for name, case in CASES.items()} | {
    "RecBole": ("ml-1m", RECBOLE),
    "UniSRec": ("amazon-scientific", UNISREC),
}
MARK = b"\xef\xbb\xbf"


def published(name: str) -> str:
    """The encoding of a dataset's files."""
    return "latin-1" if name in ("ml-100k", "ml-1m") else "utf-8"


def read(name: str, files: Files, place: Path) -> tuple[list[list[tuple]], list[str]]:
    """The rows of both frames, without ratings, and the warnings."""
    place.mkdir(exist_ok=True)
    warnings: list[str] = []
    frames = source_named(name).read(open_root(flat(place, files), warnings.append))
    return [frame.drop("rating", strict=False).rows() for frame in frames], warnings


# ---- encodings


@pytest.mark.parametrize("mark", [b"", MARK], ids=["plain", "mark"])
@pytest.mark.parametrize(
    ("case", "file"), [(ML_1M, "movies.dat"), (ML_100K, "u.item")], ids=lambda part: getattr(part, "name", part)
)
def test_latin_1_that_was_saved_again_as_utf_8_is_read_as_that_and_told(
    case: Case, file: str, mark: bytes, tmp_path: Path
) -> None:
    again = mark + case.files[file].decode("latin-1").encode()
    rows, warnings = read(case.name, case.files | {file: again}, tmp_path)
    assert rows == [case.interactions, case.items]
    assert warnings == [f"{file} is read as UTF-8; the publisher's is latin-1, so it was saved again"]


def test_plain_letters_say_nothing_of_an_encoding(tmp_path: Path) -> None:
    files = ML_1M.files | {"movies.dat": b"73::Alien (1979)::Horror\n"}
    assert read("ml-1m", files, tmp_path)[1] == []


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_changes_nothing(name: str, tmp_path: Path) -> None:
    """Neither in a file of items, nor of ratings, nor before a header."""
    source, files = READERS[name]
    marked = {file: MARK + content.decode(published(name)).encode() for file, content in files.items()}
    assert read(source, marked, tmp_path / "marked")[0] == read(source, files, tmp_path / "plain")[0]


@pytest.mark.parametrize("name", READERS)
def test_line_ends_of_windows_change_nothing(name: str, tmp_path: Path) -> None:
    source, files = READERS[name]
    lines = {file: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for file, content in files.items()}
    assert read(source, lines, tmp_path / "windows")[0] == read(source, files, tmp_path / "plain")[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize(("name", "file"), [(name, file) for name in READERS for file in READERS[name][1]])
def test_utf_16_is_refused(name: str, file: str, encoding: str, tmp_path: Path) -> None:
    source, files = READERS[name]
    other = files[file].decode(published(name)).encode(encoding)
    with pytest.raises(InputError, match=rf"^{file} is UTF-16 or no text; save it as UTF-8"):
        read(source, files | {file: other}, tmp_path)


def test_a_mark_before_what_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    files = ML_1M.files | {"movies.dat": MARK + ML_1M.files["movies.dat"]}
    with pytest.raises(InputError, match=r"movies\.dat: byte 10 is not utf-8; is it the original file"):
        read("ml-1m", files, tmp_path)


# ---- quotation marks


@pytest.mark.parametrize(
    "row",
    [
        '1,"Cats" live (1998),Musical',
        '1,"Cats"" live (1998),Musical',
        '1,"Cats (1998),Musical',
        '1,6" under (1998),Musical',
        '1,"Cats (1998)" ,Musical',
    ],
)
def test_quotation_marks_that_do_not_match_tell_their_line(row: str, tmp_path: Path) -> None:
    movies = f'movieId,title,genres\n7,"Up, up (1990)",X\n{row}\n8,"Down (1991)",X\n'.encode()
    with pytest.raises(InputError, match=r"^movies\.csv line 3: its quotation marks do not match \('1,[^\n]*$"):
        read("ml-25m", CASES["ml-25m"].files | {"movies.csv": movies}, tmp_path)


# ---- zips


def packed(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def a_link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("/etc/u.data", "'/etc/u.data' has no place below the zip's root"),
        ("../u.data", "'../u.data' has no place below the zip's root"),
        ("inner/../u.data", "has no place below the zip's root"),
        ("inner//u.data", "has no place below the zip's root"),
        (a_link("inner/u.data"), "'inner/u.data' is a link"),
    ],
    ids=str,
)
def test_an_entry_that_is_no_plain_file_is_refused(entry: str | zipfile.ZipInfo, says: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "given.zip", (entry, b"/etc/passwd"))
    with pytest.raises(InputError, match=rf"given\.zip: [^\n]*{says}; unpack it yourself and give the folder$"):
        open_root(path)


def test_an_encrypted_entry_is_refused_as_that(tmp_path: Path) -> None:
    path = packed(tmp_path / "given.zip", ("u.data", b"1\t1\t5\t9\n"))
    content = bytearray(path.read_bytes())
    for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + place] |= 1  # the bit that says so, in both headers
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'u\.data' is encrypted; unpack it yourself"):
        open_root(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "given.zip", ("u.data", b"one"), ("u.data", b"two"))
    with pytest.raises(InputError, match=r"given\.zip holds 'u\.data' twice"):
        open_root(path)


def test_a_zip_that_unpacks_to_more_than_any_dataset_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "MOST_UNPACKED", 1_000_000)
    half = bytes(600_000)
    path = packed(tmp_path / "given.zip", ("a", half), ("b", half))
    assert path.stat().st_size < 3000
    with pytest.raises(InputError, match=r"given\.zip has 1,200,000 bytes unpacked, more than the 1,000,000 of any"):
        open_root(path)


def test_a_file_that_memory_cannot_hold_is_not_read(tmp_path: Path) -> None:
    """A terabyte without a block on the disk."""
    flat(tmp_path, ML_1M.files)
    with (tmp_path / "ratings.dat").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match=r"ratings\.dat has 1,000,000,000,000 bytes unpacked, more than the 2,147,"):
        source_named("ml-1m").read(open_root(tmp_path))


def test_a_zip_that_says_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "given.zip", ("u.data", bytes(100_000)))
    content = path.read_bytes()
    path.write_bytes(content.replace((100_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"given\.zip: u\.data is damaged inside the zip"):
        open_root(path)


def test_a_zip_in_a_zip_is_pointed_at(tmp_path: Path) -> None:
    inner = packed(tmp_path / "ml-100k.zip", ("u.data", b"1\t1\t5\t9\n")).read_bytes()
    root = open_root(packed(tmp_path / "given.zip", ("ml-100k.zip", inner)))
    with pytest.raises(InputError, match=r"holds no 'u\.data'; unpack ml-100k\.zip, or give that"):
        find_file(root, "u.data")


def test_a_folder_of_two_datasets_is_not_guessed_about(tmp_path: Path) -> None:
    for name in ("ml-1m", "ml-10m"):
        (tmp_path / name).mkdir()
        flat(tmp_path / name, CASES[name].files)
    with pytest.raises(InputError, match=r"holds 'movies\.dat' in ml-10m and in ml-1m; give one of them"):
        source_named("ml-10m").read(open_root(tmp_path))


# ---- what is no file


@contextmanager
def _bound(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has 108 characters at most
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)
        yield


def test_a_source_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with _bound(tmp_path / "socket"):
        for path, kind in ((tmp_path / "pipe", "pipe"), (tmp_path / "socket", "socket"), (Path("/dev/zero"), "device")):
            with pytest.raises(InputError, match=rf"`source` {path} is a {kind}, where a file belongs; give a zip"):
                open_root(path)


@pytest.mark.parametrize(("kind", "make"), [("pipe", os.mkfifo), ("folder", os.mkdir)])
def test_a_member_that_is_no_file_is_refused_at_once(kind: str, make, tmp_path: Path) -> None:
    flat(tmp_path, ML_1M.files)
    (tmp_path / "ratings.dat").unlink()
    make(tmp_path / "ratings.dat")
    with pytest.raises(InputError, match=rf"ratings\.dat is a {kind}, where a file belongs; give the file itself"):
        source_named("ml-1m").read(open_root(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_without_rights_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "given.zip", ("u.data", b""))
    path.chmod(0)
    with pytest.raises(InputError, match=r"`source` .*given\.zip may not be read by you; mend its rights"):
        open_root(path)
