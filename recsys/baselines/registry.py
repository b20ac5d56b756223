"""The baselines by name, each with the grid from which validation chooses."""

import numpy as np

from fedrec.recsys.baselines.fusion import FusionConfig, fuse
from fedrec.recsys.baselines.neighbours import EASEConfig, KNNConfig, ease, item_knn
from fedrec.recsys.baselines.next_item import NextItemConfig, next_item_ridge
from fedrec.recsys.baselines.sasrec import SASRecConfig, fit_sasrec, sasrec_scorer
from fedrec.recsys.baselines.simple import popularity, random_scores, text_neighbours
from fedrec.recsys.baselines.text_prior import TextPriorConfig, ease_with_text_prior
from fedrec.recsys.baselines.tuning import Baseline, EpochCallback, NoConfig, TextConfig, TrainingData
from fedrec.recsys.baselines.whitening import WhitenedTextConfig, whitened_text_neighbours
from fedrec.recsys.model.scoring import Scorer

RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
DECAYS = (0.6, 0.7, 0.8, 0.9, 0.95)


def _fit_sasrec(data: TrainingData, split: str, config: SASRecConfig, observe: EpochCallback) -> Scorer:
    generator = np.random.default_rng(data.seed)
    return sasrec_scorer(fit_sasrec(data.shard, data.items, config, generator, observe))


# the hyperparameters of the scoring come last in a grid: their trials follow each other and share a fit
NEXT_ITEM_RIDGE = Baseline(
    NextItemConfig,
    lambda data, split, config, observe: next_item_ridge(data, split, config),
    {"decay": DECAYS, "ridge": (30.0, 100.0, 300.0, 1000.0, 3000.0)},
)
EASE_WITH_RECENCY = Baseline(
    EASEConfig,
    lambda data, split, config, observe: ease(data, split, config),
    {"ridge": RIDGES, "decay": DECAYS},
)
EASE_WITH_TEXT_PRIOR = Baseline(
    TextPriorConfig,
    lambda data, split, config, observe: ease_with_text_prior(data, split, config),
    {"ridge": (10.0, 30.0, 100.0, 300.0), "prior": (10.0, 30.0, 100.0), "decay": DECAYS},
)

BASELINES = {
    "random": Baseline(NoConfig, lambda data, split, config, observe: random_scores(data.items, data.seed)),
    "popularity": Baseline(NoConfig, lambda data, split, config, observe: popularity(data.shard, data.items, split)),
    "text neighbours": Baseline(
        TextConfig,
        lambda data, split, config, observe: text_neighbours(data.embeddings, config.last),
        {"last": (1, 3, 10, 30)},
    ),
    "whitened text neighbours": Baseline(
        WhitenedTextConfig,
        lambda data, split, config, observe: whitened_text_neighbours(data.embeddings, config),
        {"power": (0.5, 1.0), "decay": DECAYS},
    ),
    "item-kNN": Baseline(
        KNNConfig,
        lambda data, split, config, observe: item_knn(data, split, config),
        {"neighbours": (5, 10, 20, 50, 100, 200), "shrink": (0.0, 10.0, 30.0, 100.0)},
    ),
    "item-kNN with recency": Baseline(
        KNNConfig,
        lambda data, split, config, observe: item_knn(data, split, config),
        {"neighbours": (50, 200, 500), "shrink": (0.0, 10.0, 30.0), "decay": DECAYS},
    ),
    "EASE": Baseline(
        EASEConfig,
        lambda data, split, config, observe: ease(data, split, config),
        {"ridge": RIDGES},
    ),
    "EASE in vectors": Baseline(
        EASEConfig,
        lambda data, split, config, observe: ease(data, split, config, data.embeddings.shape[1]),
        {"ridge": RIDGES},
    ),
    "EASE with recency": EASE_WITH_RECENCY,
    "EASE with text prior": EASE_WITH_TEXT_PRIOR,
    "next-item ridge": NEXT_ITEM_RIDGE,
    "closed forms together": Baseline(
        FusionConfig,
        lambda data, split, config, observe: fuse(
            (NEXT_ITEM_RIDGE, EASE_WITH_RECENCY, EASE_WITH_TEXT_PRIOR), data, split, config
        ),
        {"next_item": (0.0, 0.25, 0.5, 0.75, 1.0), "text": (0.0, 0.5, 1.0)},
    ),
    "SASRec": Baseline(SASRecConfig, _fit_sasrec, {"dropout": (0.2, 0.4, 0.6)}, refits=False),
}
"""The baselines by name, the weakest first. SASRec trains on the training events alone, as the two-tower model does.

`fedrec reproduce` tunes all of them. For `fedrec.baselines` and `fedrec evaluate --baselines` add a class to
fedrec/baselines.py, too, and list it in `tune_all`.
"""
