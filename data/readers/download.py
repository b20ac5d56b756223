"""Downloads of published files: resumable, checked, and put in place whole."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import httpx

from fedrec.data.errors import InputError
from fedrec.data.progress import Progress
from fedrec.data.readers.raw import MOST_UNPACKED
from fedrec.data.readers.sources import Source
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import regular


def compute_md5(path: Path) -> str:
    """Compute the MD5 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(source: Source, folder: Path, progress: Progress) -> Path:
    """Download a source's zip into `folder`, unless it is there; returns its path.

    An interrupted download is kept as `.part` and resumed, if the source's MD5 is known. Raises `InputError` if the
    file cannot be fetched, has another MD5 or is no zip; it is then removed.
    """
    if source.url is None:
        raise InputError(f"{source.name} has nothing to download")
    target = folder / source.url.rsplit("/", 1)[-1]
    if _is_whole(target, source):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(target)):
            return target if _is_whole(target, source) else _download_whole(source, target, progress)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{source.url} could not be fetched ({reason}); try again to continue where it stopped, "
            f"or get it by other means and pass `source`"
        ) from error


def _is_whole(target: Path, source: Source) -> bool:
    return target.is_file() and (compute_md5(target) == source.md5 if source.md5 else zipfile.is_zipfile(target))


def _download_whole(source: Source, target: Path, progress: Progress) -> Path:
    assert source.url, "a source that is downloaded has a place"
    part = target.with_name(f"{target.name}.part")
    if not source.md5:
        part.unlink(missing_ok=True)
    _fetch(source.url, part, progress)
    if source.md5 and (md5 := compute_md5(part)) != source.md5:
        part.unlink()
        raise InputError(
            f"{source.url} came with MD5 {md5}, but {source.md5} was published; it was removed. "
            "Try again, or pass a copy you trust with `source`"
        )
    if not zipfile.is_zipfile(part):
        with part.open("rb") as file:
            start = file.read(40)
        part.unlink()
        raise InputError(
            f"{source.url} is no zip but begins with {start!r}; it was removed. Try again, or get it otherwise and "
            "pass `source`"
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
