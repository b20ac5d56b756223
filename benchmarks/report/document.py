"""docs/results.md and the block in README.md, as text made from the results."""

from collections.abc import Iterator

from benchmarks.report import models, plots, tables
from benchmarks.report.markdown import table
from benchmarks.report.results_file import Result, Results, title

OPENING, CLOSING = "<!-- results -->", "<!-- /results -->"

HEAD = """\
# Results

Made by `fedrec results` from the files in [`benchmarks/results`](../benchmarks/results); do not edit it by hand.

## How it is measured

* **Split**: leave-one-out by time. Stable sort by timestamp, ties in file order; a user's last event is the test item,
  the one before it the validation item. The rule for ties moves results: say which one you use when you compare.
* **Data**: `--source` names a copy of the raw data. MovieLens 100K is GroupLens's `ml-100k.zip`, fetched where none is
  named. MovieLens 1M is RecBole's atomic files (`ml-1m.inter`, `ml-1m.item`) of the copy that SASRec's authors made:
  users and items of five events or more, in their order. GroupLens's own zip has other items and ties, and gives other
  figures. Amazon Scientific is the folder `Scientific` of UniSRec's released data. The catalogue's fingerprint tells.
* **Ranking**: the held-out item among *all* items of the catalogue, those that the user has had removed (where the
  published split repeats items, the held-out one stays). Ties count against the model. Figures are means over users.
* **Choice**: settings are tuned, and the round or epoch that is kept is chosen, on validation alone. A baseline tries
  every setting of a small grid with the first seed; where the best lies at the grid's edge, the table says so. PFedRec
  has the settings of its authors' code, and FedMF the same. Ours were found on validation by hand. Each run tells its
  test figures, also those below that try one change; nothing is chosen by them.
* **The same model on pooled data**: what federating costs, with settings, steps and users a step as in the federated
  run, a step clipped as a whole. It is not tuned apart, so it is no ceiling.
* **Trained on**: models that learn in rounds or epochs see the events before the validation item. Popularity, item-kNN
  and EASE are fitted once more, when validation has chosen, on all events before the test item; `--part refit` trains
  ours on these too, for as many rounds, of which it keeps the last.
* **A private part of each user's own**: a copy of a part of the adapter that goes on learning on the device and is
  never sent. It is compared with the run that it starts from, the first seed's; where its gain is no more than chance,
  as in all of ours, `fedrec train` leaves it out, and `fedrec personalise` measures it.
* **EASE in vectors**: EASE weighs every pair of items. Of its weights this is the best approximation of the rank that
  our items' vectors have: what an index of such vectors can answer.
* **Seeds**: where several were run, a figure is their mean ± the sample standard deviation.
* **Comparison**: paired bootstrap over users, on each user's mean over the seeds; p is one-sided.
* **Bold**: the best of a column, or of a row of the table by events; a peer with a leak competes with nobody.

`fedrec reproduce NAME` makes everything of one benchmark, from the raw data; with `--part`, one row of it. Parts are
kept below `runs/reproduce/NAME`, and the command goes on where it was interrupted.
"""


def page(results: Results) -> str:
    """The whole of docs/results.md."""
    sections = [HEAD]
    sections += ["\n".join(_benchmark(result, results)) for result in results.benchmarks]
    sections += ["\n".join(_ablation(result)) for result in results.ablations]
    if not results.benchmarks + results.ablations:
        sections.append("No benchmark has been run yet.\n")
    return "\n".join(sections)


def _benchmark(result: Result, results: Results) -> Iterator[str]:
    data = result["data"]
    yield f"## {title(result)}\n"
    counts = [f"{data[name]:,} {name}" for name in ("users", "items", "interactions")]
    yield f"{', '.join(counts)}; catalogue {data['catalogue_fingerprint'][:12]}. {data['citation']}\n"
    yield f"`{result['command']}`, seeds {', '.join(map(str, result['seeds']))}:\n"
    lines = models.cells(models.rows(result, results.published), tables.METRICS)
    yield table(["model", "trained", "NDCG@10", "Recall@10", "made by"], lines) + "\n"
    if "federated" in result:
        yield _cost(result)
    if peers := result.get("peers"):
        yield f"Against 99 sampled items, only to compare with papers that do so: {tables.sampled(peers)}.\n"
    if result.get("comparisons"):
        yield "Which differences are more than chance, with 95 % intervals:\n"
        yield tables.comparisons(result) + "\n"
    if result.get("by_history"):
        yield "NDCG@10 by how many events a user has before the test item:\n"
        yield tables.by_history(result) + "\n"
    yield from _pictures(result)
    yield from _otherwise(result)
    yield _made_on(result)


def _otherwise(result: Result) -> Iterator[str]:
    """The same run put to another test."""
    seed = result["seeds"][0]
    if cold := result.get("cold"):
        users = next(iter(cold.values()))["users"]
        yield f"Items that nobody has touched: {result['preset']['cold']['share']:.0%} of the items are in no training"
        yield f"event; {users:,} users are ranked whose held-out item is one of them (`--part cold`, seed {seed}):\n"
        yield tables.cold(result) + "\n"
        yield "Who gives all cold items the same score has every tie counted against it, and is below chance.\n"
    if start := result.get("start"):
        yield f"Begun from the federated run of {start['from']} (`--part start`, seed {seed}): NDCG@10"
        yield f"{start['before']['ndcg@10']:.4f} before its first round here, {start['ndcg@10']:.4f} after training."
        yield f"{_rounds_needed(start)}\n"


def _rounds_needed(start: Result) -> str:
    if "rounds" not in start:
        return ""
    needed = {
        name: f"{count} rounds" if count else "more rounds than it had" for name, count in start["rounds"].items()
    }
    return (
        f"To {start['mark']['share']:.0%} of the best validation NDCG@10 that training from scratch reaches, it needs "
        f"{needed['start']}, and training from scratch {needed['scratch']}."
    )


def _cost(result: Result) -> str:
    ratio = result.get("ratio")
    share = f" Federated training reaches {ratio['ndcg@10']:.1%} of the NDCG@10 on pooled data." if ratio else ""
    best = ", ".join(map(str, result["best_round"]))
    runs = [seconds for name, seconds in result["part_seconds"].items() if name.startswith("federated-")]
    minutes = ", ".join(f"{seconds / 60:.0f}" for seconds in runs)
    return (
        f"{result['rounds']} rounds of {result['clients_per_round']} clients, in {minutes} minutes; "
        f"the best on validation: {best}. "
        f"The adapter has {result['adapter_parameters']:,} numbers; a client that takes part in a round sends "
        f"{result['bytes_up_per_client_round'] / 1000:,.1f} kB, at {result['bits']} bits a number.{share}\n"
    )


def _ablation(result: Result) -> Iterator[str]:
    yield f"## {title(result)}\n"
    settings = result["base_settings"] | result["preset"].get("settings", {})
    told = ", ".join(f"{name} = {value}" for name, value in settings.items())
    yield f"`{result['command']}`, seed {result['seeds'][0]}; data and settings are those of"
    yield f"{result['preset']['base']} ({told}) but for what is named. One seed each: small differences mean nothing.\n"
    yield tables.variants(result) + "\n"
    yield from _pictures(result)
    yield _made_on(result)


def _pictures(result: Result) -> Iterator[str]:
    for picture in plots.pictures(result):
        yield f"![{picture.about}](plots/{picture.file})\n"


def _made_on(result: Result) -> str:
    elsewhere = "".join(
        f" Of this, on {_circumstances(other)}: {', '.join(other['parts'])}." for other in result.get("elsewhere", [])
    )
    return f"Made in {result['wall_seconds'] / 60:,.0f} minutes on {_circumstances(result)}.{elsewhere}\n"


def _circumstances(made: Result) -> str:
    machine = made["machine"]
    cores = f"{machine['cores']} core{'' if machine['cores'] == 1 else 's'}"
    libraries = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"{machine['processor']}, {cores}, {machine['memory_gib']} GiB, {machine['device']}; {libraries}"


def block(results: Results) -> str:
    """What stands between the marks in README.md."""
    return f"\n{models.summary(results.benchmarks, results.published)}\n" if results.benchmarks else ""


def filled(readme: str, results: Results) -> str:
    """README.md with its block made anew. Raises `ValueError` where the marks are missing."""
    before, rest = readme.split(OPENING)
    _, after = rest.split(CLOSING)
    return f"{before}{OPENING}\n{block(results)}\n{CLOSING}{after}"
