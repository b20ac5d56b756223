"""Several encoders as one, and the setting that names them: `encoder = a, b, images:c, vectors:d`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import require
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.encoders.images import COLUMN, IMAGES, ImageEncoder
from fedrec.recsys.encoders.text import Encoder, Progress
from fedrec.recsys.encoders.vectors import VECTORS, BroughtVectors


@dataclass(frozen=True)
class AbsentPart:
    """A part of a trained run that gives no text a vector, and is known by the card of the run alone."""

    name: str
    revision: str
    sha256: str
    width: int
    recipe: str = ""


Part = Encoder | ImageEncoder | BroughtVectors | AbsentPart


@dataclass(frozen=True)
class JoinedEncoder:
    """Encoders whose vectors of an item are put one after the other: a unit vector of their widths' sum.

    Each part is a unit vector before, so all weigh the same. A text alone, such as a question, has zeros in the parts
    that read no texts: it is compared by the others.
    """

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The names, with commas between them: the setting `encoder`."""
        return ",".join(part.name for part in self.parts)

    @property
    def revision(self) -> str:
        """The revisions, with commas between them."""
        return ",".join(part.revision for part in self.parts)

    @property
    def sha256(self) -> str:
        """A hash of the parts' hashes, in their order."""
        return sha256("\n".join(part.sha256 for part in self.parts).encode()).hexdigest()

    @property
    def recipe(self) -> str:
        """A hash of the parts' recipes, in their order; empty if none has one."""
        recipes = [part.recipe for part in self.parts]
        return sha256("\n".join(recipes).encode()).hexdigest() if any(recipes) else ""

    @property
    def width(self) -> int:
        """The width E of an embedding: the sum of the parts'."""
        return sum(part.width for part in self.parts)

    @property
    def texts(self) -> list[Encoder]:
        """The parts that read texts."""
        return [part for part in self.parts if isinstance(part, Encoder)]

    @property
    def reads_texts(self) -> bool:
        """True if a part reads texts."""
        return bool(self.texts)

    @property
    def loaded(self) -> bool:
        """True if all parts that read texts are in memory."""
        return all(part.loaded for part in self.texts)

    def load(self) -> None:
        """Load the parts that read texts now, so that the first use does not wait for them."""
        for part in self.texts:
            part.load()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Compute unit vectors of items that have a text alone: (n, E). Raises `InputError` if no part reads texts."""
        return self._join_texts({part.name: part.encode(texts) for part in self.texts}, len(texts))

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """Compute unit vectors of texts to search with: (n, E). Raises `InputError` if no part reads texts."""
        return self._join_texts({part.name: part.encode_queries(texts) for part in self.texts}, len(texts))

    def _join_texts(self, encoded: Mapping[str, Tensor], count: int) -> Tensor:
        if not encoded:
            raise InputError(
                f"encoder {self.name!r} reads no texts; ask by items, or train with a text encoder beside it"
            )
        return _unit([encoded.get(part.name, torch.zeros(count, part.width)) for part in self.parts])

    def embed_items(self, catalogue: Catalogue, progress: Progress, block: int) -> tuple[Tensor, str]:
        """Embed every item: (N, E), and the fingerprints of what is beside the texts."""
        embedded = []
        for place, part in enumerate(self.parts):
            if isinstance(part, AbsentPart):
                raise InputError(f"encoder {part.name!r} is known by its run alone; open it by its name")
            part_progress = partial(_progress_of, progress, place, len(self.parts))
            embedded.append(part.embed_items(catalogue, part_progress, block))
        return _unit([matrix for matrix, _ in embedded]), "; ".join(beside for _, beside in embedded if beside)


def _progress_of(progress: Progress, place: int, parts: int, done: int, total: int) -> None:
    """Report a part's progress as a share of all parts'."""
    progress(place * total + done, parts * total)


def _unit(parts: Sequence[Tensor]) -> Tensor:
    return F.normalize(torch.cat(list(parts), dim=-1), dim=-1)


ItemEncoder = Encoder | JoinedEncoder
"""What gives items their embeddings: one text encoder, or several parts."""


def open_encoder(names: str, prompt: str = "", folder: Path | None = None) -> ItemEncoder:
    """Open what the setting `encoder` names, with commas between them; `prompt` stands before every text.

    Vectors that were brought are in a prepared `folder`. Raises `InputError` if a part cannot be found.
    """
    parts = tuple(_open_part(name, prompt, folder) for name in split_names(names))
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Encoder) else JoinedEncoder(parts)


def split_names(names: str) -> list[str]:
    """Split the setting `encoder` at its commas. Raises `InputError` if a name is empty, or there twice."""
    found = [name.strip() for name in names.split(",")]
    if not all(found):
        raise InputError(f"setting encoder = {names!r}: a name is empty; give names with commas between them")
    if repeated := [name for name in found if found.count(name) > 1]:
        raise InputError(f"setting encoder = {names!r}: {repeated[0]!r} is there twice; name it once")
    return found


def _open_part(name: str, prompt: str, folder: Path | None) -> Encoder | ImageEncoder | BroughtVectors:
    if name.startswith(VECTORS):
        return BroughtVectors.find(name, folder)
    if name.startswith(IMAGES):
        model, _, column = name.removeprefix(IMAGES).partition("@")
        return ImageEncoder(name, resolve_encoder(model), column or COLUMN)
    return _text_encoder(name, prompt)


def _text_encoder(name: str, prompt: str) -> Encoder:
    encoder = resolve_encoder(name)
    return replace(encoder, prompt=prompt) if prompt else encoder


def open_user_encoder(name: str, names: str) -> Encoder:
    """Open the user tower's encoder: the setting `user_encoder`, or else the first text encoder of `encoder`.

    Raises `InputError` if there is none.
    """
    texts = [text for text in split_names(names) if not text.startswith((VECTORS, IMAGES))]
    if not name and not texts:
        raise InputError(
            f"setting user_encoder is empty, and encoder = {names!r} has no text encoder; name a model in it"
        )
    return resolve_encoder(name or texts[0])


def describe_encoder(encoder: ItemEncoder) -> dict[str, Any]:
    """Return what a card says of an encoder: its name and hashes, and those of its parts if there are several."""
    if isinstance(encoder, Encoder):
        return _identity(encoder)
    parts = [_identity(part) | {"width": part.width} for part in encoder.parts]
    return _identity(encoder) | {"parts": parts}


def _identity(part: Part | JoinedEncoder) -> dict[str, Any]:
    identity = {"name": part.name, "revision": part.revision, "sha256": part.sha256}
    return identity | ({"recipe": part.recipe} if part.recipe else {})


def same_encoder(encoder: Part | JoinedEncoder, described: Mapping[str, Any]) -> bool:
    """Tell whether an encoder is the one that a card describes. Cards of earlier versions have no recipe."""
    return described["sha256"] == encoder.sha256 and described.get("recipe", encoder.recipe) == encoder.recipe


def encoder_of_card(described: Mapping[str, Any], prompt: str = "") -> ItemEncoder:
    """Open the encoder that a card describes. Only parts that read texts are looked for.

    Raises `InputError` if one cannot be found, or is not the one of the card.
    """
    listed = described.get("parts", [described])
    parts = tuple(_part_of_card(part, prompt) for part in (listed if isinstance(listed, list) else [listed]))
    encoder = parts[0] if "parts" not in described and isinstance(parts[0], Encoder) else JoinedEncoder(parts)
    if not same_encoder(encoder, described):
        raise InputError(
            f"encoder {encoder.name} has sha256 {encoder.sha256}, but the run was trained on {described['sha256']}"
            if described["sha256"] != encoder.sha256
            else f"encoder {encoder.name} has other files beside its weights than the run was trained on; restore them"
        )
    return encoder


_CARD = Path("card.json"), "copy the run again"
"""The file that is named if a part of an encoder is described wrongly, and the remedy."""


def _part_of_card(described: Mapping[str, Any], prompt: str) -> Part:
    require({"encoder": described}, {"encoder.name": str, "encoder.sha256": str}, *_CARD)
    name = described["name"]
    if name.startswith((VECTORS, IMAGES)):
        require({"encoder": described}, {"encoder.revision": str, "encoder.width": int}, *_CARD)
        known = {key: described[key] for key in ("name", "revision", "sha256", "width")}
        return AbsentPart(**known, recipe=described.get("recipe", ""))
    return _text_encoder(name, prompt)
