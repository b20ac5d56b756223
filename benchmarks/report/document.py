"""docs/results.md, rendered from `results.md.jinja`, and the block of README.md."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.report.markdown import LEAKING, best_of, figure, label, span, verdict
from benchmarks.report.models import kilobytes, megabytes, model_rows, summary
from benchmarks.report.plots import pictures
from benchmarks.report.privacy_plot import privacy_picture
from benchmarks.report.sources import Results, title
from benchmarks.report.traffic import bytes_of_variant
from benchmarks.results_file import BenchmarkResult, Comparison, UserGroup

OPENING, CLOSING = "<!-- results -->", "<!-- /results -->"
TEMPLATE = "results.md.jinja"


def render_page(results: Results) -> str:
    """Render docs/results.md."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,  # it is markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "thousands": "{:,}".format,
        "percent": "{:.0%}".format,
        "kilobytes": kilobytes,
        "megabytes": megabytes,
        "label": label,
    }
    functions = (
        best_closed_form,
        best_in_group,
        comparisons_by_model,
        figure,
        label,
        model_rows,
        pictures,
        privacy_picture,
        span,
        title,
        verdict,
    )
    environment.globals |= {function.__name__: function for function in (*functions, bytes_of_variant)}
    environment.globals |= {"best_of": best_of, "minutes": minutes_of_runs, "LEAKING": LEAKING}
    return environment.get_template(TEMPLATE).render(results=results)


def comparisons_by_model(result: BenchmarkResult) -> dict[str, dict[str, dict[str, Comparison]]]:
    """Group the comparisons: our model → the other model → metric → comparison."""
    grouped: dict[str, dict[str, dict[str, Comparison]]] = {}
    for one in result.comparisons:
        grouped.setdefault(one.a, {}).setdefault(one.b, {})[one.metric] = one
    return grouped


def best_in_group(group: UserGroup) -> float | None:
    """Return the best NDCG@10 of a group of users, baselines with a leak left out."""
    return best_of(value for model, value in group.ndcg_10.items() if model not in LEAKING)


def best_closed_form(results: Results, name: str) -> float | None:
    """Return the best NDCG@10 of a model with a closed form on a dataset, without noise, among all results."""
    found = (model for result in results.benchmarks if result.name == name for model in result.closed_forms.values())
    return max((model.ndcg_10.mean for model in found), default=None)


def minutes_of_runs(result: BenchmarkResult) -> list[str]:
    """List the minutes of the federated runs, one for each seed."""
    return [f"{s / 60:.0f}" for name, s in result.part_seconds.items() if name.startswith("federated-")]


def readme_block(results: Results) -> str:
    """Build the text between the marks in README.md."""
    return f"\n{summary(results.benchmarks, results.published)}\n" if results.benchmarks else ""


def with_block(readme: str, results: Results) -> str:
    """Replace the block of README.md. Raises `ValueError` if a mark is missing."""
    before, rest = readme.split(OPENING)
    _, after = rest.split(CLOSING)
    return f"{before}{OPENING}\n{readme_block(results)}\n{CLOSING}{after}"
