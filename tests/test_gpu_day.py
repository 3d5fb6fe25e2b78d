"""A day on a rented GPU, rehearsed: what a recorded step refuses and does, and how times become shares."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_day
from benchmarks.race import Entrant, train
from benchmarks.speed import shares
from benchmarks.timing import Size, Step, fresh, layers
from course_lib import files
from course_lib.data import draw
from course_lib.errors import UserError
from course_lib.predict import recorded
from course_lib.predict.recorded import PerShape, Recorded
from course_lib.results.race import POPULAR


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_recording_is_refused_in_one_sentence():
    with pytest.raises(UserError, match="a step is recorded on an NVIDIA GPU, and there is none: leave the recording"):
        Recorded(lambda x: x)


def test_each_shape_has_its_own_recording(monkeypatch):
    made = []

    class Noted:
        def __init__(self, step):
            self.step, self.calls = step, 0
            made.append(self)

        def __call__(self, *inputs):
            self.calls += 1
            return self.step(*inputs)

    monkeypatch.setattr(recorded, "Recorded", Noted)
    step = PerShape(lambda images, masks: images.sum() + masks.sum())
    small, large = torch.ones(2, 3, 4, 4), torch.ones(2, 3, 8, 8)
    answers = [step(images, images[:, :1]).item() for images in (small, large, small, small.half(), small)]
    assert answers == [128, 512, 128, 128, 128] and [one.calls for one in made] == [3, 1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("adamw", [False, True])
def test_the_recorded_entrants_of_the_race_train_as_the_others_do(adamw):
    splits = draw(60, 32, seed=3)
    eager = Entrant("", epochs=6, batch=4, adamw=adamw, sizes=(0.5, 1))
    rows = [
        list(train(entrant, entrant.net((4, 6, 10), 0), splits, 0)) for entrant in (eager, replace(eager, record=True))
    ]
    assert rows[1][-1]["val_iou"] == pytest.approx(rows[0][-1]["val_iou"], abs=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_recorded_step_is_the_step():
    total = torch.zeros(3, device="cuda")
    step = Recorded(lambda x: total.add_(x).clone())
    sums = [step(torch.full((3,), float(n), device="cuda")).tolist() for n in range(6)]
    assert sums == [[0.0 + sum(range(n + 1))] * 3 for n in range(6)]


def test_the_layers_of_a_step_are_those_of_forward_three_times():
    size = Size(widths=(2, 3), side=8)
    forward, step = (layers(fresh(size), 2, size, precision="fp32", training=mode) for mode in (False, True))
    assert len(forward) == 7 and step == forward * 3  # three nodes of two, one head


def test_a_step_trains_and_its_loss_is_scaled_back():
    size = Size(widths=(2, 3), side=8, batch=2)
    steps = [Step(size, precision=precision, last=True) for precision in ("fp32", "bf16")]
    losses = [[step(step.images, step.masks).item() for _ in range(30)] for step in steps]
    assert all(some[-1] < some[0] - 0.05 for some in losses)
    assert losses[0][0] == pytest.approx(losses[1][0], abs=0.05) and losses[0] != losses[1]
    bare = Step(size, bias=False)
    assert bare(bare.images, bare.masks).item() == pytest.approx(losses[0][0], abs=1e-5)  # the norm takes it away


def test_times_become_shares_of_the_peaks_of_the_same_run():
    peaks = [{"case": "matrix product bf16", "FLOP/s": 1e12}, {"case": "copy", "bytes/s": 1e9}]
    step = [{"case": "plain", "ms": 8.0}, {"case": "best", "ms": 2.0, "FLOP": 1e9, "format": "bf16"}]
    batch = [{"case": "b", "ms": 4.0, "layers": [[1e9, 1e3], [1e3, 1e6]]}]
    cut = [{"case": f"L{n}", "ms": ms, "MACs": macs, "layers": [[flop, 1e3]]}
           for n, ms, macs, flop in ((2, 8.0, 100, 1e9), (1, 2.0, 10, 5e8))]  # fmt: skip
    shares({"peaks": peaks, "step": step, "batch": batch, "pruning": cut})
    assert step[1]["times as fast"] == 4 and step[1]["of peak"] == pytest.approx(0.5) and "FLOP" not in step[1]
    assert batch[0]["roofline ms"] == pytest.approx(2) and batch[0]["of roofline"] == pytest.approx(0.5)
    assert cut[1]["time over share of MACs"] == pytest.approx(2.5)
    assert cut[1]["time over share of roofline"] == pytest.approx(0.5) and cut[1]["share of MACs"] == 0.1


def test_a_day_goes_on_behind_a_stage_that_fails_and_skips_what_does_not_fit(tmp_path, monkeypatch, capfd):
    calls = {
        "peaks": [sys.executable, "-c", "raise SystemExit(3)"],
        "step": [sys.executable, "-c", "import time; time.sleep(60)"],
        "batch": [sys.executable, "-m", "benchmarks.speed", "--out", tmp_path, "--tiny", "--stages", "upsampling"],
    }
    monkeypatch.setattr(gpu_day, "call_of", lambda name, out, seconds, *, tiny: calls[name])
    monkeypatch.setattr(gpu_day, "DEADLINES", {"peaks": 60, "step": 1, "batch": 60, "profile": 500})
    gpu_day.run(tmp_path, list(gpu_day.DEADLINES), 120, tiny=True)
    said = capfd.readouterr().out
    assert "peaks: ended with 3" in said and "step: its deadline passed" in said and "batch: done" in said
    assert "profile: skipped" in said
    rows = gpu_day.rows_in(tmp_path, "upsampling")
    assert len(rows) == 12 and all(row["ms"] > 0 for row in rows)


def test_what_a_stopped_race_has_measured_is_found(tmp_path):
    (tmp_path / "race_gpu.jsonl").write_text('{"device": "x"}\n{"entrant": "a", "val_iou": [0.5]}\n{"entra')
    assert gpu_day.rows_in(tmp_path, "race_gpu") == [{"entrant": "a", "val_iou": [0.5]}]
    (tmp_path / "race_gpu.json").write_text('{"rows": [{"entrant": "b"}]}')
    assert gpu_day.rows_in(tmp_path, "race_gpu") == [{"entrant": "b"}]
    assert gpu_day.rows_in(tmp_path, "step") == []


def test_what_several_calls_have_measured_is_joined(tmp_path, capsys):
    files.write(tmp_path / "machine.json", json.dumps({"device": "a card"}))
    files.write(tmp_path / "step.json", json.dumps([{"case": "plain", "ms": 8.0}, {"case": "best", "ms": 2.0}]))
    files.write(tmp_path / "large image.json", json.dumps([{"case": "10,000 x 10,000", "seconds": 1.5}]))
    runs = [{"entrant": POPULAR, "seed": n, "val_iou": [0.5 + 0.1 * n]} for n in range(2)]
    files.write(tmp_path / "race_gpu.jsonl", "".join(json.dumps(row) + "\n" for row in [{"device": "a card"}, *runs]))
    gpu_day.join(tmp_path, tiny=False, folder=tmp_path / "joined")
    day, race = (json.loads((tmp_path / "joined" / f"{name}.json").read_text()) for name in ("gpu_day", "race_gpu"))
    assert [row["stage"] for row in day["rows"]] == ["step", "step", "large image"]
    assert day["rows"][1]["times as fast"] == 4 and day["measured"] == race["measured"] == {"device": "a card"}
    assert race["rows"] == runs and not (tmp_path / "joined" / "race_clock_gpu.json").exists()
    assert POPULAR in capsys.readouterr().out
