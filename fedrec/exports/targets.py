"""Where a run can be exported to, by name."""

from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.exports.hub import publish
from fedrec.exports.onnx_model import export_onnx
from fedrec.exports.public_model import Publication, export_folder

TARGETS = ("folder", "hub", "onnx")


def export_run(run: Path, out: str, to: str, publication: Publication) -> list[str]:
    """Export a run, and return the names of the files in the folder `out`, or the address of the upload to `out`.

    Raises `InputError` for another target, and for a license or a publication that the target has no place for.
    """
    if to not in TARGETS:
        raise InputError(f"`to` = {to!r} is not known; choose one of {', '.join(TARGETS)}")
    if publication.public and to != "hub":
        raise InputError("`public` is for `to` hub; leave it out")
    if to == "hub":
        return [publish(run, out, publication)]
    return export_folder(run, Path(out), publication) if to == "folder" else export_onnx(run, Path(out))
