"""The user's side of a run in ONNX, with the item vectors beside it: all that a device needs to recommend by itself.

user_model.onnx         (B, L, R) vectors of the events, (B, L) mask → (B, W) user vectors
event_vectors.npy       (N, R) what a user vector is computed from
candidate_vectors.npy   (N, W) what it is multiplied with
items.json              the id and the title of each row
card.json               the run's card
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.json_file import save_json
from fedrec.recsys.card import CARD
from fedrec.recsys.portable import PortableUserModel
from fedrec.recsys.recommender import Recommender

MODEL, EVENTS, CANDIDATES, ITEMS = "user_model.onnx", "event_vectors.npy", "candidate_vectors.npy", "items.json"
DEVICE_MODEL = Contents("model for a device", MODEL, (MODEL, EVENTS, CANDIDATES, ITEMS, CARD))
INPUTS, OUTPUT = ("vectors", "mask"), "user_vector"
PACKAGES = ("onnx", "onnxscript")


def export_onnx(run: Path, out: Path) -> list[str]:
    """Write the user's side of a finished run to a folder, and return the names of its files.

    Raises `InputError` if the extra `onnx` is not installed, or if `out` holds something else.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"`to` onnx needs the package {package}; install it by pip install 'fedrec[onnx]'")
    check_place(out, DEVICE_MODEL.check)
    recommender = Recommender.load(run)
    catalogue, items = recommender.catalogue, recommender.items
    with replaced_folder(out, DEVICE_MODEL.check) as folder:
        _save_model(recommender, folder / MODEL)
        np.save(folder / EVENTS, items.read.numpy(), allow_pickle=False)
        np.save(folder / CANDIDATES, items.searched.numpy(), allow_pickle=False)
        named = catalogue.frame.select("item_id", "title").to_dicts()
        (folder / ITEMS).write_text(json.dumps(named, ensure_ascii=False), "utf-8")
        save_json(folder / CARD, recommender.card)
    return sorted(DEVICE_MODEL.patterns)


def _save_model(recommender: Recommender, path: Path) -> None:
    """Trace the user's side, for any number of histories and events, and write it."""
    model = PortableUserModel(recommender.towers, recommender.closed_form, recommender.bound).eval()
    width = recommender.items.read.shape[1]
    example = torch.ones(2, 3, width), torch.ones(2, 3, dtype=torch.bool)
    sizes = {0: torch.export.Dim("histories"), 1: torch.export.Dim("events")}
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=(sizes, sizes),
            verbose=False,
        )
    assert program
    program.model.metadata_props.update(model_version=recommender.version, events_read=str(recommender.length))
    program.save(path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says of its own parts, and of operators of packages that are not used."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
