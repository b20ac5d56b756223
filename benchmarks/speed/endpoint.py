"""The endpoint: its latency beyond the model's own time, its throughput, and reloads under load.

One server with one worker, and the callers on the same machine. Compared cases take turns within one run.
"""

import json
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

import numpy as np
import psutil

from benchmarks.speed import large_index
from benchmarks.speed.clock import alternate, milliseconds, ratio, time_calls
from benchmarks.speed.large_index import exact_index
from benchmarks.speed.served import Caller, Served, ask_all, ask_at_rate, ask_meanwhile, serving
from fedrec.recsys.environment import environment_info
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.index.inverted_file import RECALL_AT
from fedrec.serving.schema import Question

K, HISTORY = 10, 50  # items per answer; events per history
QUESTIONS = 200  # of each kind, about random items of the catalogue
TURNS = 5
REST = 0.01  # seconds before each question of an occasional caller
CALLERS, REPEATS = 16, 4  # concurrent callers; how often they ask all questions in a turn
LOAD, SECONDS = 0.7, 60.0  # share of the measured throughput; duration
RELOADS, RELOAD_CALLERS = 20, 4  # reloads; callers meanwhile
FIXED, RECOMMEND = "/healthz", "/v1/recommend"
"""A route with a fixed body, and the route that is measured."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """A run, and the histories of the questions."""

    run: Path
    recommender: Recommender
    rows: np.ndarray  # histories, (Q, L)

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
        vectors = self.recommender.user_vectors(self.recommender.items.read, list(self.rows))
        return [Question(vector=vector, k=K) for vector in vectors.tolist()]


def bodies_of(questions: Sequence[Question]) -> list[bytes]:
    """Encode questions as request bodies."""
    return [q.model_dump_json(exclude_none=True, exclude_defaults=True).encode() for q in questions]


def measure(run: Path, say: Say) -> dict[str, Any]:
    """Measure everything. Raises `InputError` if `run` cannot be served."""
    bench = Bench.of(run)
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        folder = Path(name)
        say("starting, in turns with the import of torch and transformers")
        results: dict[str, Any] = {"start": measure_start(run, folder)}
        with warm_server(run, folder) as server:
            say("one caller")
            with server.caller() as caller:
                results |= measure_latency(caller, bench)
            say(f"{CALLERS} callers")
            results["throughput"] = measure_throughput(server, bench)
            say(f"{LOAD:.0%} of that for {SECONDS:g} seconds")
            results["sustained"] = measure_sustained(
                server, bench, results["throughput"]["answers_per_second"]["together"]
            )
            results["memory_mib"] = round(psutil.Process(server.process.pid).memory_info().rss / 2**20)
        say(f"{RELOADS} reloads under load")
        results["reload"] = measure_reloads(bench, folder)
    say(f"an index of {large_index.ITEMS:,} items")
    results["index"] = large_index.measure(large_index.ITEMS)
    return results | {"bars": compare_with_bars(results), "run": describe_run(bench), **environment_info()}


def compare_with_bars(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the figures with the bars that were set before the endpoint was built."""
    sustained, reload = results["sustained"], results["reload"]
    rows = [
        ("vector: p50 / (fixed body + bare search)", results["vector"]["ratio"], "<=", 1.3),
        ("history: p50 / (fixed body + bare encode and search)", results["history"]["ratio"], "<=", 1.3),
        (f"{LOAD:.0%} of the most for {SECONDS:g} s: errors", sustained["errors"], "<=", 0),
        (f"{LOAD:.0%} of the most for {SECONDS:g} s: p99 / p50", sustained["p99/p50"], "<=", 5),
        (f"history: {CALLERS} callers / one after the other", results["throughput"]["ratio"], ">=", 2),
        (f"{RELOADS} reloads under load: errors and mixed answers", reload["wrong"], "<=", 0),
        (f"{large_index.ITEMS:,} items: recall@{RECALL_AT}", results["index"]["recall"], ">=", 0.98),
        (f"{large_index.ITEMS:,} items: time / exact search's", results["index"]["ratio"], "<=", 0.2),
        ("start to ready / import of torch and transformers", results["start"]["ratio"], "<=", 1.5),
    ]
    return [
        {"what": what, "found": figure, "bar": f"{sign} {bar}", "met": figure <= bar if sign == "<=" else figure >= bar}
        for what, figure, sign, bar in rows
    ]


def describe_run(bench: Bench) -> dict[str, Any]:
    """Identify the run: version, dataset, method, size and model; `rank` is the closed form's share of the width."""
    recommender, card = bench.recommender, bench.recommender.card
    items, width = recommender.items.searched.shape
    return {
        "version": recommender.version,
        "data": card["data"]["name"],
        "method": card["config"]["method"],
        "items": items,
        "width": width,
        "rank": width - recommender.tower_width,
        "model": card["config"]["model"],
    }


@contextmanager
def warm_server(run: Path, folder: Path, **environment: str) -> Iterator[Served]:
    """Start a server and wait until it has loaded everything, including the text encoder."""
    with serving(run, folder / "log", environment) as server:
        with server.caller() as caller:
            caller.ask_json(RECOMMEND, bodies_of([Question(query="ready?")])[0])
        yield server


def measure_start(run: Path, folder: Path) -> dict[str, Any]:
    """Measure the seconds from the command to the first 200 of /readyz, and those of importing the two libraries."""
    ready, imports = [], []
    for _ in range(TURNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
        imports.append(time.perf_counter() - started)
        started = time.perf_counter()
        with serving(run, folder / "log"):
            ready.append(time.perf_counter() - started)
    return {  # without the first of each, which reads from a cold disk
        "ready_seconds": round(statistics.median(ready[1:]), 3),
        "import_seconds": round(statistics.median(imports[1:]), 3),
        "ratio": ratio(ready[1:], imports[1:]),
    }


def measure_latency(caller: Caller, bench: Bench) -> dict[str, Any]:
    """Time one caller, one question at a time, in turns with a fixed body and with the bare computation.

    Idle cores wake slowly and worker threads spin for milliseconds, so back-to-back timings disturb each other: each
    case is asked after a rest, in random order. `without_pause` holds the figures of a caller who asks without rests.
    """
    recommender = bench.recommender
    items = recommender.items
    vectors = recommender.user_vectors(items.read, list(bench.rows)).numpy()
    index = exact_index(items.searched.numpy())

    def search(number: int) -> None:
        index.search(vectors[number : number + 1], K)

    def encode_and_search(number: int) -> None:
        vector = recommender.user_vectors(items.read, [bench.rows[number]]).numpy()
        index.search(vector, K)

    return {
        "vector": _with_and_without_pause(caller, bodies_of(bench.vectors()), search),
        "history": _with_and_without_pause(caller, bodies_of(bench.histories()), encode_and_search),
    }


def _with_and_without_pause(caller: Caller, bodies: Sequence[bytes], bare: Callable[[int], object]) -> dict[str, Any]:
    cases = {
        "p50": lambda number: caller.ask_json(RECOMMEND, bodies[number]),
        "fixed": lambda _: caller.ask_json(FIXED),
        "bare": bare,
    }
    without = compare_medians(time_calls(cases, QUESTIONS, QUESTIONS, TURNS))
    return compare_medians(time_calls(cases, QUESTIONS, 1, TURNS, REST)) | {"without_pause": without}


def compare_medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Compute the median of each case, and the answer's as a multiple of fixed body and bare computation together."""
    p50 = {case: statistics.median(times) for case, times in seconds.items()}
    share = round(p50["p50"] / (p50["fixed"] + p50["bare"]), 3)
    return {f"{case}_ms": milliseconds(median) for case, median in p50.items()} | {"ratio": share}


def measure_throughput(server: Served, bench: Bench) -> dict[str, Any]:
    """Ask the same questions one after the other, and with many callers at once."""
    bodies = REPEATS * bodies_of(bench.histories())
    seconds = alternate(
        {
            "one": lambda: ask_all(server, 1, bodies, RECOMMEND),
            "together": lambda: ask_all(server, CALLERS, bodies, RECOMMEND),
        },
        TURNS,
    )
    return {
        "callers": CALLERS,
        "answers_per_second": {name: round(len(bodies) / statistics.median(took), 1) for name, took in seconds.items()},
        "ratio": ratio(seconds["one"], seconds["together"]),
    }


def measure_sustained(server: Served, bench: Bench, most: float) -> dict[str, Any]:
    """Ask at a constant rate; each answer is timed from the scheduled time of its question."""
    rate = LOAD * most
    took, errors = ask_at_rate(server, CALLERS, bodies_of(bench.histories()), RECOMMEND, rate, SECONDS)
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


def measure_reloads(bench: Bench, folder: Path) -> dict[str, Any]:
    """Reload two versions in turn while questions are asked; each answer must be that of the version it names."""
    key, link = secrets.token_hex(16), folder / "live"
    versions = {"one": bench.recommender, "other": rolled_copy(bench.recommender)}
    for name, recommender in versions.items():
        recommender.save(folder / name)
    relink(link, folder / "one")
    questions = [*bench.histories()[:20], *bench.vectors()[:20]]
    bodies = bodies_of(questions)
    expected = {
        recommender.version: [
            _scores(Engine.from_recommender(recommender).recommend(q).model_dump()) for q in questions
        ]
        for recommender in versions.values()
    }
    counts: dict[str, int] = dict.fromkeys(expected, 0)

    def is_right(caller: Caller, number: int) -> bool:
        place = number % len(bodies)
        status, body = caller.ask(RECOMMEND, bodies[place])
        if status != HTTPStatus.OK:
            return False
        answer = json.loads(body)
        counts[answer["model_version"]] += 1
        return bool(np.allclose(_scores(answer), expected[answer["model_version"]][place], atol=1e-4))

    with (
        warm_server(link, folder, FEDREC_ADMIN_KEYS=json.dumps([key])) as server,
        server.caller({"x-api-key": key}) as admin,
    ):

        def reload() -> None:
            for turn in range(RELOADS):
                relink(link, folder / ("one" if turn % 2 else "other"))
                admin.ask_json("/v1/models:reload", method="POST")

        answers, wrong = ask_meanwhile(server, RELOAD_CALLERS, is_right, reload)
    return {"reloads": RELOADS, "answers": answers, "by_version": list(counts.values()), "wrong": wrong}


def rolled_copy(recommender: Recommender) -> Recommender:
    """Copy a recommender with every item's vector replaced by its neighbour's, so that its answers differ."""
    vectors = recommender.vectors.roll(1, dims=0)
    rolled = Recommender.of_run(
        recommender.catalogue, vectors, recommender.adapter, recommender.card, recommender.closed_form
    )
    return replace(rolled, card=rolled.card | {"model_version": f"{recommender.version}-other"})


def relink(link: Path, folder: Path) -> None:
    """Point `link` to `folder` atomically."""
    fresh = link.with_name(f"{link.name}-next")
    fresh.symlink_to(folder)
    fresh.replace(link)


def _scores(answer: dict[str, Any]) -> list[float]:
    return [item["score"] for item in answer["items"]]
