"""Fetching a published file: resumable, checked, and never half in place."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import httpx

from fedrec.data.errors import InputError
from fedrec.data.progress import Progress
from fedrec.data.readers.raw import MOST_BYTES
from fedrec.data.readers.sources import Source
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import regular


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(source: Source, folder: Path, progress: Progress) -> Path:
    """The source's zip in `folder`, fetched unless it is there. Raises `InputError` where it cannot be had whole.

    An interrupted download is kept as `.part` and continued, if an MD5 can tell whether the whole is of one piece; what
    comes with another MD5, or is no zip, is refused and removed.
    """
    if source.url is None:
        raise InputError(f"{source.name} has nothing to download")
    target = folder / source.url.rsplit("/", 1)[-1]
    if _is_whole(target, source):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(target)):
            return target if _is_whole(target, source) else _downloaded(source, target, progress)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{source.url} could not be fetched ({reason}); try again to continue where it stopped, "
            f"or get it by other means and pass --source PATH"
        ) from error


def _is_whole(target: Path, source: Source) -> bool:
    return target.is_file() and (md5_of(target) == source.md5 if source.md5 else zipfile.is_zipfile(target))


def _downloaded(source: Source, target: Path, progress: Progress) -> Path:
    assert source.url, "a source that is downloaded has a place"
    part = target.with_name(f"{target.name}.part")
    if not source.md5:
        part.unlink(missing_ok=True)
    _fetch(source.url, part, progress)
    if source.md5 and (found := md5_of(part)) != source.md5:
        part.unlink()
        raise InputError(
            f"{source.url} came with MD5 {found} where {source.md5} was published; it was removed. "
            "Try again, or pass a copy you trust with --source PATH"
        )
    if not zipfile.is_zipfile(part):
        with part.open("rb") as file:
            begins = file.read(40)
        part.unlink()
        raise InputError(
            f"{source.url} is no zip but begins with {begins!r}; it was removed. Try again, or get it otherwise and "
            "pass --source PATH"
        )
    shutil.move(part, target)
    return target


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append what is missing. Raises `OSError` for more than any dataset has, before it fills the disk."""
    have = regular(part, "remove it").stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is whole already: its MD5 decides
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0  # the server ignored the range and starts over
        length = response.headers.get("content-length")
        total = have + int(length) if length else None
        _check_size(total or 0)
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_bytes():
                _check_size(have + len(chunk))
                have += file.write(chunk)
                progress(have, total)


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise OSError(f"it has more than the {MOST_BYTES:,} bytes of any dataset here")
