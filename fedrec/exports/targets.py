"""Where a run can be exported to, by name."""

from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.exports.hub import publish
from fedrec.exports.onnx_model import export_onnx
from fedrec.exports.public_model import Publication, export_folder
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.sentence_module import save_item_tower

TARGETS = ("folder", "hub", "onnx", "sentence-transformers")


def export_run(run: Path, out: str, to: str, publication: Publication) -> list[str]:
    """Export a run, and return the names of the files in the folder `out`, or the address of the upload to `out`.

    Raises `InputError` for another target, and for a license or a publication that the target has no place for.
    """
    if to not in TARGETS:
        raise InputError(f"`to` = {to!r} is not known; choose one of {', '.join(TARGETS)}")
    if publication.public and to != "hub":
        raise InputError("`public` is for `to` hub; leave it out")
    if publication.license != Publication().license and to not in ("folder", "hub"):
        raise InputError(f"`license` = {publication.license}: `to` {to} writes no model card; leave it out")
    match to:
        case "hub":
            return [publish(run, out, publication)]
        case "folder":
            return export_folder(run, Path(out), publication)
        case "onnx":
            return export_onnx(run, Path(out))
        case _:
            return export_item_tower(run, Path(out))


def export_item_tower(run: Path, out: Path) -> list[str]:
    """Write a run's item tower as a model of sentence-transformers, and return the names of its files.

    Raises `InputError` as `save_item_tower` does.
    """
    save_item_tower(Recommender.load(run), out)
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
