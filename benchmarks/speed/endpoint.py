"""What the endpoint adds to the model's own time, what it bears, and whether anyone notices a reload.

One server of one worker, and the callers on the same machine. Every figure is of one run: what is compared takes turns.
"""

import json
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil

from benchmarks.speed.clock import alternate, ratio
from benchmarks.speed.served import Caller, Served, at_rate, serving, together, while_asking
from fedrec.federation.training_run import environment_info
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.index.inverted_file import RECALL_AT, recall_per_question
from fedrec.serving.index.vector_index import Index
from fedrec.serving.schema import Question

K, HISTORY = 10, 50  # items answered; events of a history
QUESTIONS = 200  # of each kind, of random items of the catalogue
TURNS = 5
REST = 0.01  # seconds before each question of a caller who asks now and then
CALLERS, OVER = 16, 4  # callers at once, and how often they ask all questions in a turn
LOAD, SECONDS = 0.7, 60.0  # of the most that was answered; for so long
RELOADS, ASKING = 20, 4  # reloads, and callers meanwhile
ITEMS, WIDTH, KINDS, FAMILIES = 100_000, 384, 2_000, 50  # of the large index: items of so many kinds, those of families
FIXED, RECOMMEND = "/healthz", "/v1/recommend"
"""A route that answers a fixed body, and the one that is measured."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """A run, and what is asked of it."""

    run: Path
    recommender: Recommender
    rows: np.ndarray  # (Q, L) the histories

    @classmethod
    def of(cls, run: Path, seed: int = 0) -> "Bench":
        recommender = Recommender.load(run)
        items, rng = len(recommender.catalogue), np.random.default_rng(seed)
        rows = np.stack([rng.choice(items, min(HISTORY, items - K), replace=False) for _ in range(QUESTIONS)])
        return cls(run, recommender, rows)

    def histories(self) -> list[Question]:
        ids = self.recommender.catalogue.ids
        return [Question(history=[ids[row] for row in rows], k=K) for rows in self.rows]

    def vectors(self) -> list[Question]:
        vectors = self.recommender.user_vectors(self.recommender.vectors, list(self.rows))
        return [Question(vector=vector, k=K) for vector in vectors.tolist()]


def bodies_of(questions: Sequence[Question]) -> list[bytes]:
    """The questions as they are sent."""
    return [q.model_dump_json(exclude_none=True, exclude_defaults=True).encode() for q in questions]


def measure(run: Path, say: Say) -> dict[str, Any]:
    """All figures. Raises `InputError` where `run` cannot be served."""
    bench = Bench.of(run)
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        folder = Path(name)
        say("starting, in turns with the import of torch and transformers")
        found: dict[str, Any] = {"start": starts(run, folder)}
        with served(run, folder) as server:
            say("one caller")
            with server.caller() as caller:
                found |= latencies(caller, bench)
            say(f"{CALLERS} callers")
            found["throughput"] = throughput(server, bench)
            say(f"{LOAD:.0%} of that for {SECONDS:g} seconds")
            found["sustained"] = sustained(server, bench, found["throughput"]["answers_per_second"]["together"])
            found["memory_mib"] = round(psutil.Process(server.process.pid).memory_info().rss / 2**20)
        say(f"{RELOADS} reloads under load")
        found["reload"] = reloads(bench, folder)
    say(f"an index of {ITEMS:,} items")
    found["index"] = large_index()
    return found | {"bars": bars(found), "run": told(bench), **environment_info()}


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found beside what was set as the least, or the most, before it was built."""
    sustained, reload = found["sustained"], found["reload"]
    rows = [
        ("vector: p50 / (fixed body + bare search)", found["vector"]["ratio"], "<=", 1.3),
        ("history: p50 / (fixed body + bare encode and search)", found["history"]["ratio"], "<=", 1.3),
        (f"{LOAD:.0%} of the most for {SECONDS:g} s: errors", sustained["errors"], "<=", 0),
        (f"{LOAD:.0%} of the most for {SECONDS:g} s: p99 / p50", sustained["p99/p50"], "<=", 5),
        (f"history: {CALLERS} callers / one after the other", found["throughput"]["ratio"], ">=", 2),
        (f"{RELOADS} reloads under load: errors and mixed answers", reload["wrong"], "<=", 0),
        (f"{ITEMS:,} items: recall@{RECALL_AT}", found["index"]["recall"], ">=", 0.98),
        (f"{ITEMS:,} items: time / exact search's", found["index"]["ratio"], "<=", 0.2),
        ("start to ready / import of torch and transformers", found["start"]["ratio"], "<=", 1.5),
    ]
    return [
        {"what": what, "found": figure, "bar": f"{sign} {bar}", "met": figure <= bar if sign == "<=" else figure >= bar}
        for what, figure, sign, bar in rows
    ]


def told(bench: Bench) -> dict[str, Any]:
    """Which run it was."""
    card = bench.recommender.card
    items, width = bench.recommender.vectors.shape
    return {"version": bench.recommender.version, "data": card["data"]["name"], "items": items, "width": width} | {
        "model": card["config"]["model"]
    }


@contextmanager
def served(run: Path, folder: Path, **environment: str) -> Iterator[Served]:
    """A server that has loaded all, also what it loads after it is ready."""
    with serving(run, folder / "log", environment) as server:
        with server.caller() as caller:
            caller.answered(RECOMMEND, bodies_of([Question(query="ready?")])[0])
        yield server


def starts(run: Path, folder: Path) -> dict[str, Any]:
    """Seconds from the command to the first 200 of /readyz, and of a Python that only imports the two libraries."""
    ready, imports = [], []
    for _ in range(TURNS + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
        imports.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with serving(run, folder / "log"):
            ready.append(time.perf_counter() - begun)
    return {  # the first of each reads from a cold disk
        "ready_seconds": round(statistics.median(ready[1:]), 3),
        "import_seconds": round(statistics.median(imports[1:]), 3),
        "ratio": ratio(ready[1:], imports[1:]),
    }


def latencies(caller: Caller, bench: Bench) -> dict[str, Any]:
    """One caller, one question at a time; in turns with what there is no doing without.

    Threads that have computed stay awake for milliseconds, and take the cores from whatever is timed next; and how soon
    a core wakes depends on how long it slept. So each is asked after a rest that lets all of them sleep, and who is
    next is drawn. Beside it stands what a caller finds who asks all questions without a pause.
    """
    recommender = bench.recommender
    vectors = recommender.user_vectors(recommender.vectors, list(bench.rows)).numpy()
    bodies = {"vector": bodies_of(bench.vectors()), "history": bodies_of(bench.histories())}
    index = _bare(recommender.vectors.numpy())

    def search(number: int) -> None:
        index.search(vectors[number : number + 1], K)

    def encode_and_search(number: int) -> None:
        vector = recommender.user_vectors(recommender.vectors, [bench.rows[number]]).numpy()
        index.search(vector, K)

    def mode(name: str, bare: Callable[[int], object]) -> dict[str, Any]:
        cases = {
            "p50": lambda number: caller.answered(RECOMMEND, bodies[name][number]),
            "fixed": lambda _: caller.answered(FIXED),
            "bare": bare,
        }
        return _compared(_in_turns(cases, 1, REST)) | {"without_pause": _compared(_in_turns(cases, QUESTIONS, 0))}

    return {"vector": mode("vector", search), "history": mode("history", encode_and_search)}


def _compared(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each case, and how many times what there is no doing without an answer takes."""
    p50 = {case: statistics.median(took) for case, took in seconds.items()}
    share = round(p50["p50"] / (p50["fixed"] + p50["bare"]), 3)
    return {f"{case}_ms": milliseconds(took) for case, took in p50.items()} | {"ratio": share}


def _in_turns(cases: Mapping[str, Callable[[int], object]], turn: int, rest: float) -> dict[str, list[float]]:
    """The seconds of each case for all questions, `TURNS` times: so many questions, then another case has its turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    rng = random.Random(0)
    for again in range(TURNS + 1):
        for first in range(0, QUESTIONS, turn):
            for name in rng.sample(list(cases), len(cases)):
                for number in range(first, min(first + turn, QUESTIONS)):
                    time.sleep(rest)
                    begun = time.perf_counter()
                    cases[name](number)
                    if again:
                        seconds[name].append(time.perf_counter() - begun)
    return seconds


def throughput(server: Served, bench: Bench) -> dict[str, Any]:
    """The same questions one after the other, and by many callers at once."""
    bodies = OVER * bodies_of(bench.histories())
    seconds = alternate(
        {
            "one": lambda: together(server, 1, bodies, RECOMMEND),
            "together": lambda: together(server, CALLERS, bodies, RECOMMEND),
        },
        TURNS,
    )
    return {
        "callers": CALLERS,
        "answers_per_second": {name: round(len(bodies) / statistics.median(took), 1) for name, took in seconds.items()},
        "ratio": ratio(seconds["one"], seconds["together"]),
    }


def sustained(server: Served, bench: Bench, most: float) -> dict[str, Any]:
    """A steady load for a while; each answer is timed from when its question was due."""
    rate = LOAD * most
    took, errors = at_rate(server, CALLERS, bodies_of(bench.histories()), RECOMMEND, rate, SECONDS)
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "seconds": SECONDS,
        "asked_per_second": round(rate, 1),
        "answers": len(took),
        "errors": errors,
        "p50_ms": milliseconds(p50),
        "p99_ms": milliseconds(p99),
        "p99/p50": round(float(p99 / p50), 2),
    }


def reloads(bench: Bench, folder: Path) -> dict[str, Any]:
    """Two versions in turn in one place, while questions are asked whose answers by either are known."""
    key, link = secrets.token_hex(16), folder / "live"
    versions = {"one": bench.recommender, "other": another(bench.recommender)}
    for name, recommender in versions.items():
        recommender.save(folder / name)
    put(link, folder / "one")
    asked = [*bench.histories()[:20], *bench.vectors()[:20]]
    bodies = bodies_of(asked)
    expected = {
        recommender.version: [_scores(Engine.from_recommender(recommender).recommend(q).model_dump()) for q in asked]
        for recommender in versions.values()
    }
    seen: dict[str, int] = dict.fromkeys(expected, 0)

    def right(caller: Caller, number: int) -> bool:
        place = number % len(bodies)
        status, body = caller.ask(RECOMMEND, bodies[place])
        if status != HTTPStatus.OK:
            return False
        answer = json.loads(body)
        seen[answer["model_version"]] += 1
        return bool(np.allclose(_scores(answer), expected[answer["model_version"]][place], atol=1e-4))

    with (
        served(link, folder, FEDREC_ADMIN_KEYS=json.dumps([key])) as server,
        server.caller({"x-api-key": key}) as admin,
    ):

        def reload() -> None:
            for turn in range(RELOADS):
                put(link, folder / ("one" if turn % 2 else "other"))
                admin.answered("/v1/models:reload", method="POST")

        answers, wrong = while_asking(server, ASKING, right, reload)
    return {"reloads": RELOADS, "answers": answers, "by_version": list(seen.values()), "wrong": wrong}


def another(recommender: Recommender) -> Recommender:
    """One that answers otherwise: every item has its neighbour's vector."""
    vectors = recommender.vectors.roll(1, dims=0)
    prints = recommender.card["fingerprints"] | {"item_vectors": fingerprint({"vectors": vectors})}
    card = recommender.card | {"model_version": f"{recommender.version}-other", "fingerprints": prints}
    return replace(recommender, vectors=vectors, card=card)


def put(link: Path, folder: Path) -> None:
    """What `link` names is `folder` from now on, in one step."""
    fresh = link.with_name(f"{link.name}-next")
    fresh.symlink_to(folder)
    fresh.replace(link)


def _scores(answer: dict[str, Any]) -> list[float]:
    return [item["score"] for item in answer["items"]]


def large_index() -> dict[str, Any]:
    """An inverted file against exact search, one new question at a time, in one thread."""
    rng = np.random.default_rng(0)
    families, kinds, items = (_unit(rng.standard_normal((count, WIDTH))) for count in (FAMILIES, KINDS, ITEMS))
    of = rng.integers(KINDS, size=ITEMS)
    kinds = _unit(families[rng.integers(FAMILIES, size=KINDS)] + kinds)
    items = _unit(kinds[of] + 0.8 * items)
    tastes = [items[rng.choice(np.flatnonzero(of == kind), 10)].mean(0) for kind in range(QUESTIONS)]
    asked = _unit(np.stack([*tastes, *items[rng.choice(ITEMS, QUESTIONS, replace=False)]]))
    begun = time.perf_counter()
    index = Index.build(items)
    built = time.perf_counter() - begun
    bare = _bare(items)
    _, nearest = bare.search(asked, RECALL_AT)
    found = [[row for row, _ in index.search(question, RECALL_AT)] for question in asked]
    seconds = alternate(
        {
            "exact": lambda: [bare.search(question[None], RECALL_AT) for question in asked],
            "index": lambda: [index.search(question, RECALL_AT) for question in asked],
        },
        TURNS,
    )
    each = {name: statistics.median(took) / len(asked) for name, took in seconds.items()}
    return {
        "items": ITEMS,
        "width": WIDTH,
        "kinds": KINDS,
        "families": FAMILIES,
        "cells_searched": index.probes,
        "recall": round(float(recall_per_question(found, nearest).mean()), 4),
        "index_ms": milliseconds(each["index"]),
        "exact_ms": milliseconds(each["exact"]),
        "ratio": ratio(seconds["index"], seconds["exact"]),
        "build_seconds": round(built, 1),
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _bare(vectors: np.ndarray) -> faiss.IndexFlatIP:
    """FAISS's own exact search, with nothing of ours around it."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def milliseconds(seconds: float) -> float:
    return round(float(seconds) * 1000, 3)
