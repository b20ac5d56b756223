"""Another modality in the vectors of items: it is saved with its name, and a node with another one takes no part."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.federation.census import take_census
from fedrec.federation.client_app import client_app
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.embeddings import MODALITY, embed_catalogue
from fedrec.recsys.encoders.find import resolve_encoder
from tests.support.toy_world import small_config


@pytest.fixture
def pictured(toy: Path, tmp_path: Path) -> Path:
    """The toy world with pictures."""
    return with_pictures(toy, tmp_path / "pictured", "pictures of 2024")


def with_pictures(toy: Path, folder: Path, name: str) -> Path:
    shutil.copytree(toy, folder)
    texts = embed_catalogue(Catalogue.load(toy), resolve_encoder(small_config().model.encoder), toy)
    texts.mixed(texts.matrix.flip(1), name).save(folder)
    return folder


def grid_of(nodes: list[Node], config: RunConfig) -> LocalGrid:
    """A grid of nodes that share nothing."""
    return LocalGrid(client_app(lambda context: nodes[context.node_id - 1]), [{}] * len(nodes), to_flat(config))


def test_a_mix_is_read_again_with_its_name(toy: Path, pictured: Path) -> None:
    encoder = resolve_encoder(small_config().model.encoder)
    texts, mixed = (embed_catalogue(Catalogue.load(folder), encoder, folder) for folder in (toy, pictured))
    assert torch.equal(mixed.matrix, texts.matrix.flip(1))
    assert mixed.provenance == texts.provenance | {MODALITY: "pictures of 2024"}
    assert MODALITY not in texts.provenance


def test_nodes_with_other_pictures_or_none_are_left_out(
    toy: Path, pictured: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = with_pictures(toy, tmp_path / "other", "pictures of 2023")
    config = small_config(nodes=3)
    setups = [TrainingSetup(Dataset.open(folder), config) for folder in (pictured, other, toy)]
    nodes = [Node.host(setup, part, parts=3) for part, setup in enumerate(setups)]
    with caplog.at_level(logging.WARNING):
        roster = take_census(grid_of(nodes, config), config, setups[0].embeddings.provenance)
    assert set(roster.nodes.tolist()) == {1}
    assert "node 2 is left out: its modality is 'pictures of 2023', not 'pictures of 2024'" in caplog.text
    assert "node 3 is left out: its modality is 'None', not 'pictures of 2024'" in caplog.text
    alike = [Node.host(setups[0], part, parts=3) for part in range(3)]  # the control
    roster = take_census(grid_of(alike, config), config, setups[0].embeddings.provenance)
    assert set(roster.nodes.tolist()) == {1, 2, 3}
