"""A run: the folder that training writes, with everything that can be asked of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np
import polars as pl

from fedrec import console
from fedrec.answers import QuestionFields, as_frame, question_of
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.evaluation import check_dataset, prepared_folder
from fedrec.exports.hub import local_folder
from fedrec.exports.predictions import PredictionConfig, export_predictions
from fedrec.exports.public_model import Publication
from fedrec.exports.targets import export_run
from fedrec.extras import naming_the_extra
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, from_nested
from fedrec.recsys.card import load_card
from fedrec.recsys.evaluation.evaluate import rank_held_out, ranking_metrics
from fedrec.recsys.evaluation.fairness import FairnessReport, report_fairness
from fedrec.recsys.evaluation.ranking import Ranking
from fedrec.recsys.recommender import Recommender
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Answer

if TYPE_CHECKING:
    from fedrec.serving.engine import Engine

Metrics = dict[str, float]
"""Metric → mean over the users, such as `ndcg@10`."""

logger = logging.getLogger("fedrec")


def load(folder: str | Path) -> "Run":
    """Open a run by its folder, or an exported one from the Hugging Face hub.

        run = fedrec.load("runs/try")
        run = fedrec.load("hf://ann/films")

    Raises `InputError` if it is no run, or if the hub has no such model.
    """
    return Run.open(local_folder(folder))


@dataclass(frozen=True, eq=False)
class Run:
    """A trained run, or one that is still to be finished.

        run = fedrec.load("runs/try")
        run.metrics["test"]["ndcg@10"]
        run.recommend(history=["50", "181"], k=5)

    Files are read at the first use.
    """

    folder: Path
    card: Mapping[str, Any] = field(repr=False)  # how it came to be: settings, data, versions, fingerprints

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a run's folder. Raises `InputError` if it is none, or if its card is damaged."""
        return cls(folder, load_card(folder))

    @cached_property
    def config(self) -> RunConfig:
        """The settings that it was trained with."""
        return from_nested(self.card["config"])

    @property
    def metrics(self) -> dict[str, Metrics]:
        """The final metrics by split, ranked against the full catalogue: `run.metrics["test"]["ndcg@10"]`.

        Empty if it was trained on every event. Raises `InputError` if it is not finished.
        """
        return {split: metrics["full"] for split, metrics in self.metrics_by_protocol.items()}

    @property
    def metrics_by_protocol(self) -> dict[str, dict[str, Metrics]]:
        """The final metrics by split and protocol: a federated baseline has `sampled-99`, too."""
        return round_log.load_metrics(self.folder)

    @property
    def rounds(self) -> pl.DataFrame:
        """The log of training, a row for each round: its loss, NDCG@10 on validation if measured, clients and bytes."""
        records = round_log.read(self.folder)
        rows = [
            {
                "round": record["round"],
                "loss": record["loss"],
                "validation": (record["validation"] or {}).get(round_log.SCORE),
            }
            | {name: value for name, value in record.items() if name not in ("round", "loss", "validation")}
            for record in records
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    @cached_property
    def recommender(self) -> Recommender:
        """The trained model and its items. Raises `InputError` if the run is unfinished, damaged, or a baseline's."""
        return Recommender.load(self.folder)

    @cached_property
    def engine(self) -> "Engine":
        """The model with an index of its items: what answers questions. It needs the extra `serving`."""
        with naming_the_extra():
            from fedrec.serving.engine import Engine

        return Engine.from_recommender(self.recommender)

    def recommend(self, **question: Unpack[QuestionFields]) -> pl.DataFrame:
        """Recommend items for a history of item ids, a text, both, or a user vector: `item_id`, `title`, `score`.

            run.recommend(history=["50", "181"], k=5)
            run.recommend(query="a heist that goes wrong", filters={"year": {"min": 1990}})

        The keywords are those of `POST /v1/recommend` (docs/serving.md). With `explain` or `details`, the frame has the
        column `because` or `columns`. Raises `InputError` for a question that cannot be answered.
        """
        answer = self.answer(**question)
        if answer.unknown_ids:
            logger.warning("not in the catalogue, skipped: %s", ", ".join(answer.unknown_ids))
        if answer.fallback:
            logger.warning("no item of the history is in the catalogue; these are the most popular items")
        return as_frame(answer.items)

    def answer(self, **question: Unpack[QuestionFields]) -> Answer:
        """Answer the same question as `recommend` with what the endpoint returns. Raises `InputError`."""
        if question.get("user") is not None:
            raise InputError("`user`: a run stores no users; give a history, or ask an endpoint by `fedrec.Client`")
        asked = question_of(question)
        try:
            return self.engine.recommend(asked)
        except UnanswerableError as refusal:
            field_, ids = refusal.field, f"the ids are in {self.folder}/catalogue.parquet"
            raise InputError(f"`{field_}`: {refusal.detail}; {ids}") from refusal

    def similar(self, item_id: str, k: int = 10) -> pl.DataFrame:
        """Return the k items nearest to an item: `item_id`, `title`, `score`. Raises `InputError` for an unknown id."""
        try:
            return as_frame(self.engine.similar(item_id, k).items)
        except UnanswerableError as refusal:
            raise InputError(f"`item_id` = {item_id!r} is not in the catalogue; give an id of it") from refusal

    def open_dataset(self, data: str | Path | None = None, other_histories: bool = False) -> Dataset:
        """Open the dataset that this run was trained on: in `data`, or in `var/prepared` by its name.

        Raises `InputError` if it is another dataset; `other_histories` accepts other histories of the same items.
        """
        folder = Path(data) if data else prepared_folder(self.folder, self.card)
        if not folder.is_dir():
            raise InputError(f"{folder} is not there; name the prepared folder with `data`")
        dataset = Dataset.open(folder)
        check_dataset(self.folder, self.card, dataset, other_histories)
        return dataset

    def evaluate(self, dataset: Dataset | None = None, protocol: str = "full", split: str = "test") -> Metrics:
        """Rank every user's held-out item, and return the metrics' means.

            run.evaluate(protocol="cold")["ndcg@10"]

        `protocol`: `full` ranks against all items, `cold` among the cold items alone, `sampled-99` against 99 sampled
        items, to compare with papers. Without `dataset`, the one in `var/prepared` is opened by its name. Raises
        `InputError` if the dataset is not the one of this run, or if the split was trained on.
        """
        return ranking_metrics(self._rank(dataset, protocol, split))

    def user_ranks(self, dataset: Dataset | None = None, protocol: str = "full", split: str = "test") -> np.ndarray:
        """Return the rank of each user's held-out item, 0 for the best: (U,), in the order of the users.

        Only users with a held-out item are ranked. A rank is about a user: private.
        """
        return self._rank(dataset, protocol, split).ranks

    def fairness(self, dataset: Dataset | None = None, protocol: str = "full", split: str = "test") -> FairnessReport:
        """Measure the quality for groups of users, and the exposure of popular and other items.

            pl.DataFrame(run.fairness().quality)
            pl.DataFrame(run.fairness().exposure)

        Groups are by length of history, activity, and the popularity and public columns of the held-out item. Raises
        `InputError` as `evaluate` does.
        """
        dataset = dataset or self.open_dataset()
        return report_fairness(self._rank(dataset, protocol, split), dataset, split)

    def _rank(self, dataset: Dataset | None, protocol: str, split: str) -> Ranking:
        if dataset is None:
            dataset = self.open_dataset()
        else:
            check_dataset(self.folder, self.card, dataset, other_histories=False)
        return self.rank_held_out(dataset, protocol, split)

    def rank_held_out(self, dataset: Dataset, protocol: str = "full", split: str = "test") -> Ranking:
        """Rank on a dataset that `open_dataset` has returned. Raises `InputError` for a split that was trained on."""
        self._check_measured(split)
        return rank_held_out(self.recommender.scorer(), dataset, protocol, split)

    def _check_measured(self, split: str) -> None:
        if split not in self.measured_splits:
            raise InputError(f"{self.folder} was trained on the {split} items ({self.config.what_was_seen})")

    @property
    def measured_splits(self) -> tuple[str, ...]:
        """The splits that the run was not trained on. Raises `InputError` if there is none."""
        if not self.config.measured:
            raise InputError(
                f"{self.folder} was trained on every event ({self.config.what_was_seen}): nothing is left to measure "
                "it with; train with held_out = 2 or 1 to measure, and with 0 to serve"
            )
        return self.config.measured

    def export(self, out: str | Path, to: str = "folder", license: str = "other", public: bool = False) -> list[str]:
        """Export what is public of the run, and return the names of the files, or the address of the upload.

            run.export("ann/films", to="hub", license="apache-2.0")

        `folder` and `hub` get the artifact and a model card; on the hub it is for its owner alone unless `public`.
        `onnx` is the user's side, `sentence-transformers` the item tower. Raises `InputError` for a run not served.
        """
        return export_run(self.folder, str(out), to, Publication(license=license, public=public))

    def export_predictions(
        self, out: str | Path, dataset: Dataset | None = None, other_histories: bool = False, **config: Any
    ) -> list[str]:
        """Export recommendations for a split's users and the held-out items in a format of others: private.

        The keywords are those of `fedrec.exports.predictions.PredictionConfig`. Raises `InputError` as `evaluate` does.
        """
        folder, wanted = Path(out), PredictionConfig(**config)
        if folder.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"`out` {folder} lies in the run, which may be shared; predictions are private")
        self._check_measured(wanted.split)
        data = dataset or self.open_dataset(other_histories=other_histories)
        check_dataset(self.folder, self.card, data, other_histories)
        return export_predictions(self.recommender.scorer(), data, folder, wanted, self.recommender.version)

    def forget(
        self, users: Sequence[str] = (), dataset: Dataset | None = None, summand: str | Path | None = None
    ) -> "Run":
        """Subtract users from the sums of the closed form, solve it again, and return the run as it is then.

            run = run.forget(["196", "22"])

        The users are named by their ids in the dataset that the run was trained on, or are those of the file `summand`
        that a node has written. The towers of a hybrid stay as they are: they have learned from these users. Raises
        `InputError` for a user who is not in the sums, and then nothing has changed.
        """
        if bool(users) == (summand is not None):
            raise InputError("give exactly one of `users` and `summand`")
        with naming_the_extra():
            from fedrec.forgetting import forget_summand, forget_users, setup_of

        setup = setup_of(self.folder, self.card, dataset or self.open_dataset(other_histories=summand is not None))
        if summand is None:
            forget_users(self.folder, users, setup)
        else:
            forget_summand(self.folder, Path(summand), setup)
        return Run.open(self.folder)

    def update(self, dataset: Dataset, before: Dataset | None = None) -> "Run":
        """Replace the histories in the sums of the closed form by newer ones, and return the run as it is then.

            run = run.update(fedrec.Dataset.open(Path("var/prepared/films-today")))

        `before` is the dataset that the run was trained on; without it, the one in `var/prepared` is opened by its
        name. The result is that of a fit from scratch with the hyperparameters that were chosen and, if the catalogue
        has grown, with the features of the first one. Raises `InputError` if the catalogue lacks an item of the run or
        has another text for one, or if nothing is new.
        """
        with naming_the_extra():
            from fedrec.forgetting import setup_of
            from fedrec.updating import open_before, update_run

        old = before or open_before(self.folder, self.card, None)
        update_run(self.folder, self.card, old, setup_of(self.folder, self.card, dataset))
        return Run.open(self.folder)

    def contributions(self, dataset: Dataset | None = None, shapley: bool = False) -> pl.DataFrame:
        """Measure each node's worth to the closed form by the sums that were kept: a row for each node.

        `all` is NDCG@10 on validation with the sums of all nodes, `without` of all others, and `worth` the difference.
        If the items of validation are in the sums, it is NDCG@10 on the test items. With `shapley`, for at most 10
        nodes, the column `shapley` shares what all nodes gain among them. Raises `InputError` if the sums of single
        nodes were not kept.
        """
        with naming_the_extra():
            from fedrec.contributions import measure_contributions
            from fedrec.forgetting import setup_of

        setup = setup_of(self.folder, self.card, dataset or self.open_dataset())
        with console.counting("coalitions solved and ranked") as progress:
            return measure_contributions(self.folder, setup, shapley, progress)
