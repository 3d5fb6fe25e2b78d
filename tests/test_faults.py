"""A training that is stopped: by a signal, by a full disk, by a full GPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from course_lib.data import load as load_data
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import predict, probabilities
from course_lib.train import fit
from course_lib.train.checkpoint import load, load_model
from tests.weights import same_weights

HERE = Path(__file__).resolve().parent
TRAIN = [sys.executable, "-m", "course_lib", "train", "--size", "32", "--widths", "4", "6", "--precision", "fp32"]
TRAIN += ["--device", "cpu", "--batch-size", "2", "--epochs"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def losses(out):
    return [line.split(",")[1] for line in (out / "log.csv").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A training that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    call = [*TRAIN, "60", "--data", str(folder), "--out", str(out)]
    subprocess.run(call, env=ENVIRONMENT, check=True, capture_output=True)
    return out


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_told_to_stop_goes_on_bit_identical(whole, folder, tmp_path, sign):
    call = [*TRAIN, "60", "--data", str(folder)]
    log = tmp_path / "told" / "log.csv"
    process = subprocess.Popen(
        [*call, "--out", tmp_path / "told"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(sign, signal.SIG_DFL if sign != signal.SIGINT else signal.default_int_handler),
    )
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.002)
    process.send_signal(sign)
    _, said = process.communicate()
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert "Traceback" not in said
    if sign == signal.SIGINT:
        assert "the same command goes on where this one was" in said
    assert 3 <= len(load(tmp_path / "told" / "checkpoint.pt")["rows"]) < 60
    subprocess.run([*call, "--out", tmp_path / "told"], env=ENVIRONMENT, check=True, capture_output=True)
    assert same_weights(*(load_model(out / "model.pt")[0] for out in (whole, tmp_path / "told")))
    assert losses(whole) == losses(tmp_path / "told")


@pytest.mark.skipif(os.name == "nt", reason="limits are others there")
def test_a_disk_that_fills_while_a_checkpoint_is_written(folder, tmp_path):
    """No file may grow beyond half of a checkpoint: the one of before stays, and with room again it goes on."""
    out = tmp_path / "run"
    call = [*TRAIN, "5", "--data", str(folder), "--out", str(out)]
    code = "import sys; from course_lib.train import checkpoint; from course_lib.__main__ import main\n"
    code += "original = checkpoint.save\n"
    code += "checkpoint.save = lambda *a: (original(*a), len(a[0]['rows']) == 2 and sys.exit(3))\n"
    code += "main(sys.argv[1:])"
    stopped = subprocess.run(
        [sys.executable, "-c", code, *call[3:]], env=ENVIRONMENT, capture_output=True, cwd=HERE.parent
    )
    assert stopped.returncode == 3
    before = (out / "checkpoint.pt").read_bytes()
    half = len(before) // 2

    def limited():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))

    full = subprocess.run(call, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 2 and "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"error: {out / 'checkpoint.pt'} cannot be written (File too large)")
    assert (out / "checkpoint.pt").read_bytes() == before
    assert not list(out.glob(".*.partial"))
    subprocess.run(call, env=ENVIRONMENT, check=True, capture_output=True)
    assert len(load(out / "checkpoint.pt")["rows"]) == 5


def test_a_full_gpu_is_said_in_a_sentence(folder):
    class Greedy(NestedUNet):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    splits = load_data(folder, 32, progress=False)
    with pytest.raises(UserError, match="the GPU's memory is full: use a batch_size below 6"):
        list(fit(Greedy(widths=(2, 3)), splits, epochs=1))
    net, images = Greedy(), splits.val.images
    for predicted in (lambda: probabilities(net, images), lambda: predict(net, images[0])):
        with pytest.raises(
            UserError, match="the GPU's memory is full: use smaller tiles or batches, or the device cpu"
        ):
            predicted()
