"""Made-up federations to measure on, prepared by the same code as real ones."""

import time
from pathlib import Path

import torch
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.prepare import prepare_tables
from fedrec.data.readers.tables import Tables
from fedrec.data.synthetic.random_tables import INTERACTIONS, ITEMS, SyntheticConfig, synthesise
from fedrec.federation.census import take_census
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.roster import Roster
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.embeddings import Embeddings, resolve
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import Model


def make_tables(config: SyntheticConfig, folder: Path) -> None:
    """Write the tables of a made-up federation."""
    synthesise(config, folder / "tables", lambda done, total: None)


def prepare(folder: Path) -> dict[str, float]:
    """Prepare these tables into `folder/prepared`: how many interactions, and in how many seconds."""
    tables = Tables(folder / "tables" / INTERACTIONS, folder / "tables" / ITEMS, "user_id", "item_id", "timestamp", ())
    started = time.perf_counter()
    manifest = prepare_tables(tables, folder / "prepared", "synthetic")
    seconds = time.perf_counter() - started
    return {"rows": manifest.interactions + manifest.repeats_dropped, "seconds": round(seconds, 2)}


def embed_at_random(folder: Path, config: RunConfig) -> None:
    """Unit vectors in place of the catalogue's embeddings: what they mean costs nothing, so it is not measured."""
    catalogue = Catalogue.load(folder / "prepared")
    encoder = resolve(config.model.encoder)
    width = Model(config.model, encoder, config.seed).user.width
    drawn = torch.randn(len(catalogue), width, generator=torch.Generator().manual_seed(config.seed))
    stamp = Embeddings.stamp_of(catalogue, encoder)
    Embeddings(F.normalize(drawn, dim=-1), stamp, catalogue.warm).save(folder / "prepared")


def make(synthetic: SyntheticConfig, folder: Path, config: RunConfig) -> Path:
    """A prepared and embedded made-up federation; its folder."""
    make_tables(synthetic, folder)
    prepare(folder)
    embed_at_random(folder, config)
    return folder / "prepared"


def open_grid(data: Path, config: RunConfig) -> tuple[LocalGrid, Roster]:
    """In-process nodes, and their users."""
    setup = TrainingSetup(Dataset.open(data), config)
    grid = LocalGrid.over(setup)
    return grid, take_census(grid, config, setup.embeddings.stamp)


def bent(adapter: Adapter, seed: int) -> Adapter:
    """An adapter some way into training: none of its products is zero."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in adapter.items()}
