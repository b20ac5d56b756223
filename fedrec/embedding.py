"""Embeddings ahead of training: of texts, of pictures, and of vectors that the user brings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.recsys.embeddings import MODALITY, embed_catalogue
from fedrec.recsys.encoders.joined import open_encoder
from fedrec.recsys.encoders.vectors import Brought, bring_vectors
from fedrec.recsys.model.config import ModelConfig


def embed_dataset(
    dataset: Dataset,
    *,
    encoder: str | None = None,
    prompt: str = "",
    vectors: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Embed a dataset's items again, and keep the embeddings in its folder, where training and nodes find them.

        fedrec.embed_dataset(shop, encoder="BAAI/bge-small-en-v1.5,images:sentence-transformers/clip-ViT-B-32")
        fedrec.embed_dataset(shop, vectors="openai.parquet")  # then: fedrec.train(shop, encoder="vectors:openai", …)

    `encoder` and `prompt` are the settings of docs/settings.md. `vectors` is a parquet, CSV or npz file of vectors with
    the items' ids: it is checked and kept as `vectors:NAME`, which is then the default of `encoder`. Returns the
    encoder's name and hash, the width, and what became of the file. Raises `InputError`.
    """
    brought = bring_vectors(Path(vectors), dataset.catalogue, dataset.folder) if vectors else None
    if brought:
        _report(brought)
    name = encoder or (brought.name if brought else ModelConfig.encoder)
    opened = open_encoder(name, prompt, dataset.folder)
    with console.counting("embedding items") as count:
        embeddings = embed_catalogue(dataset.catalogue, opened, None, count if progress else lambda done, total: None)
    embeddings.save(dataset.folder)
    found = {"encoder": opened.name, "sha256": opened.sha256, "width": embeddings.matrix.shape[1]}
    found |= {MODALITY: embeddings.provenance[MODALITY]} if MODALITY in embeddings.provenance else {}
    return found | ({"vectors": asdict(brought)} if brought else {})


def _report(brought: Brought) -> None:
    """Say what of a file of vectors was of no use, and which items it leaves out, each with an example."""
    if brought.unknown:
        console.warn(
            f"vectors of ids that are not in the catalogue: {brought.unknown:,}, such as {brought.unknown_example!r}"
        )
    if brought.missing:
        console.warn(
            f"items without a vector: {brought.missing:,} of {brought.items:,}, such as {brought.missing_example!r}; "
            "they get the mean of the others"
        )
