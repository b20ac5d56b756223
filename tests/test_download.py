"""Fetching, from a real server on this machine: whole, continued, refused."""

import gzip
import hashlib
import re
import resource
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import pytest

from fedrec.data.errors import InputError
from fedrec.data.manifest import read_manifest
from fedrec.data.prepare import RAW, prepare
from fedrec.data.readers import download as downloads
from fedrec.data.readers.download import compute_md5, download
from fedrec.data.readers.source import Source
from fedrec.data.readers.sources import source_named
from tests.support.published_files import amazon_2014


def _zip_of(size: int) -> bytes:
    """A zip of exactly so many bytes."""
    with BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a"), bytes(range(256)) * (size // 256 - 1))
        content = buffer.getvalue()
    return bytes(size - len(content)) + content  # a zip may begin with anything


BODY = _zip_of(256_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Host(ThreadingHTTPServer):
    """Serves `files`; keeps the `Range` of each request (None: all of it) in `asked`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/films.zip": BODY}
        self.asked: list[str | None] = []
        self.moved: dict[str, str] = {}  # paths, and where they are redirected to
        self.knows_ranges = True
        self.says_length = True
        self.breaks_after: int | None = None  # bytes of a body, then the line is cut

    def source(self, name: str = "films.zip", md5: str | None = MD5) -> Source:
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        return Source("films", "for a test", source_named("ml-latest-small").read, url, md5)


class Handler(BaseHTTPRequestHandler):
    """One request, answered with all of a file or with the rest of it."""

    server: Host

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if place := self.server.moved.get(self.path):
            self.send_response(302)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if (body := self.server.files.get(self.path)) is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and self.server.knows_ranges else 0  # pyright: ignore[reportOptionalMemberAccess]
        if start and start >= len(body):
            return self.answer(416, b"")
        return self.answer(206 if start else 200, body[start:])

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Host() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(source: Source, folder: Path) -> tuple[Path, list[tuple[int, int | None]]]:
    """Download, and return the file and what was told of the progress."""
    told: list[tuple[int, int | None]] = []
    return download(source, folder, lambda done, total: told.append((done, total))), told


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("md5", [MD5, None])
def test_fresh(host: Host, md5: str | None, tmp_path: Path) -> None:
    path, told = fetch(host.source(md5=md5), tmp_path / "var" / "raw")
    assert path == tmp_path / "var" / "raw" / "films.zip"
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["films.zip"]
    assert host.asked == [None]
    assert told[-1] == (256_000, 256_000)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_only_the_rest_of_a_part_is_asked_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "films.zip.part").write_bytes(BODY[:200_000])
    path, told = fetch(host.source(), tmp_path)
    assert path.read_bytes() == BODY
    assert host.asked == ["bytes=200000-"]
    assert told[0][0] > 200_000
    assert told[-1] == (256_000, 256_000)
    assert names(tmp_path) == ["films.zip"]


def test_an_interrupted_download_is_kept_and_continued(host: Host, tmp_path: Path) -> None:
    host.breaks_after = 100_000
    with pytest.raises(InputError, match=r"could not be fetched .*try again to continue where it stopped"):
        fetch(host.source(), tmp_path)
    assert names(tmp_path) == ["films.zip.part"]
    assert (tmp_path / "films.zip.part").read_bytes() == BODY[:100_000]
    host.breaks_after = None
    path, _ = fetch(host.source(), tmp_path)
    assert path.read_bytes() == BODY
    assert host.asked == [None, "bytes=100000-"]


def test_an_empty_part_is_started_over(host: Host, tmp_path: Path) -> None:
    (tmp_path / "films.zip.part").touch()
    assert fetch(host.source(), tmp_path)[0].read_bytes() == BODY
    assert host.asked == [None]


def test_a_part_that_is_whole_is_only_put_in_place(host: Host, tmp_path: Path) -> None:
    (tmp_path / "films.zip.part").write_bytes(BODY)
    path, told = fetch(host.source(), tmp_path)
    assert path.read_bytes() == BODY
    assert (host.asked, told) == (["bytes=256000-"], [])
    assert names(tmp_path) == ["films.zip"]


@pytest.mark.parametrize("part", [BODY[:1000], b"x" * 1000, BODY + b"x" * 1000])
def test_a_server_that_ignores_ranges_starts_over(host: Host, part: bytes, tmp_path: Path) -> None:
    host.knows_ranges = False
    (tmp_path / "films.zip.part").write_bytes(part)
    path, told = fetch(host.source(), tmp_path)
    assert path.read_bytes() == BODY
    assert host.asked == [f"bytes={len(part)}-"]
    assert told[-1] == (256_000, 256_000)


@pytest.mark.parametrize("part", [None, b"x" * 1000, BODY + b"x"], ids=["fresh", "other part", "longer part"])
def test_another_md5_is_refused_and_removed(host: Host, part: bytes | None, tmp_path: Path) -> None:
    if part is None:
        host.files["/films.zip"] = b"something else"
    else:
        (tmp_path / "films.zip.part").write_bytes(part)
    with pytest.raises(InputError, match=rf"came with MD5 [0-9a-f]{{32}}, but {MD5} was published; it was removed"):
        fetch(host.source(), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_whole_file_is_not_fetched_again(host: Host, md5: str | None, tmp_path: Path) -> None:
    (tmp_path / "films.zip").write_bytes(BODY)
    path, told = fetch(host.source(md5=md5), tmp_path)
    assert (path, told, host.asked) == (tmp_path / "films.zip", [], [])


def test_who_wants_the_same_file_meanwhile_waits_and_has_it(host: Host, tmp_path: Path) -> None:
    """Two that wrote one part would leave neither whole."""
    with ThreadPoolExecutor(3) as many:
        found = list(many.map(lambda _: download(host.source(), tmp_path, lambda done, total: None), range(3)))
    assert found == [tmp_path / "films.zip"] * 3
    assert host.asked == [None]
    assert (names(tmp_path), (tmp_path / "films.zip").read_bytes()) == (["films.zip"], BODY)


def test_a_file_with_another_md5_is_fetched_again(host: Host, tmp_path: Path) -> None:
    (tmp_path / "films.zip").write_bytes(BODY[:-1])
    path, _ = fetch(host.source(), tmp_path)
    assert compute_md5(path) == MD5
    assert names(tmp_path) == ["films.zip"]


def test_a_missing_page_is_told(host: Host, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"/none\.zip could not be fetched \([^\n]*404[^\n]*\); try again .*pass `source`$"
    ):
        fetch(host.source("none.zip"), tmp_path)
    assert names(tmp_path) == []


def test_a_refused_connection_is_told_and_the_part_is_kept(host: Host, tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/films.zip"
        (tmp_path / "films.zip.part").write_bytes(BODY[:10])
        with pytest.raises(InputError, match=rf"{url} could not be fetched .*pass `source`"):
            fetch(Source("films", "", source_named("demo").read, url, MD5), tmp_path)
    assert (tmp_path / "films.zip.part").read_bytes() == BODY[:10]


def test_what_is_made_here_has_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="demo has nothing to download"):
        fetch(source_named("demo"), tmp_path)


def tiny_zip() -> bytes:
    """One user and three films, in the layout of `ml-latest-small`."""
    with BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("tiny/movies.csv", "movieId,title,genres\n1,A (1990),X\n2,B (1991),X\n3,C (1992),X\n")
            archive.writestr("tiny/ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,10\n1,2,4,11\n1,3,3,12\n")
        return buffer.getvalue()


def test_prepare_fetches_once_into_raw(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are kept in `var/raw` of the working folder; a second time, nothing is asked for."""
    monkeypatch.chdir(tmp_path)
    body = host.files["/tiny.zip"] = tiny_zip()
    source = host.source("tiny.zip", hashlib.md5(body).hexdigest())
    warnings: list[str] = []
    warn: Callable[[str], None] = warnings.append
    for _ in range(2):
        prepare(source, tmp_path / "films", None, lambda done, total: None, warn)
    assert (host.asked, warnings, names(tmp_path / RAW)) == ([None], [], ["tiny.zip"])
    manifest = read_manifest(tmp_path / "films")
    assert (manifest["users"], manifest["source_md5"]) == (1, source.md5)


def test_a_dataset_of_several_files_is_fetched_into_a_folder_of_its_own(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file once; a page in place of one is refused, and the files before it are kept."""
    monkeypatch.chdir(tmp_path)
    case = amazon_2014("Baby")
    host.files |= {f"/{name}": gzip.compress(content) for name, content in case.files.items()}
    urls = [f"http://127.0.0.1:{host.server_port}/{name}" for name in case.files]
    source = replace(source_named("amazon-2014:Baby"), url=urls[0], more_urls=tuple(urls[1:]))
    meta, host.files["/meta_Baby.json.gz"] = host.files["/meta_Baby.json.gz"], b"<html>busy"
    with pytest.raises(
        InputError, match=r"/meta_Baby\.json\.gz is no gz but begins with b'<html>busy'; it was removed"
    ):
        prepare(source, tmp_path / "baby", None, lambda done, total: None, print)
    host.files["/meta_Baby.json.gz"] = meta
    manifest = prepare(source, tmp_path / "baby", None, lambda done, total: None, print)
    assert (manifest.items, manifest.source, manifest.source_md5) == (4, urls[0], None)
    assert names(tmp_path / RAW / "amazon-2014-Baby") == sorted(case.files)
    assert len(host.asked) == 3


# ---- servers that answer something else


@pytest.mark.parametrize("page", [b"<!doctype html><p>Please sign in", b""], ids=["page", "nothing"])
def test_a_page_in_place_of_a_zip_is_refused_and_fetched_anew(host: Host, page: bytes, tmp_path: Path) -> None:
    """Of a file that changes over time there is no MD5; a page that was kept for it is not taken for it either."""
    (tmp_path / "films.zip").write_bytes(page)
    host.files["/films.zip"] = page
    with pytest.raises(
        InputError, match=rf"/films\.zip is no zip but begins with {re.escape(repr(page)[:-1])}.*removed"
    ):
        fetch(host.source(md5=None), tmp_path)
    host.files["/films.zip"] = BODY
    assert fetch(host.source(md5=None), tmp_path)[0].read_bytes() == BODY


def test_a_file_that_changes_over_time_is_not_continued(host: Host, tmp_path: Path) -> None:
    (tmp_path / "films.zip.part").write_bytes(b"of last year")
    assert fetch(host.source(md5=None), tmp_path)[0].read_bytes() == BODY
    assert host.asked == [None]


@pytest.mark.parametrize("place", ["/round.zip", "http://[half/", "ftp://127.0.0.1/films.zip"])
def test_a_redirection_that_leads_nowhere_is_told(host: Host, place: str, tmp_path: Path) -> None:
    host.moved["/round.zip"] = place
    with pytest.raises(InputError, match=r"/round\.zip could not be fetched \([^\n]+\); try again [^\n]+`source`$"):
        fetch(host.source("round.zip"), tmp_path)


def test_a_redirection_is_followed(host: Host, tmp_path: Path) -> None:
    host.moved["/old.zip"] = "/films.zip"
    assert fetch(host.source("old.zip"), tmp_path)[0].read_bytes() == BODY


def test_more_than_any_dataset_has_is_not_fetched(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the server says how much it is nor where it goes on without end."""
    monkeypatch.setattr(downloads, "MOST_UNPACKED", 100_000)
    for host.says_length in (True, False):
        with pytest.raises(InputError, match=r"could not be fetched \(it has more than the 100,000 bytes of any"):
            fetch(host.source(), tmp_path)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000


def test_a_server_that_does_not_speak_tls_is_told(host: Host, tmp_path: Path) -> None:
    source = host.source()
    assert source.url
    with pytest.raises(InputError, match=r"https://[^\n]* could not be fetched \([^\n]*SSL[^\n]*`source`$"):
        fetch(replace(source, url=source.url.replace("http:", "https:")), tmp_path)


def test_a_full_disk_is_told_and_the_part_is_kept(host: Host, tmp_path: Path) -> None:
    """A limit of this process stands for it: the system answers a write in the same way."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"could not be fetched \([^\n]*File too large\); try again to continue"):
            fetch(host.source(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "films.zip.part").read_bytes() == BODY[:100_000]
    assert fetch(host.source(), tmp_path)[0].read_bytes() == BODY


def test_a_folder_that_is_a_file_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "raw").touch()
    with pytest.raises(InputError, match=r"could not be fetched \([^\n]*File exists[^\n]*raw"):
        fetch(host.source(), tmp_path / "raw")
