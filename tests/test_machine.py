"""What the machine offers, and that work is spread over it without changing any result."""

import copy
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Shard
from fedrec.federation.clipping import clip_and_sum
from fedrec.recsys.evaluation.ranking import rank
from fedrec.recsys.hardware import cores, describe_hardware, device, fast_bfloat16, parallel_map
from fedrec.recsys.model.scoring import model_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training import local_training as fitting
from fedrec.recsys.training.local_training import FitConfig, LocalTrainer, training_blocks

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_results_come_in_order_and_from_several_threads() -> None:
    seen = set()

    def squared(number: int) -> int:
        seen.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1
        return number**2

    assert list(parallel_map(squared, range(50))) == [number**2 for number in range(50)]
    assert threading.main_thread().name not in seen


def test_few_items_are_under_way_at_once() -> None:
    """Memory does not grow with the number of items: the source is asked only as results are taken."""
    asked = []

    def source():
        for number in range(100):
            asked.append(number)
            yield number

    results = parallel_map(lambda number: number, source())
    next(results)
    assert len(asked) <= 2 * cores() + 1


def test_an_error_in_a_thread_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(lambda number: 1 // number, [1, 0]))


def test_a_machine_describes_itself() -> None:
    assert describe_hardware() == describe_hardware() | {"cores": cores(), "fast_bfloat16": fast_bfloat16(device())}


def test_blocks_hold_all_clients_once(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_EVENTS", {"cpu": 20})
    cohort = shard.training_windows(range(12), 9, 0, 1)
    parts = list(training_blocks(cohort, torch.device("cpu")))
    assert all(part.mask.size <= 20 or len(part) == 1 for part in parts)
    assert sorted(salt for part in parts for salt in part.salts) == sorted(cohort.salts)


@pytest.mark.parametrize(("least", "sizes"), [(1, [1] * 12), (40, [4, 4, 4]), (1024, [12])])
def test_many_cores_do_not_make_blocks_smaller_than_pays(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, least: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(fitting, "workers", lambda: 64)
    monkeypatch.setattr(fitting, "MIN_EVENTS", least)
    parts = list(training_blocks(shard.training_windows(range(12), 9, 0, 1), torch.device("cpu")))
    assert [len(part) for part in parts] == sizes


def test_bfloat16_stays_near_float32(
    model: TwoTowerModel, bent: dict[str, Tensor], shard: Shard, embeddings: Tensor
) -> None:
    """The stated tolerance: a client's step differs by less than a tenth of its length; the loss by 1 %."""
    changes, losses = {}, {}
    for precision in ("float32", "bfloat16"):
        config = FitConfig(negatives=16, precision=precision)
        for part in training_blocks(shard.training_windows(range(12), 9, 0, 1), embeddings.device):
            fitted = LocalTrainer(model, embeddings, config).train_clients(bent, part, DrawKey(0, 1))
            for place, salt in enumerate(part.salts):
                whole = torch.cat([fitted.deltas[name][place].flatten() for name in sorted(fitted.deltas)])
                changes.setdefault(int(salt), []).append(whole)
                losses.setdefault(int(salt), []).append(float(fitted.losses[place]))
            assert all(tensor.dtype == torch.float32 for tensor in fitted.deltas.values())
    for salt, (exact, near) in changes.items():
        assert not torch.equal(exact, near)
        assert float((exact - near).norm()) < 0.1 * float(exact.norm()), salt
        assert losses[salt][1] == pytest.approx(losses[salt][0], rel=0.01)


@pytest.mark.cuda
def test_a_gpu_trains_and_ranks_what_the_processor_does(
    model: TwoTowerModel, bent: dict[str, Tensor], shard: Shard, embeddings: Tensor
) -> None:
    config = FitConfig(negatives=16, precision="float32")
    found = {}
    for place in ("cpu", "cuda"):
        near = {name: tensor.to(place) for name, tensor in bent.items()}
        table, here = embeddings.to(place), copy.deepcopy(model).to(place)
        _, part = next(shard.training_windows(range(12), 9, 0, 1).blocks(10_000, 12))
        update = clip_and_sum(LocalTrainer(here, table, config).train_clients(near, part, DrawKey(0, 1)), 1, 1.0)
        ranks = rank(model_scorer(here, near, here.item_vectors(near, table)), shard, range(12), "test").ranks
        found[place] = (update, ranks)
    for name, tensor in found["cpu"][0].deltas.items():
        torch.testing.assert_close(found["cuda"][0].deltas[name], tensor, atol=1e-5, rtol=1e-3)
    assert (abs(found["cpu"][1] - found["cuda"][1]) <= 1).all()


@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[never]" in HUGE_PAGES.read_text(), reason="this system has no huge pages"
)
@pytest.mark.parametrize(("asked", "huge"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_large_tensors_lie_in_huge_pages(asked: dict[str, str], huge: bool) -> None:
    code = (
        "import torch, fedrec.recsys.hardware; x = torch.ones(2**24); "
        "print(sum(int(line.split()[1]) for line in open('/proc/self/smaps') if line.startswith('AnonHugePages')))"
    )
    told = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | asked
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 0) == huge
