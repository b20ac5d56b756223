"""Fixtures: the toy world prepared once, a trained run of it once, and where real data is, if it is there."""

import os
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from fedrec.cli import main
from fedrec.data.catalogue import Catalogue
from fedrec.data.prepare import prepare
from fedrec.data.readers.sources import source_named
from fedrec.data.shard import Shard
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.cli import Fedrec, Outcome
from tests.support.toy_world import begun, small_config, write_toy

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SLOW_FILES = (
    *("test_faults.py", "test_flower.py", "test_notebooks.py", "test_bench.py", "test_closed_form_run.py"),
    *(
        "test_attacks.py",
        "test_page.py",
        "test_reproduce.py",
        "test_privacy_runs.py",
        "test_resume.py",
        "test_story.py",
    ),
    "test_wheel.py",
)
"""Files that take longer than half a minute."""


def pytest_configure(config: pytest.Config) -> None:
    """Everything runs on the processor, where the laws hold to the bit, but for what is asked for by `-m cuda`."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: a test that waits for a federation leaves its core idle."""
    return (psutil.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first, so that nobody waits for them alone."""
    items.sort(key=lambda item: item.path.name not in SLOW_FILES)


@pytest.fixture(autouse=True)
def _a_gpu_where_one_is_needed(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world as a prepared folder."""
    return write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="session")
def catalogue(toy: Path) -> Catalogue:
    return Catalogue.load(toy)


@pytest.fixture(scope="session")
def shard(toy: Path) -> Shard:
    return Shard.load(toy)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The real MiniLM weights, from the package that carries them."""
    return resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def embeddings(toy: Path, catalogue: Catalogue, encoder: Encoder) -> Tensor:
    return embed_catalogue(catalogue, encoder, toy).matrix


@pytest.fixture(scope="session")
def model(encoder: Encoder) -> TwoTowerModel:
    return TwoTowerModel(small_config().model, encoder, seed=0)


@pytest.fixture(scope="session")
def bent(model: TwoTowerModel) -> dict[str, Tensor]:
    """An adapter away from its start, where every part of it matters."""
    generator = torch.Generator().manual_seed(1)
    return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in model.adapter().items()}


@pytest.fixture(scope="session")
def run(toy: Path, embeddings: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy world, trained in this process."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    begun(out, toy, small_config())
    return out


@pytest.fixture(scope="session")
def second_run(toy: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run of the toy world: the same catalogue, another model."""
    out = tmp_path_factory.mktemp("second") / "toy"
    begun(out, toy, small_config(seed=7))
    return out


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; a test that wants it skips where it is absent."""
    folder = Path(os.environ.get("FEDREC_TEST_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set FEDREC_TEST_DATA to a folder with ml-100k.zip")
    return folder


@pytest.fixture(scope="session")
def ml_100k(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens 100K as a prepared folder."""
    folder = tmp_path_factory.mktemp("ml-100k") / "ml-100k"
    zipped = real_data / "ml-100k.zip"
    prepare(source_named("ml-100k"), folder, zipped, lambda done, total: None, lambda text: None)
    return folder


@pytest.fixture
def fedrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fedrec:
    """The console script in this process, with its working folder in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fedrec", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        code, printed = stop.value.code, capsys.readouterr()
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call
