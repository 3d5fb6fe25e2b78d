"""Two processes on the CPU: one net on both, the gradient of the whole batch, files of the first alone."""

import csv
import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from course_lib.data import draw
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict.setting import Setting
from course_lib.train import Recipe, distributed, fit
from course_lib.train.checkpoint import load, load_model

TRAIN = "train --size 32 --widths 4 6 --deep-supervision --epochs 25 --batch-size 2 --device cpu --precision fp32"
CPU, IMAGES = Setting("cpu"), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_without_torchrun_nothing_happens(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as schedulers of clusters set it
    net = nn.Conv2d(1, 1, 3)
    distributed.start()
    assert (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.parallel(net) is net
    assert list(range(5))[distributed.my_part()] == [0, 1, 2, 3, 4]


BROKEN = [
    ({"RANK": "0"}, "'WORLD_SIZE'"),
    ({"RANK": "zero", "WORLD_SIZE": "2"}, "invalid literal for int"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is not below WORLD_SIZE"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
]


@pytest.mark.parametrize(("environment", "reason"), BROKEN)
def test_a_broken_environment_is_said_in_a_sentence(monkeypatch, environment, reason):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"TORCHELASTIC_RUN_ID": "none"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"the processes cannot meet \(.*{reason}.*\): start .* one torchrun command"):
        distributed.start()


def make(seed, *, norms=True):
    """U-Net^e with one head: its node x^{0,1} gets no gradient."""
    torch.manual_seed(seed)
    net = NestedUNet(widths=(4, 6, 8), wiring="unet-e")
    for i, j in net.nodes if not norms else ():
        net.node(i, j).bn1 = net.node(i, j).bn2 = nn.Identity()
    return net


def trains(rank, port, folder):
    """What each of two processes does, in the environment that torchrun gives it; the first one's weights count."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.start()
    net, splits, path, found = make(rank, norms=False), draw(30, 32), folder / "checkpoint.pt", {}
    learner = distributed.parallel(net)
    learner(IMAGES[distributed.my_part()])[-1].square().mean().backward()
    found["gradients"] = [parameter.grad for parameter in net.parameters()]

    def fitted(seed, *, norms=True, batch_size=6, checkpoint=None):
        net = make(seed, norms=norms)
        for row in fit(net, splits, epochs=2, recipe=Recipe(batch_size), setting=CPU, checkpoint=checkpoint):
            yield row | {"seconds": 0}, {name: value.clone() for name, value in net.state_dict().items()}

    found["norms"], found["none"] = list(fitted(rank)), list(fitted(rank, norms=False))
    next(fitted(rank, checkpoint=path))
    distributed.wait()
    found["resumed"] = list(fitted(rank + 5, checkpoint=path))
    with pytest.raises(
        UserError, match=r"a batch of 3 \(of 18 training images\) cannot be dealt to 2 processes: use a"
    ):
        next(fitted(rank, batch_size=3))
    with pytest.raises(UserError, match="the processes see different checkpoints: write to a disk that they share"):
        next(fitted(rank, checkpoint=path if rank == 0 else folder / "elsewhere.pt"))
    torch.save(found, folder / f"{rank}.pt")
    distributed.stop()


def test_two_processes_train_one_net(tmp_path, free_port):
    mp.spawn(trains, args=(free_port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name in ("norms", "none", "resumed"):
        for (row, weights), (other, copies) in zip(first[name], second[name], strict=True):
            assert row == other and all(torch.equal(value, copies[key]) for key, value in weights.items())
    (row, weights), (other, copies) = first["norms"][-1], first["resumed"][-1]
    assert row == other and all(torch.equal(value, copies[key]) for key, value in weights.items())
    assert list(load(tmp_path / "checkpoint.pt")["net"]) == list(make(0).state_dict())  # no "module." before a name

    # Without norms, parts of a batch do what the whole does.
    alone, gradients = make(0, norms=False), make(0, norms=False)
    gradients(IMAGES)[-1].square().mean().backward()
    for of_parts, parameter in zip(first["gradients"], gradients.parameters(), strict=True):
        torch.testing.assert_close(of_parts, parameter.grad)
    losses = [row["loss"] for row in fit(alone, draw(30, 32), epochs=2, recipe=Recipe(6), setting=CPU)]
    assert losses == pytest.approx([row["loss"] for row, _ in first["none"]], abs=1e-5)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first["none"][-1][1][name], value, atol=1e-4, rtol=0)


def trains_on_a_gpu(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)  # both on one GPU
    rows = list(fit(make(rank), draw(30, 32), epochs=2, recipe=Recipe(6), setting=Setting("cuda")))
    torch.save([row["loss"] for row in rows], folder / f"{rank}.pt")
    distributed.stop()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_gpus_batch_norm_counts_over_all_processes(tmp_path, free_port):
    mp.spawn(trains_on_a_gpu, args=(free_port, tmp_path), nprocs=2)
    alone = [row["loss"] for row in fit(make(0), draw(30, 32), epochs=2, recipe=Recipe(6), setting=Setting("cuda"))]
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(alone, abs=2e-3)


def test_torchrun_trains_one_model(tmp_path, free_port, folder):
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port}"]
    call += ["-m", "course_lib", *TRAIN.split(), "--data", str(folder), "--out", str(tmp_path)]
    done = subprocess.run(call, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1  # one process speaks
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == [str(n) for n in range(1, 26)]
    assert float(rows[-1]["val_iou"]) > 0.7
    net, facts = load_model(tmp_path / "model.pt")
    assert net.config["widths"] == (4, 6) and facts["size"] == 32
