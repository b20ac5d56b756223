"""Made-up federations to measure on, prepared by the same code as real data."""

import time
from pathlib import Path

import torch
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.prepare import prepare_tables
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables
from fedrec.data.synthetic.random_tables import INTERACTIONS, ITEMS, SyntheticConfig, synthesise
from fedrec.federation.census import take_census
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.roster import Roster
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.embeddings import Embeddings
from fedrec.recsys.encoders.joined import open_encoder
from fedrec.recsys.model.lora import Adapter


def make_tables(config: SyntheticConfig, folder: Path) -> None:
    """Write the tables of a made-up federation."""
    synthesise(config, folder / "tables", lambda done, total: None)


def prepare(folder: Path) -> dict[str, float]:
    """Prepare the tables into `folder/prepared`; return the number of interactions and the seconds."""
    tables = Tables(folder / "tables" / INTERACTIONS, folder / "tables" / ITEMS, "user_id", "item_id", "timestamp", ())
    started = time.perf_counter()
    manifest = prepare_tables(tables, folder / "prepared", "synthetic", rules=Rules(salts="by-id"))
    seconds = time.perf_counter() - started
    return {"rows": manifest.interactions + manifest.repeats_dropped, "seconds": round(seconds, 2)}


def embed_at_random(folder: Path, config: RunConfig) -> None:
    """Save random unit vectors as the catalogue's embeddings: their values do not affect the speed."""
    catalogue = Catalogue.load(folder / "prepared")
    encoder = open_encoder(config.model.encoder, config.model.prompt)
    drawn = torch.randn(len(catalogue), encoder.width, generator=torch.Generator().manual_seed(config.seed))
    stamp = Embeddings.provenance_of(catalogue, encoder)
    Embeddings(F.normalize(drawn, dim=-1), stamp, catalogue.trainable_rows).save(folder / "prepared")


def make_world(synthetic: SyntheticConfig, folder: Path, config: RunConfig) -> Path:
    """Write, prepare and embed a made-up federation; return its prepared folder."""
    make_tables(synthetic, folder)
    prepare(folder)
    embed_at_random(folder, config)
    return folder / "prepared"


def open_grid(data: Path, config: RunConfig) -> tuple[LocalGrid, Roster]:
    """In-process nodes, and their users."""
    setup = TrainingSetup(Dataset.open(data), config)
    grid = LocalGrid.over(setup)
    return grid, take_census(grid, config, setup.stamp)


def perturb(adapter: Adapter, seed: int) -> Adapter:
    """Add noise to an initial adapter, as after some training: none of its products is zero."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in adapter.items()}
