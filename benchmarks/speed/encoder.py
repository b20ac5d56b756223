"""The cost of embedding a text: processor time on one thread, for short and for long texts."""

import statistics
import time
from typing import Any

from benchmarks.speed.clock import one_thread
from fedrec.data.readers.film_text import add_text
from fedrec.data.synthetic.demo_films import generate
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.environment import environment_info

TEXTS, TURNS = 64, 3
JOINED = (1, 8)
"""Numbers of generated films' descriptions that are joined into one text."""


def measure(name: str) -> dict[str, Any]:
    """Measure milliseconds of processor time per text, by length in tokens. Other processes disturb processor time less
    than elapsed time."""
    encoder = resolve_encoder(name)
    _, items = generate()
    texts = add_text(items)["text"].to_list()
    with one_thread():
        rows = [_measure(encoder, [" ".join(texts[at : at + count]) for at in range(TEXTS)]) for count in JOINED]
    return {"encoder": name, "texts": TEXTS, "threads": 1, "lengths": rows, **environment_info()}


def _measure(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    tokens = encoder.model.preprocess(texts)["attention_mask"].sum(1).float().mean()
    encoder.encode(texts)  # the first pass also sets up the libraries
    seconds = [_time(encoder, texts) for _ in range(TURNS)]
    return {"tokens": round(float(tokens), 1), "milliseconds": round(1000 * statistics.median(seconds) / len(texts), 2)}


def _time(encoder: Encoder, texts: list[str]) -> float:
    started = time.process_time()
    encoder.encode(texts)
    return time.process_time() - started
