"""The generated documents on disk: write them, or compare them with the results."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.attacks.results import FILE as ATTACKS
from benchmarks.report import attacks_page
from benchmarks.report.document import CLOSING, OPENING, render_page, with_block
from benchmarks.report.plots import Picture, pictures, save
from benchmarks.report.privacy_plot import privacy_picture
from benchmarks.report.sources import Results, read_results
from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file

PAGE, README, PLOTS = Path("docs/results.md"), Path("README.md"), Path("docs/plots")


def write_documents(root: Path) -> list[Path]:
    """Write the documents that differ below a clone's root, and return their paths."""
    results = read_results(root)
    changed = []
    for path, text in _texts(root, results).items():
        if _read(path) != text:
            with replaced_file(path) as partial:
                partial.write_text(text, "utf-8")
            changed.append(path)
    for picture in _pictures(root, results):
        path = root / PLOTS / picture.file
        if picture.stamp not in _read(path):
            with replaced_file(path) as partial:
                save(picture, partial)
            changed.append(path)
    return changed


def find_differing(root: Path) -> list[Path]:
    """Return the documents that differ from the results; a plot is recognised by its stamp and not drawn."""
    results = read_results(root)
    texts = [path for path, text in _texts(root, results).items() if _read(path) != text]
    return texts + [p for f in _pictures(root, results) if f.stamp not in _read(p := root / PLOTS / f.file)]


def _texts(root: Path, results: Results) -> dict[Path, str]:
    readme = _read(root / README)
    if readme.count(OPENING) != 1 or readme.count(CLOSING) != 1:
        raise InputError(f"{root / README} must hold {OPENING} and {CLOSING} once each; put them back")
    texts = {root / PAGE: render_page(results), root / README: with_block(readme, results)}
    if (root / ATTACKS).is_file():
        texts[root / attacks_page.PAGE] = attacks_page.render_page(root)
    return texts


def _pictures(root: Path, results: Results) -> Iterator[Picture]:
    yield from attacks_page.pictures(root)
    for result in results.benchmarks + results.ablations:
        yield from pictures(result)
    if results.privacy:
        yield privacy_picture(results.privacy)


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
