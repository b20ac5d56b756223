"""The Hugging Face hub: exported models go there, and `hf://USER/NAME` is opened from there.

The token is that of `hf auth login`, or of the environment variable `HF_TOKEN`.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from fedrec.exports.public_model import Publication

SCHEME = "hf://"
_LOCATION = re.compile(r"hf:/{1,2}(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>.+))?")
"""A model on the hub; `pathlib` leaves one of the two strokes."""


def local_folder(location: str | Path) -> Path:
    """Return the folder of a run; one on the hub is downloaded first. Raises `InputError` as `fetch` does."""
    return fetch(location) if str(location).startswith("hf:/") else Path(location)


def fetch(location: str | Path) -> Path:
    """Download a model, `hf://USER/NAME` or `hf://USER/NAME@REVISION`, and return its folder in the hub's cache.

    Files that are in the cache are not downloaded again; without a network the cache alone is read. Raises `InputError`
    if there is no such model, or if the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    from fedrec.exports.public_model import MODEL_CARD, PUBLIC  # it imports torch, which takes seconds

    if not (match := _LOCATION.fullmatch(str(location))):
        raise InputError(f"{location} is no model on the hub; write {SCHEME}USER/NAME, or {SCHEME}USER/NAME@REVISION")
    with _hub_errors(f"{SCHEME}{match['repo']} cannot be opened"):
        folder = snapshot_download(match["repo"], revision=match["revision"], allow_patterns=[*PUBLIC, MODEL_CARD])
    return Path(folder)


def publish(run: Path, repo: str, publication: "Publication") -> str:
    """Upload the public part of a run and a model card to the model USER/NAME, and return the address of the commit.

    The model is made if it does not exist, for its owner alone unless the publication is public. Raises `InputError`
    if the run cannot be served, or if the hub refuses.
    """
    from huggingface_hub import HfApi

    from fedrec.exports.public_model import export_folder

    with TemporaryDirectory(prefix="fedrec-") as place:
        folder, api = Path(place) / "model", HfApi()
        export_folder(run, folder, replace(publication, repo=repo))
        with _hub_errors(f"{repo} cannot be published"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # the catalogue
            api.create_repo(repo, private=not publication.public, exist_ok=True)
            commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload by fedrec")
        return str(commit.commit_url)


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Raise `InputError` for what the hub, its cache or the network refuse."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{what} ({reason}); check the name, the network, and the token by `hf auth whoami`"
        ) from error
