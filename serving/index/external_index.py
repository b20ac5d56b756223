"""The index of a model in a service outside of the process: found there, or built there once for all processes."""

import hashlib
import logging
import re
from dataclasses import dataclass

import numpy as np
from pydantic import SecretStr

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.index.address import IndexAddress
from fedrec.serving.index.external_search import ExternalSearch, tuner
from fedrec.serving.index.inverted_file import AskAbout, mean_questions
from fedrec.serving.index.vector_index import Index
from fedrec.serving.index.vector_service import IndexAwayError, IndexKey, VectorService

logger = logging.getLogger("fedrec")


def open_service(address: IndexAddress, key: str | None = None) -> VectorService:
    """Connect to a service; `key` is Qdrant's. Raises `InputError` if it is away, or if a package is missing."""
    address.require_packages()
    try:
        return _connect(address, key)
    except IndexAwayError as error:
        raise InputError(str(error)) from error


def _connect(address: IndexAddress, key: str | None) -> VectorService:
    if address.kind == "qdrant":
        from fedrec.serving.index.qdrant_service import QdrantService

        return QdrantService(address, key)
    from fedrec.serving.index.pgvector_service import PgvectorService

    return PgvectorService(address)


@dataclass(frozen=True, eq=False)
class ExternalIndexes:
    """The indexes of models in a service."""

    service: VectorService

    def open(self, recommender: Recommender, ask_about: AskAbout | None = None) -> Index:
        """Find the index of a model, or build it; it is tuned on the questions of `ask_about`.

        Raises `IndexAwayError`, and `InputError` if the service holds another one under its name.
        """
        matrix = np.ascontiguousarray(recommender.items.searched.numpy(), dtype=np.float32)
        key = key_of(recommender, matrix)
        tuning = self.service.find(key)
        if tuning is None:
            tuning = self.service.publish(key, matrix, tuner(matrix, ask_about or mean_questions(matrix)))
            logger.info("index %s of %s items: recall %.4f", key.name, len(matrix), tuning.recall)
        return Index.from_base(matrix, ExternalSearch(self.service, key, matrix, tuning.effort), tuning.recall)

    def close(self) -> None:
        """Close all connections."""
        self.service.close()


def open_indexes(address: IndexAddress | None, key: SecretStr | None) -> ExternalIndexes | None:
    """Connect to the service at an address; None if there is none. Raises `InputError` as `open_service` does."""
    return ExternalIndexes(open_service(address, key.get_secret_value() if key else None)) if address else None


def key_of(recommender: Recommender, matrix: np.ndarray) -> IndexKey:
    """Return which vectors an index of a model holds: those of its version and of its items' vectors (N, W)."""
    name = re.sub(r"[^a-z0-9]+", "_", str(recommender.card["data"]["name"]).lower()).strip("_")[:30]
    identity = f"{recommender.version} {recommender.card['fingerprints']['item_vectors']}"
    return IndexKey(f"fedrec_{name}", hashlib.sha256(identity.encode()).hexdigest()[:12], *matrix.shape)
