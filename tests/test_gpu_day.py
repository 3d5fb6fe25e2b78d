"""A day on a rented GPU, rehearsed: what a recorded step refuses and does, and how times become shares."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks.gpu_day import roofline, shares
from course_lib.errors import UserError
from course_lib.predict.recorded import Recorded
from tools.checkout import ROOT


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_recording_is_refused_in_one_sentence():
    with pytest.raises(UserError, match="a step is recorded on an NVIDIA GPU, and there is none: leave the recording"):
        Recorded(lambda x: x)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_recorded_step_is_the_step():
    total = torch.zeros(3, device="cuda")
    step = Recorded(lambda x: total.add_(x).clone())
    sums = [step(torch.full((3,), float(n), device="cuda")).tolist() for n in range(6)]
    assert sums == [[0.0 + sum(range(n + 1))] * 3 for n in range(6)]


def test_a_roofline_by_hand(monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_day.Size.side", 8)
    ((flop, moved),) = roofline(nn.Conv2d(3, 5, 3, padding=1), 2, training=False)
    assert flop == 2 * (2 * 5 * 8 * 8) * 27 and moved == 2 * (2 * 3 * 64 + 2 * 5 * 64 + 5 * 27)
    assert len(roofline(nn.Conv2d(3, 5, 3, padding=1), 2, training=True)) == 3


def test_times_become_shares_of_the_peaks_of_the_same_run():
    peaks = [{"case": "matrix product bf16", "FLOP/s": 1e12}, {"case": "copy", "bytes/s": 1e9}]
    step = [{"case": "plain", "ms": 8.0}, {"case": "best", "ms": 2.0, "FLOP": 1e9, "format": "bf16"}]
    batch = [{"case": "b", "ms": 4.0, "layers": [[1e9, 1e3], [1e3, 1e6]]}]
    shares({"peaks": peaks, "step": step, "batch": batch})
    assert step[1]["times as fast"] == 4 and step[1]["of peak"] == pytest.approx(0.5) and "FLOP" not in step[1]
    assert batch[0]["roofline ms"] == pytest.approx(2) and batch[0]["of roofline"] == pytest.approx(0.5)


def test_a_stage_writes_its_rows(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--out", tmp_path, "--tiny", "--stage", "upsampling"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads((tmp_path / "upsampling.json").read_text(encoding="utf-8"))
    assert len(rows) == 12 and all(row["ms"] > 0 for row in rows)
