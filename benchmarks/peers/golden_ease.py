"""EASE by RecTools and LensKit on made-up histories, and others' metrics of our files: golden figures for a test.

Run by hand, in an environment of its own, since these libraries are no dependencies of fedrec:

    python3 -m venv var/peers
    var/peers/bin/pip install rectools lenskit pytrec_eval-terrier
    var/peers/bin/pip install 'pyarrow<20'        # with the NumPy 1.26 that RecTools needs
    var/peers/bin/python benchmarks/peers/golden_ease.py

It writes golden_ease.json beside itself. The TREC files in golden_trec/ are ours, of the same model: see
tests/test_peers.py.
"""

# pyright: reportMissingImports=false

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
USERS, ITEMS, RIDGE, CUTOFF = 40, 30, 7.5, 10


def make_histories() -> list[list[int]]:
    """Make histories of 4 to 12 distinct items of two tastes; the last item of each is held out."""
    generator = np.random.default_rng(11)
    histories = []
    for user in range(USERS):
        taste = np.exp(-0.5 * ((np.arange(ITEMS) - (8 if user % 2 else 21)) / 5) ** 2) + 0.02
        length = int(generator.integers(4, 13))
        histories.append(generator.choice(ITEMS, size=length, replace=False, p=taste / taste.sum()).tolist())
    return histories


def frame_of(histories: list[list[int]]) -> Any:
    """Return events as RecTools and LensKit read them: a row for each."""
    import pandas as pd

    rows = [
        (f"u{user:02d}", f"i{item:02d}", 1.0, np.datetime64("2024-01-01") + place)
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])


def by_rectools(histories: list[list[int]]) -> dict[str, Any]:
    """Fit RecTools' EASE on all but the last items, and measure our lists by RecTools' metrics."""
    import pandas as pd
    from rectools.dataset import Dataset
    from rectools.metrics import NDCG, Recall, calc_metrics
    from rectools.models import EASEModel

    train = frame_of([h[:-1] for h in histories])
    dataset = Dataset.construct(train)
    model = EASEModel(regularization=RIDGE, recommend_use_gpu_ranking=False).fit(dataset)
    users = sorted(train["user_id"].unique())
    lists = model.recommend(users=users, dataset=dataset, k=ITEMS, filter_viewed=True)
    names = {"ndcg@10": NDCG(k=CUTOFF, divide_by_achievable=True), "recall@10": Recall(k=CUTOFF)}
    columns = {0: "user_id", 2: "item_id", 3: "rank", 4: "score"}
    ours, held_out = (
        pd.read_csv(HERE / "golden_trec" / name, sep=" ", header=None).rename(columns=columns)
        for name in ("run.trec", "qrels.trec")
    )
    metrics = calc_metrics(names, reco=ours, interactions=held_out)
    scores = {user: {} for user in users}
    for row in lists.itertuples():
        scores[row.user_id][row.item_id] = round(float(row.score), 9)
    return {"version": version("rectools"), "metrics": metrics, "scores": scores}


def by_lenskit(histories: list[list[int]]) -> dict[str, Any]:
    """Fit LensKit's EASE on the same events, and measure its lists by LensKit's metrics.

    LensKit's NDCG discounts the second place no more than the first: 1 / max(1, log2(place)).
    """
    from lenskit.data import ItemList, ItemListCollection, RecQuery, from_interactions_df
    from lenskit.knn import EASEScorer
    from lenskit.metrics import NDCG, Recall, RunAnalysis

    train, held_out = frame_of([h[:-1] for h in histories]), frame_of([h[-1:] for h in histories])
    data = from_interactions_df(train[["user_id", "item_id"]])
    scorer = EASEScorer(regularization=RIDGE)
    scorer.train(data)
    scores, lists = {}, ItemListCollection.empty(["user_id"])
    for user, seen in train.groupby("user_id"):
        had = ItemList(item_ids=seen["item_id"].to_numpy())
        others = ItemList(item_ids=sorted(set(train["item_id"]) - set(seen["item_id"])))
        found = scorer(RecQuery(user_id=user, history_items=had), others)
        scores[user] = {i: round(float(s), 9) for i, s in zip(found.ids(), found.scores(), strict=True)}
        lists.add(found.top_n(ITEMS), user_id=user)
    analysis = RunAnalysis(NDCG(n=CUTOFF), Recall(n=CUTOFF))
    measured = analysis.measure(lists, ItemListCollection.from_df(held_out, ["user_id"])).list_summary()
    means = {"ndcg@10": measured.loc["NDCG@10", "mean"], "recall@10": measured.loc["Recall@10", "mean"]}
    return {"version": version("lenskit"), "metrics": means, "scores": scores}


def by_trec_eval() -> dict[str, Any]:
    """Measure our TREC files by trec_eval's own code."""
    import pytrec_eval

    with (HERE / "golden_trec/qrels.trec").open(encoding="utf-8") as file:
        qrels = pytrec_eval.parse_qrel(file)
    with (HERE / "golden_trec/run.trec").open(encoding="utf-8") as file:
        run = pytrec_eval.parse_run(file)
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10", "recip_rank"}).evaluate(run)
    names = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "mrr": "recip_rank"}
    means = {ours: float(np.mean([found[name] for found in measured.values()])) for ours, name in names.items()}
    return {"version": version("pytrec_eval-terrier"), "metrics": means}


def main() -> None:
    """Write the golden figures."""
    histories = make_histories()
    golden = {
        "ridge": RIDGE,
        "items": ITEMS,
        "histories": histories,
        "rectools": by_rectools(histories),
        "lenskit": by_lenskit(histories),
        "trec_eval": by_trec_eval(),
    }
    as_plain = json.dumps(golden, default=float, indent=None, separators=(",", ":"))
    (HERE / "golden_ease.json").write_text(as_plain.replace('],"', '],\n"') + "\n", "utf-8")


if __name__ == "__main__":
    main()
