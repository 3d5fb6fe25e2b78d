"""Two processes on the CPU do what one does with the same global batch."""

import csv
import os
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from course_lib.train import distributed
from course_lib.train.distributed import GlobalBatchNorm

TRAIN = "train --size 32 --widths 4 6 --deep-supervision --epochs 25 --batch-size 2 --device cpu --precision fp32"


def test_without_torchrun_nothing_happens():
    net = nn.Conv2d(1, 1, 3)
    distributed.start()
    assert (distributed.rank(), distributed.size()) == (0, 1)
    distributed.share(net)
    distributed.average_gradients(net)
    assert list(range(5))[distributed.my_part()] == [0, 1, 2, 3, 4]


def test_global_batch_norm_alone_is_batch_norm():
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3)
    nn.init.uniform_(plain.weight)
    ours = GlobalBatchNorm(3)
    ours.load_state_dict(plain.state_dict())
    for _ in range(2):
        x = torch.randn(4, 3, 5, 7, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        (plain(x) * torch.arange(7)).sum().backward()
        (ours(y) * torch.arange(7)).sum().backward()
        assert torch.allclose(x.grad, y.grad, atol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].float(), value.float(), atol=1e-5), name
    assert torch.allclose(plain.eval()(x), ours.eval()(x), atol=1e-6)


def _half_of_the_batch(rank, port, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.start()
    torch.manual_seed(rank)  # the first process's weights count, whatever the others drew
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 3))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))[distributed.my_part()]
    distributed.share(net)
    net(x).square().mean().backward()
    distributed.average_gradients(net)
    torch.save([parameter.grad for parameter in net.parameters()], folder / f"{rank}.pt")
    distributed.stop()


def test_gradients_of_two_halves_are_those_of_the_whole_batch(tmp_path, free_port):
    mp.spawn(_half_of_the_batch, args=(free_port, tmp_path), nprocs=2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 3))
    net(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))).square().mean().backward()
    for rank in (0, 1):
        for ours, whole in zip(torch.load(tmp_path / f"{rank}.pt"), net.parameters(), strict=True):
            assert torch.allclose(ours, whole.grad, atol=1e-6)


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_torchrun_with_two_processes_scores_like_one(tmp_path, free_port, folder):
    one = [sys.executable, "-m", "course_lib"]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port}"]
    two += ["-m", "course_lib"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rows = {}
    for name, program in (("one", one), ("two", two)):
        call = [*program, *TRAIN.split(), "--data", str(folder), "--out", str(tmp_path / name)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch   1") == 1  # one process speaks
        with (tmp_path / name / "log.csv").open() as file:
            rows[name] = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows["two"]] == [str(n) for n in range(1, 26)]
    first, last = ({name: log[n] for name, log in rows.items()} for n in (0, -1))
    assert float(first["one"]["loss"]) == pytest.approx(float(first["two"]["loss"]), abs=1e-4)
    assert float(last["one"]["val_iou"]) > 0.7
    assert float(last["one"]["val_iou"]) == pytest.approx(float(last["two"]["val_iou"]), abs=1e-3)


def test_a_scheduler_that_sets_world_size_announces_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    distributed.start()
    assert distributed.size() == 1
