"""The approximate index against exact search, on a made-up catalogue of clustered vectors."""

import statistics
import time
from typing import Any

import faiss
import numpy as np

from benchmarks.speed.clock import alternate, milliseconds, ratio
from fedrec.serving.index.inverted_file import RECALL_AT, recall_per_question
from fedrec.serving.index.vector_index import Index

ITEMS, WIDTH = 100_000, 384
KIND, FAMILIES = 50, 50  # items of a cluster, on average, and clusters of these clusters
QUESTIONS, TURNS = 200, 5  # questions of each of the two sorts; turns


def measure(count: int) -> dict[str, Any]:
    """Measure recall and time per question over `count` items, one new question at a time, in one thread."""
    items, questions = clustered_vectors(np.random.default_rng(0), count)
    started = time.perf_counter()
    index = Index.build(items)
    built = time.perf_counter() - started
    exact = exact_index(items)
    _, nearest = exact.search(questions, RECALL_AT)
    ranked = [[row for row, _ in index.search(question, RECALL_AT)] for question in questions]
    seconds = alternate(
        {
            "exact": lambda: [exact.search(question[None], RECALL_AT) for question in questions],
            "index": lambda: [index.search(question, RECALL_AT) for question in questions],
        },
        TURNS,
    )
    each = {name: statistics.median(turns) / len(questions) for name, turns in seconds.items()}
    return {
        "items": count,
        "width": WIDTH,
        "kinds": count // KIND,
        "families": FAMILIES,
        "cells_searched": index.probes,
        "recall": round(float(recall_per_question(ranked, nearest).mean()), 4),
        "index_ms": milliseconds(each["index"]),
        "exact_ms": milliseconds(each["exact"]),
        "ratio": ratio(seconds["index"], seconds["exact"]),
        "build_seconds": round(built, 1),
    }


def clustered_vectors(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items (N, E), N = `count`, and questions (2Q, E): means of ten items of one kind, and single items."""
    sizes = FAMILIES, count // KIND, count
    families, kinds, items = (_unit(rng.standard_normal((size, WIDTH), dtype=np.float32)) for size in sizes)
    kind_of = rng.integers(len(kinds), size=count)
    kinds = _unit(families[rng.integers(FAMILIES, size=len(kinds))] + kinds)
    items = _unit(kinds[kind_of] + 0.8 * items)
    asked = (np.flatnonzero(kind_of == kind) for kind in kind_of[rng.choice(count, QUESTIONS, replace=False)])
    tastes = [items[rng.choice(rows, min(10, len(rows)), replace=False)].mean(0) for rows in asked]
    return items, _unit(np.stack([*tastes, *items[rng.choice(count, QUESTIONS, replace=False)]]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact_index(vectors: np.ndarray) -> faiss.IndexFlatIP:
    """Build FAISS's own exact search, without any code of ours around it."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index
