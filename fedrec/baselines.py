"""Baselines: classic recommenders on the pooled histories, to compare a run with.

    ease = fedrec.baselines.EASE(ridge=300).fit(films)
    ease.evaluate(films)["ndcg@10"]
    fedrec.baselines.ItemKNN().tune(films).baseline      # the hyperparameters that validation chose

A baseline reads everybody's histories, which a federation could not.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from fedrec import console
from fedrec.answers import as_frame
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.recsys.baselines import tuning
from fedrec.recsys.baselines.fusion import FusionConfig
from fedrec.recsys.baselines.linear import Decay, TooManyItems
from fedrec.recsys.baselines.neighbours import EASEConfig, KNNConfig
from fedrec.recsys.baselines.next_item import NextItemConfig
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.baselines.sasrec import SASRecConfig
from fedrec.recsys.baselines.text_prior import TextPriorConfig
from fedrec.recsys.baselines.tuning import NoConfig, TextConfig, TrainingData, Trial
from fedrec.recsys.baselines.whitening import WhitenedTextConfig
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.joined import open_encoder
from fedrec.recsys.evaluation.evaluate import rank_held_out, ranking_metrics
from fedrec.recsys.evaluation.fairness import FairnessReport, report_fairness
from fedrec.recsys.evaluation.ranking import Ranking, Scorer
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.nearest import best
from fedrec.serving.schema import Item

logger = logging.getLogger("fedrec")


@dataclass(frozen=True)
class Baseline:
    """What all baselines have in common: hyperparameters as fields, and how they are fitted."""

    title: ClassVar[str]

    seed: int = field(default=0, kw_only=True)  # of random draws, if there are any, and of the users for validation

    def fit(self, dataset: Dataset) -> "FittedBaseline":
        """Fit with these hyperparameters.

            popularity = fedrec.baselines.Popularity().fit(films)

        Raises `InputError` if a hyperparameter is out of its range.
        """
        fitted = FittedBaseline(self, dataset)
        fitted.scorer("test")
        return fitted

    def tune(self, dataset: Dataset, grid: Mapping[str, Sequence[Any]] | None = None) -> "FittedBaseline":
        """Fit with the hyperparameters that are best on validation (NDCG@10), by trying all of a grid.

            fedrec.baselines.EASE().tune(films, {"ridge": [100.0, 300.0]})

        Without `grid`, the values of docs/results.md are tried. Raises `InputError` if one is out of its range.
        """
        refit = self.split_read(dataset, "test") == "test"
        tuned = tuning.tune(BASELINES[self.title], self.training_data(dataset), grid, console.show_epoch, refit=refit)
        chosen = replace(self, **tuned.settings)
        return FittedBaseline(chosen, dataset, tuned.trials, {self.split_read(dataset, "test"): tuned.score})

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters by name."""
        hyperparameters = asdict(BASELINES[self.title].config())
        return {name: value for name, value in asdict(self).items() if name in hyperparameters}

    def scorer(self, dataset: Dataset, split: str) -> Scorer:
        """Fit on the events that `split` may read. Raises `InputError` if a hyperparameter is out of its range."""
        definition = BASELINES[self.title]
        (config,) = tuning.grid_configs(definition, {name: [value] for name, value in self.settings.items()})
        return definition.fit(self.training_data(dataset), split, config, console.show_epoch)

    def split_read(self, dataset: Dataset, split: str) -> str:
        """Return the split whose readable events it is fitted on, to be ranked on `split`.

        SASRec is fitted on the training events alone; with cold items all are, since the validation events of others
        would tell of these.
        """
        warm_only = len(dataset.catalogue.trainable_rows) == len(dataset.catalogue)
        return split if warm_only and BASELINES[self.title].refits else "validation"

    def training_data(self, dataset: Dataset) -> TrainingData:
        """Return the data that it is fitted on; the items' texts are not embedded unless it reads them."""
        return TrainingData(dataset.shard, torch.empty(len(dataset.catalogue), 0), self.seed)


@dataclass(frozen=True)
class Random(NoConfig, Baseline):
    """Random scores: what knowing nothing gives."""

    title = "random"


@dataclass(frozen=True)
class Popularity(NoConfig, Baseline):
    """The number of users who had each item."""

    title = "popularity"


@dataclass(frozen=True)
class TextBaseline(Baseline):
    """What the baselines that read the items' texts have in common."""

    encoder: str = field(default=ModelConfig.encoder, kw_only=True)  # hub ids or folders, with commas between them
    prompt: str = field(default=ModelConfig.prompt, kw_only=True)  # text before each text

    def training_data(self, dataset: Dataset) -> TrainingData:
        """Return what it is fitted on, with the items' texts embedded."""
        encoder = open_encoder(self.encoder, self.prompt, dataset.folder)
        embeddings = embed_catalogue(dataset.catalogue, encoder, dataset.folder)
        return TrainingData(dataset.shard, embeddings.matrix, self.seed)


@dataclass(frozen=True)
class TextNeighbours(TextConfig, TextBaseline):
    """Cosine between an item's text and the mean text of the last events of a history: no training at all."""

    title = "text neighbours"


@dataclass(frozen=True)
class WhitenedTextNeighbours(WhitenedTextConfig, TextBaseline):
    """Cosine between an item's whitened text and the decayed mean of the history's: no training at all."""

    title = "whitened text neighbours"


@dataclass(frozen=True)
class ItemKNN(KNNConfig, Baseline):
    """The nearest items of each item by the cosine of their users (Sarwar et al. 2001, doi:10.1145/371920.372071)."""

    title = "item-kNN"


@dataclass(frozen=True)
class ItemKNNWithRecency(ItemKNN):
    """Item-kNN, with recent events weighing more when a user is scored."""

    title = "item-kNN with recency"
    decay: Decay = 0.8


@dataclass(frozen=True)
class EASE(EASEConfig, Baseline):
    """A linear model of items in closed form (Steck 2019, arXiv:1905.03375)."""

    title = "EASE"


@dataclass(frozen=True)
class EASEWithRecency(EASE):
    """EASE, with recent events weighing more when a user is scored."""

    title = "EASE with recency"
    decay: Decay = 0.8


@dataclass(frozen=True)
class EASEWithTextPrior(TextPriorConfig, TextBaseline):
    """EASE, its weights pulled towards those of the items' texts (L3AE: Moon et al. 2025, arXiv:2508.13500)."""

    title = "EASE with text prior"


@dataclass(frozen=True)
class NextItemRidge(NextItemConfig, Baseline):
    """A linear regression of the next item on the decayed history, in closed form."""

    title = "next-item ridge"


@dataclass(frozen=True)
class ClosedFormsTogether(FusionConfig, TextBaseline):
    """The sum of next-item ridge, EASE with recency and EASE with text prior, each tuned on validation first."""

    title = "closed forms together"


@dataclass(frozen=True)
class SASRec(SASRecConfig, Baseline):
    """A causal transformer over item ids (Kang and McAuley 2018, arXiv:1808.09781); it takes minutes to fit."""

    title = "SASRec"


@dataclass(frozen=True, eq=False)
class FittedBaseline:
    """A baseline fitted on a dataset: it is evaluated and asked as a run is."""

    baseline: Baseline
    dataset: Dataset = field(repr=False)
    trials: list[Trial] = field(default_factory=list, repr=False)  # of `tune`: hyperparameters and NDCG@10
    _scorers: dict[str, Scorer] = field(default_factory=dict, repr=False)  # by the split that they were fitted for

    def evaluate(self, dataset: Dataset, protocol: str = "full", split: str = "test") -> dict[str, float]:
        """Rank every user's held-out item, and return the metrics' means, as `Run.evaluate` does.

            ease.evaluate(films)["ndcg@10"]

        Raises `InputError` if the dataset has other items or another split than the one that it was fitted on.
        """
        return ranking_metrics(self._rank(dataset, protocol, split))

    def user_ranks(self, dataset: Dataset, protocol: str = "full", split: str = "test") -> np.ndarray:
        """Return the rank of each user's held-out item, 0 for the best: (U,), in the order of the users. Private."""
        return self._rank(dataset, protocol, split).ranks

    def fairness(self, dataset: Dataset, protocol: str = "full", split: str = "test") -> FairnessReport:
        """Measure the quality for groups of users, and the exposure of items, as `Run.fairness` does."""
        return report_fairness(self._rank(dataset, protocol, split), dataset, split)

    def recommend(self, history: Sequence[str], k: int = 10, exclude_seen: bool = True) -> pl.DataFrame:
        """Recommend items for a history of item ids, oldest first: `item_id`, `title`, `score`.

            ease.recommend(history=["50", "181"], k=5)

        Raises `InputError` if no item of the history is known.
        """
        catalogue = self.dataset.catalogue
        places = [catalogue.row(item_id) for item_id in history]
        rows = np.array([row for row in places if row is not None], dtype=np.int64)
        if not len(rows):
            raise InputError("`history`: none of these ids is in the catalogue; give ids of it")
        if unknown := [item_id for item_id, row in zip(history, places, strict=True) if row is None]:
            logger.warning("not in the catalogue, skipped: %s", ", ".join(unknown))
        scores = self.scorer("test")([rows])[0].cpu().numpy()  # (N,)
        candidates = np.setdiff1d(np.arange(len(catalogue)), rows if exclude_seen else [])
        ranking = best(candidates, scores[candidates], k)
        return as_frame([Item(item_id=catalogue.ids[r], title=catalogue.titles[r], score=s) for r, s in ranking])

    def scorer(self, split: str) -> Scorer:
        """Return the scorer for a split, fitted at its first use. Raises `InputError` as `Baseline.fit` does."""
        split = self.baseline.split_read(self.dataset, split)
        if split not in self._scorers:
            self._scorers[split] = self.baseline.scorer(self.dataset, split)
        return self._scorers[split]

    def _rank(self, dataset: Dataset, protocol: str, split: str) -> Ranking:
        same_items = dataset.catalogue.fingerprint == self.dataset.catalogue.fingerprint
        if not (same_items and dataset.split == self.dataset.split):
            raise InputError(
                f"{dataset.folder} has other items or another split than {self.dataset.folder}, which "
                f"{self.baseline.title} was fitted on; fit it again"
            )
        return rank_held_out(self.scorer(split), dataset, protocol, split)


def quick_baselines(encoder: str, prompt: str = "") -> tuple[Baseline, ...]:
    """Return the baselines that need no training in epochs; an encoder reads the texts for some."""
    read: dict[str, Any] = {"encoder": encoder, "prompt": prompt}
    return (
        *(Random(), Popularity()),
        TextNeighbours(**read),
        WhitenedTextNeighbours(**read),
        *(ItemKNN(), ItemKNNWithRecency(), EASE(), EASEWithRecency()),
        EASEWithTextPrior(**read),
        NextItemRidge(),
        ClosedFormsTogether(**read),
    )


def tune_all(dataset: Dataset, baselines: Iterable[Baseline]) -> Iterator[FittedBaseline]:
    """Tune each baseline, and report it as it begins; one that cannot hold so many items is left out."""
    for baseline in baselines:
        tried = len(tuning.grid_configs(BASELINES[baseline.title], {}))
        chosen = f", {tried} settings, chosen on validation" if tried > 1 else ""
        console.status(f"fitting {baseline.title}{chosen}")
        try:
            fitted = baseline.tune(dataset)
        except TooManyItems as error:
            console.warn(f"{baseline.title} is left out: {error}")
        else:
            yield fitted


def measure_all(dataset: Dataset, baselines: Iterable[Baseline], protocol: str = "full") -> dict[str, dict[str, Any]]:
    """Return name → `settings`, and under `test` the metrics by protocol, of tuned baselines."""
    return {
        fitted.baseline.title: {
            "settings": fitted.baseline.settings,
            "test": {protocol: fitted.evaluate(dataset, protocol)},
        }
        for fitted in tune_all(dataset, baselines)
    }
