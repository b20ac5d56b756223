"""FAISS over item vectors: the nearest to a vector, with filters and exclusions inside the search.

Up to `EXACT` items every search finds the very nearest. Beyond, it looks at the nearest cells of an inverted file
(Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57), as many as a measurement finds to be enough. Items that come
later are few: they stand beside, in a matrix of their own, and are always looked at.

The order is by score falling, then by row rising, and a page is a part of it, however long: scores of libraries, which
round otherwise in another company, only choose who may be in it (`fedrec.recsys.nearest`). An inverted file's order
is the best `AT` of the cells looked at first, then what is found among more cells and not yet told, and so on.

An index does not change: one with an item more or less is another one, which shares what is large. So searches need no
lock, and none sees half of a change.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import read_json, regular, require
from fedrec.recsys.nearest import Found, best, contenders, doubt, exact_scores
from fedrec.serving.index.exact_search import MORE, SPARE, Exact, chosen

EXACT = 50_000
"""Items among which each search finds the very nearest."""

AT, RECALL, WIDER = 100, 0.985, 4
"""An inverted file must find so large a share of the nearest `AT`: a little more than the 0.98 that is promised, since
what is asked later is not what it was measured on. A search that it was not measured for, as a page beyond `AT`, looks
at `WIDER` times as many cells, again and again, until they hold nothing better."""

ASIDE = AT // 2
"""Rows that may not be answered, at most, for a search to count as one that was measured: a history's, as a rule."""

KIN = (20, 100, 500)
"""Among how many of an item's nearest the items of one taste are, where recall is measured."""

FEW, SHARE = 4_096, 0.25
"""Rows that may be answered, at most and as a share of all: gathering their vectors takes less than a search."""

QUICK = 10_000
"""Items whose search takes half a millisecond."""

FILE, ABOUT = "index.faiss", "index.json"
REMEDY = "remove it, and it is built anew"
_ABOUT = {"model_version": str, "items": int, "width": int, "sha256": str, "recall": float}

Asked = tuple[np.ndarray, int, np.ndarray | None]
"""What `search` is given: a vector, how many, and which rows may be answered."""


@dataclass(frozen=True, eq=False)
class Index:
    """Rows 0 to N-1 are the catalogue's; N and more are those put in since."""

    matrix: np.ndarray  # (N, E) float32, unit length
    base: Exact | faiss.IndexIVFFlat
    extra: np.ndarray  # (M, E)
    living: np.ndarray  # (N+M,) bool: False for a row that was taken out
    recall: float = 1.0  # of the base, measured when it was built

    @classmethod
    def over(cls, matrix: np.ndarray) -> "Index":
        """Build an index over unit vectors (N, E); an inverted file takes seconds to minutes, an exact one none."""
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        if len(matrix) <= EXACT:
            return cls._of(matrix, Exact.over(matrix), 1.0)
        base = _inverted(matrix)
        return cls._of(matrix, base, _tuned(base, matrix))

    @classmethod
    def _of(cls, matrix: np.ndarray, base: Exact | faiss.IndexIVFFlat, recall: float) -> "Index":
        nothing = np.zeros((0, matrix.shape[1]), dtype=np.float32)
        return cls(matrix, base, nothing, np.ones(len(matrix), dtype=bool), recall)

    def __len__(self) -> int:
        """How many items can be found."""
        return int(self.living.sum())

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def probes(self) -> int | None:
        """How many cells a search looks at; None where it looks at everything."""
        return None if isinstance(self.base, Exact) else int(self.base.nprobe)

    @property
    def quick(self) -> bool:
        """Whether a search takes less than handing it to a thread."""
        return len(self.matrix) <= QUICK

    def vector(self, row: int) -> np.ndarray:
        return self.vectors(np.array([row]))[0]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Their vectors: (n,) to (n, E)."""
        first = len(self.matrix)
        if not len(self.extra):
            return self.matrix[rows]
        found = np.empty((len(rows), self.width), dtype=np.float32)
        late = rows >= first
        found[~late], found[late] = self.matrix[rows[~late]], self.extra[rows[late] - first]
        return found

    def among(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (n, E) of which some are those of the rows (R,), and where: (R,). Copied where rows came later."""
        if not len(self.extra) or not len(rows):
            return self.matrix, rows
        once, places = np.unique(rows, return_inverse=True)
        return self.vectors(once), places

    def added(self, vectors: np.ndarray) -> "Index":
        """One with these items (n, E) more: their rows go on from the number of rows before."""
        return replace(
            self,
            extra=np.concatenate([self.extra, np.asarray(vectors, dtype=np.float32)]),
            living=np.append(self.living, np.ones(len(vectors), dtype=bool)),
        )

    def removed(self, rows: Sequence[int]) -> "Index":
        living = self.living.copy()
        living[list(rows)] = False
        return replace(self, living=living)

    @property
    def spent(self) -> int:
        """How many of the rows that came later were taken out again."""
        return int((~self.living[len(self.matrix) :]).sum())

    def swept(self) -> tuple["Index", np.ndarray]:
        """One without the spent rows, and which rows of this one are the rows of that."""
        first = len(self.matrix)
        late = np.flatnonzero(self.living[first:])
        rows = np.concatenate([np.arange(first), first + late])
        return replace(self, extra=self.extra[late], living=self.living[rows]), rows

    def search(self, vector: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """The k best of the rows that live and are `allowed`, a mask (N+M,); fewer only where fewer are left.

        Exact where the index is, where few rows are allowed, and among rows that came later. The first of more are the
        same.
        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        if allowed is None and self._as_built:
            return self._in_base(vector, k, None)
        mask, first = self._mask(allowed), len(self.matrix)
        if allowed is not None and int(mask.sum()) <= min(FEW, SHARE * len(mask)):
            rows = np.flatnonzero(mask)
            return self._settled(vector, rows, self.vectors(rows) @ vector, k)
        found, late = self._in_base(vector, k, mask[:first]), np.flatnonzero(mask[first:])
        if not len(late):
            return found
        found += self._settled(vector, first + late, (self.extra @ vector)[late], k)
        return sorted(found, key=lambda each: (-each[1], each[0]))[:k]

    def search_all(self, asked: Sequence[Asked]) -> list[Found]:
        """`search` for each of them. Where all items are looked at, that is one product for all of the vectors, which
        takes a fraction of the time, and all cores."""
        if not asked or self.probes:
            return [self.search(*each) for each in asked]
        vectors = torch.from_numpy(np.stack([vector for vector, _, _ in asked]).astype(np.float32))  # (B, E)
        parts = [vectors @ torch.from_numpy(part).T for part in (self.matrix, self.extra)]
        scores = torch.cat(parts, dim=1).numpy()  # (B, N+M)
        found = []
        for vector, rough, (_, k, allowed) in zip(vectors.numpy(), scores, asked, strict=True):
            rows = np.flatnonzero(self._mask(allowed))
            found.append(self._settled(vector, rows, rough[rows], k))
        return found

    def _settled(self, vector: np.ndarray, rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
        """The k best of the rows by their exact scores, given rough ones."""
        rows = rows[contenders(scores, k, doubt(vector))]
        return best(rows, exact_scores(self.vectors(rows), vector), k)

    def _mask(self, allowed: np.ndarray | None) -> np.ndarray:
        return self.living if allowed is None else self.living & allowed

    @cached_property
    def _as_built(self) -> bool:
        """Whether nothing was put in or taken out since."""
        return not len(self.extra) and bool(self.living.all())

    def _in_base(self, vector: np.ndarray, k: int, mask: np.ndarray | None) -> Found:
        if isinstance(self.base, Exact):
            return self.base.search(vector, k, mask)
        there = len(self.matrix) if mask is None else int(mask.sum())
        return Cells(self, self.base, vector, None if mask is None else chosen(mask), there).ranked(k)

    def save(self, folder: Path, version: str) -> None:
        """Write what took long to build; `version` is the model's whose vectors it holds."""
        assert not isinstance(self.base, Exact), "this is built sooner than it is read"
        about = {"model_version": version, "width": self.width, "items": len(self.matrix), "recall": self.recall}
        with locked(lock_beside(folder / FILE)):  # two files of one endpoint
            with replaced_file(folder / FILE) as path:
                faiss.write_index(self.base, str(path))
            with replaced_file(folder / ABOUT) as path:
                path.write_text(json.dumps(about | {"sha256": _sha256(folder / FILE)}, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path, matrix: np.ndarray, version: str) -> "Index | None":
        """What was saved for these vectors; None where there is nothing, or it is another model's.

        Raises `InputError` where a file is damaged.
        """
        if not (folder / ABOUT).exists():
            return None
        try:
            about = _about(folder)
            if about["model_version"] != version or (about["items"], about["width"]) != matrix.shape:
                return None
            sound = _sha256(regular(folder / FILE, REMEDY)) == about["sha256"]
            base = faiss.read_index(str(folder / FILE)) if sound else None
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder / FILE} cannot be read ({error}); {REMEDY}") from error
        if not isinstance(base, faiss.IndexIVFFlat):
            raise InputError(f"{folder / FILE} is not the one that {ABOUT} names; {REMEDY}")
        return cls._of(np.ascontiguousarray(matrix, dtype=np.float32), base, about["recall"])


@dataclass(frozen=True, eq=False)
class Cells:
    """A search of an inverted file: `there` rows may be answered, those that FAISS's selector lets through."""

    index: Index
    base: faiss.IndexIVFFlat
    vector: np.ndarray  # (E,)
    selector: Any
    there: int

    def ranked(self, wanted: int) -> Found:
        """So many of those that may be answered, or all of them; a search for more gives the same first ones.

        So each look is for a number of rows, in a number of cells, that do not depend on how many are wanted.
        """
        ranking: Found = []
        cells, count, sure = self.base.nprobe, AT, len(self.index.matrix) - self.there <= ASIDE
        while len(ranking) < min(wanted, self.there):
            if sure:
                found = self.look(min(wanted, count), cells)
            else:
                found, cells = self.look_wider(min(count, self.there), cells)
            before = {row for row, _ in ranking}
            ranking += [each for each in found if each[0] not in before]
            count, sure = WIDER * count, False
        return ranking[:wanted]

    def look_wider(self, count: int, cells: int) -> tuple[Found, int]:
        """So many of the best, among ever more cells until they hold nothing better, and among how many that was."""
        found, before = self.look(count, cells), None
        while cells < self.base.nlist and not (found == before and len(found) == count):
            cells = min(WIDER * cells, self.base.nlist)
            before, found = found, self.look(count, cells)
        return found, cells

    def look(self, count: int, cells: int) -> Found:
        """The best of so many cells, those that are nearest."""
        wrong, many = doubt(self.vector), count + count // 4 + SPARE
        parameters = faiss.SearchParametersIVF(sel=self.selector, nprobe=cells)  # type: ignore[call-arg]
        while True:
            scores, rows = (each[0] for each in self.base.search(self.vector[None], many, params=parameters))
            found = int(np.count_nonzero(rows >= 0))
            if found < many or scores[count - 1] > scores[-1] + 2 * wrong:  # of equals, FAISS may have left out any
                return self.index._settled(self.vector, rows[:found], scores[:found], count)
            many *= MORE


def _inverted(matrix: np.ndarray) -> faiss.IndexIVFFlat:
    """About 4 √N cells, as FAISS advises, learned from at most 64 vectors a cell."""
    cells = int(4 * len(matrix) ** 0.5)
    base = faiss.IndexIVFFlat(faiss.IndexFlatIP(matrix.shape[1]), matrix.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    base.cp.max_points_per_centroid, base.cp.seed = 64, 0
    base.train(matrix)
    base.add(matrix)
    return base


def _tuned(base: faiss.IndexIVFFlat, matrix: np.ndarray) -> float:
    """Set the fewest cells, in steps of a quarter, that reach `RECALL` for every kind of question; what they reach."""
    kinds = _questions(matrix, 200)
    asked = np.concatenate(kinds)
    nearest = np.argsort(-(asked @ matrix.T), axis=1)[:, :AT]
    recall = 0.0
    for probes in _growing(base.nlist):
        base.nprobe = probes
        _, found = base.search(asked, AT)
        recall = float(recalls(found, nearest).reshape(len(kinds), -1).mean(axis=1).min())
        if recall >= RECALL:
            break
    return recall


def recalls(found: Sequence[Sequence[int]] | np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The share of each question's nearest rows (Q, n) that was found: (Q,)."""
    return np.array([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, nearest, strict=True)])


def _growing(most: int) -> Iterator[int]:
    probes = 1
    while probes < most:
        yield probes
        probes = max(probes + 1, probes * 5 // 4)
    yield most


def _questions(matrix: np.ndarray, count: int) -> list[np.ndarray]:
    """So many of each kind that is asked: an item's own vector, and means of ten items that are more or less alike."""
    rng = np.random.default_rng(0)
    items = matrix[rng.choice(len(matrix), count, replace=False)]
    kin = np.argsort(-(items @ matrix.T), axis=1)
    tastes = [
        np.stack([matrix[rng.choice(rows, 10, replace=False)].mean(0) for rows in kin[:, :among]]) for among in KIN
    ]
    return [items, *(taste / np.linalg.norm(taste, axis=1, keepdims=True) for taste in tastes)]


def _about(folder: Path) -> dict[str, Any]:
    """Read what is told of a saved index. If another endpoint is saving one, its two files are waited for."""
    about = _told(folder)
    if _sha256(regular(folder / FILE, REMEDY)) != about["sha256"]:
        with suppress(OSError), locked(lock_beside(folder / FILE)):  # without the right to write it is damaged
            about = _told(folder)
    return about


def _told(folder: Path) -> dict[str, Any]:
    about = read_json(folder / ABOUT, REMEDY)
    require(about, _ABOUT, folder / ABOUT, REMEDY)
    return about


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
