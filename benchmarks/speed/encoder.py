"""What it costs to embed a text: processor time on one thread, for short texts and for long ones."""

import statistics
import time
from typing import Any

import torch

from fedrec.data.readers.film_text import add_text
from fedrec.data.synthetic.demo_films import generate
from fedrec.recsys.embeddings import Encoder, resolve
from fedrec.recsys.environment import environment_info

TEXTS, TURNS = 64, 3
JOINED = (1, 8)
"""Descriptions of generated films that make one text."""


def measure(name: str) -> dict[str, Any]:
    """Milliseconds of processor time a text, by length in tokens: a machine that others use makes it longer by less
    than the time that passes."""
    encoder, threads = resolve(name), torch.get_num_threads()
    _, items = generate()
    texts = add_text(items)["text"].to_list()
    torch.set_num_threads(1)
    try:
        rows = [_measured(encoder, [" ".join(texts[at : at + count]) for at in range(TEXTS)]) for count in JOINED]
    finally:
        torch.set_num_threads(threads)
    return {"encoder": name, "texts": TEXTS, "threads": 1, "lengths": rows, **environment_info()}


def _measured(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    tokens = encoder.model.preprocess(texts)["attention_mask"].sum(1).float().mean()
    encoder.encode(texts)  # the first pass also sets up the libraries
    seconds = [_seconds(encoder, texts) for _ in range(TURNS)]
    return {"tokens": round(float(tokens), 1), "milliseconds": round(1000 * statistics.median(seconds) / len(texts), 2)}


def _seconds(encoder: Encoder, texts: list[str]) -> float:
    started = time.process_time()
    encoder.encode(texts)
    return time.process_time() - started
