"""The model card of an exported run: README.md with the hub's metadata, from `card.json` and `metrics.json`.

Model cards: Mitchell et al. 2019, arXiv:1810.03993.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedrec.federation.round_log import METRICS, load_metrics
from fedrec.recsys.recommender import Recommender

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
LIBRARY = "fedrec"
REPORTED = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage@10")
"""The metrics of the table."""

METHODS = {
    "fedrec": "two towers with LoRA adapters, trained in federated rounds",
    "closed-form": "a closed form: ridge regressions of the next item, solved from federated sums",
    "hybrid": "two towers with LoRA adapters, trained in federated rounds, and a closed form, solved from sums",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def render_model_card(recommender: Recommender, folder: Path, repo: str | None, license: str) -> str:
    """Render the model card of a recommender, whose files are in a folder."""
    from huggingface_hub import ModelCard

    card, metrics = recommender.card, _full_metrics(folder)
    rendered = ModelCard.from_template(
        _metadata(card, metrics, license),
        template_str=TEMPLATE.read_text("utf-8"),
        card=card,
        method=METHODS[card["config"].get("method", "fedrec")],
        central=card["config"].get("mode") == "central",
        metrics={split: {name: found.get(name) for name in REPORTED} for split, found in metrics.items()},
        reported=REPORTED,
        users={split: found.get("users") for split, found in metrics.items()},
        files=sorted(path.name for path in folder.iterdir()),
        where=f"hf://{repo}" if repo else "path/to/this/folder",
    )
    return f"{str(rendered).rstrip()}\n"


def _full_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the metrics against the full catalogue, by split; empty if nothing was measured."""
    found = load_metrics(folder) if (folder / METRICS).is_file() else {}
    return {split: protocols["full"] for split, protocols in found.items() if "full" in protocols}


def _metadata(card: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], license: str) -> "ModelCardData":
    """Build the metadata in YAML that the hub searches by."""
    from huggingface_hub import ModelCardData

    encoder = card["encoder"]["name"]
    tags = ["recommendation", "recommender-systems", "federated-learning", *_protections(card)]
    results = _eval_results(card["data"]["name"], metrics.get("test", {}))
    return ModelCardData(
        license=license,
        library_name=LIBRARY,
        tags=tags,
        base_model=encoder if _HUB_ID.fullmatch(encoder) else None,  # not the path of a folder
        metrics=[name for name in REPORTED if name in metrics.get("test", {})] or None,
        model_name=card["model_version"],
        eval_results=results or None,
    )


def _protections(card: Mapping[str, Any]) -> list[str]:
    """Return a tag for each protection that a run was trained under."""
    config = card["config"]
    secure = config.get("secure_aggregation", {}).get("secure")
    return ["differential-privacy"] * bool(card.get("privacy")) + ["secure-aggregation"] * bool(secure)


def _eval_results(dataset: str, metrics: Mapping[str, Any]) -> "list[EvalResult]":
    """Return the metrics of the test as the hub's model index lists them."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="recommendation",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type=name,
            metric_value=metrics[name],
        )
        for name in REPORTED
        if name in metrics
    ]
