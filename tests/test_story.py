"""One story, by the commands a user types: raw file → prepared → rounds → artifact → index → HTTP answer."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import polars as pl

from tests.support.toy_world import SMALL, toy_interactions, toy_items

GENRES = ["unknown", "Cooking", "Space"]


def raw_zip(path: Path) -> Path:
    """The toy world in the layout of GroupLens's ml-100k.zip."""
    number = {item_id: str(row + 1) for row, item_id in enumerate(toy_items()["item_id"])}
    events = toy_interactions().sort("timestamp", "user_id")
    ratings = "".join(f"{u[-2:]}\t{number[i]}\t4\t{t}\n" for u, i, t in events.iter_rows())
    films = "".join(
        f"{number[i]}|{title} ({year})|01-Jan-1995||http://x|{'|'.join(str(int(g == genre)) for g in GENRES)}\n"
        for i, title, year, genre, _ in toy_items().iter_rows()
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", ratings)
        archive.writestr("ml-100k/u.item", films.encode("latin-1"))
        archive.writestr("ml-100k/u.genre", "".join(f"{genre}|{n}\n" for n, genre in enumerate(GENRES)))
    return path


def fedrec(*words: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "fedrec", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_a_raw_file_to_an_answer_over_http(tmp_path: Path) -> None:
    source = raw_zip(tmp_path / "ml-100k.zip")
    prepared = json.loads(fedrec("data", "prepare", "ml-100k", "--source", str(source), "--json", cwd=tmp_path))
    assert (prepared["users"], prepared["items"], prepared["out"]) == (12, 24, "var/prepared/ml-100k")

    sets = [f"--set={name}={value}" for name, value in (SMALL | {"rounds": 30, "clients_per_round": 12}).items()]
    trained = json.loads(
        fedrec(
            "train", "var/prepared/ml-100k", "--out", "runs/story", *sets, "--set", "nodes=3", "--json", cwd=tmp_path
        )
    )
    assert trained["test"]["full"]["users"] == 12
    evaluated = json.loads(fedrec("evaluate", "runs/story", "--json", cwd=tmp_path))
    assert abs(evaluated["test"]["full"]["ndcg@10"] - trained["test"]["full"]["ndcg@10"]) < 1e-9

    with subprocess.Popen(
        [sys.executable, "-m", "fedrec", "serve", "runs/story", "--port", "0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            address = next(word for word in server.stderr.readline().split() if word.startswith("http"))
            with httpx.Client(base_url=address, transport=httpx.HTTPTransport(retries=3), timeout=30) as client:
                while client.get("/readyz").status_code == 503:
                    assert server.poll() is None
                answer = client.post("/v1/recommend", json={"history": ["1", "2", "3", "4", "5"], "k": 5}).json()
        finally:
            server.terminate()
    titles = pl.read_parquet(tmp_path / "var/prepared/ml-100k/catalogue.parquet")["title"].to_list()
    assert [titles.index(item["title"]) for item in answer["items"]] == [int(i["item_id"]) - 1 for i in answer["items"]]
    assert len(answer["items"]) == 5
    assert not {"1", "2", "3", "4", "5"} & {item["item_id"] for item in answer["items"]}
    cooking = {str(number) for number in range(1, 13)}
    assert len(cooking & {item["item_id"] for item in answer["items"]}) >= 4  # a cook is shown cooking films
