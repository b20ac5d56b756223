"""Downloads of published files: resumable, checked, and put in place whole."""

import hashlib
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from fedrec.data.errors import InputError
from fedrec.data.progress import Progress
from fedrec.data.readers.lines import starts_with
from fedrec.data.readers.raw import MOST_UNPACKED
from fedrec.data.readers.source import Source
from fedrec.data.readers.streams import GZIP
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import regular


def compute_md5(path: Path) -> str:
    """Compute the MD5 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@dataclass(frozen=True)
class _Address:
    """The address of a file, and the checksum that its publisher gives, if any."""

    url: str
    md5: str | None = None

    def is_whole(self, path: Path) -> bool:
        """Check a file by its MD5, or else by how it begins."""
        return path.is_file() and (compute_md5(path) == self.md5 if self.md5 else self.begins_well(path))

    def begins_well(self, path: Path) -> bool:
        """Check whether a file begins as one of its suffix: a web page, as of an error, does not."""
        if self.url.endswith(".zip"):
            return zipfile.is_zipfile(path)
        return starts_with(path, GZIP) if self.url.endswith(".gz") else not starts_with(path, b"<")


def download(source: Source, folder: Path, progress: Progress) -> Path:
    """Download a source's zip into `folder`, or its files into a folder in it, unless they are there; returns the path.

    An interrupted download is kept as `.part` and resumed, if the source's MD5 is known. Raises `InputError` if a
    file cannot be fetched, has another MD5 or is of another kind; it is then removed.
    """
    if source.url is None:
        raise InputError(f"{source.name} has nothing to download")
    if not source.more_urls:
        return _download_file(_Address(source.url, source.md5), folder, progress)
    for url in (source.url, *source.more_urls):
        _download_file(_Address(url), folder / source.folder_name, progress)
    return folder / source.folder_name


def _download_file(address: _Address, folder: Path, progress: Progress) -> Path:
    target = folder / address.url.rsplit("/", 1)[-1]
    if address.is_whole(target):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(target)):
            return target if address.is_whole(target) else _download_whole(address, target, progress)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{address.url} could not be fetched ({reason}); try again to continue where it stopped, "
            f"or get it by other means and pass `source`"
        ) from error


def _download_whole(address: _Address, target: Path, progress: Progress) -> Path:
    part = target.with_name(f"{target.name}.part")
    if not address.md5:
        part.unlink(missing_ok=True)
    _fetch(address.url, part, progress)
    if address.md5 and (md5 := compute_md5(part)) != address.md5:
        part.unlink()
        raise InputError(
            f"{address.url} came with MD5 {md5}, but {address.md5} was published; it was removed. "
            "Try again, or pass a copy you trust with `source`"
        )
    if not address.begins_well(part):
        with part.open("rb") as file:
            start, suffix = file.read(40), target.suffix[1:]
        part.unlink()
        raise InputError(
            f"{address.url} is no {suffix} but begins with {start!r}; it was removed. Try again, or get it otherwise "
            "and pass `source`"
        )
    shutil.move(part, target)
    return target


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append the missing bytes to a file. Raises `OSError` for more bytes than any dataset has."""
    size = regular(part, "remove it").stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is whole already: its MD5 decides
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            size = 0  # the server ignored the range and starts over
        length = response.headers.get("content-length")
        total = size + int(length) if length else None
        _check_size(total or 0)
        with part.open("ab" if size else "wb") as file:
            for chunk in response.iter_bytes():
                _check_size(size + len(chunk))
                size += file.write(chunk)
                progress(size, total)


def _check_size(size: int) -> None:
    if size > MOST_UNPACKED:
        raise OSError(f"it has more than the {MOST_UNPACKED:,} bytes of any dataset here")
