"""The public part of a run, as a folder of its own: the artifact, its figures, and a model card."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import Contents
from fedrec.exports.model_card import render_model_card
from fedrec.federation.privacy.ledger import FILE as LEDGER
from fedrec.federation.round_log import METRICS
from fedrec.recsys.card import CARD
from fedrec.recsys.recommender import FILES, Recommender

MODEL_CARD = "README.md"
PUBLIC = (CARD, METRICS, LEDGER, CATALOGUE, *FILES)
"""The files of a run that are exported. All others stay: the sums and the marks of their users (`statistics/`), the
state of the server, and the log of the rounds, which names nodes."""

EXPORT = Contents("exported model", CARD, (*PUBLIC, MODEL_CARD))


@dataclass(frozen=True)
class Publication:
    """How an exported model is presented."""

    repo: str | None = None  # USER/NAME on the hub; None: a folder
    license: str = "other"  # one of the hub's ids, such as apache-2.0
    public: bool = False  # on the hub: for everybody, instead of for the owner alone


def export_folder(run: Path, out: Path, publication: Publication) -> list[str]:
    """Write the public part of a finished run and a model card to a folder, and return the names of its files.

    An earlier export there is replaced. Raises `InputError` if the run cannot be served, or if `out` holds something
    else.
    """
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"`out` {out} lies in the run; choose a folder outside of it")
    check_place(out, EXPORT.check)
    recommender = Recommender.load(run)  # a damaged run is refused
    with replaced_folder(out, EXPORT.check) as folder:
        for name in _public_files(run):
            shutil.copyfile(run / name, folder / name)
        (folder / MODEL_CARD).write_text(
            render_model_card(recommender, folder, publication.repo, publication.license), "utf-8"
        )
        return sorted(path.name for path in folder.iterdir())


def _public_files(run: Path) -> Iterator[str]:
    """Iterate over the names of the files of a run that are exported."""
    return (name for name in PUBLIC if (run / name).is_file())
