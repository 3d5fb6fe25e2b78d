"""What an experiment leaves behind: its table, with where it was measured, and nothing to be mistaken for new."""

import json

import pytest

from course_lib import experiments, results


def test_a_finished_experiment_is_stored_and_its_checkpoints_are_gone(tmp_path, monkeypatch):
    runs, stored = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()

    def tiny():
        """One number."""
        (runs / "tiny-unet-0.pt").write_text("weights")
        return [{"net": "unet", "seed": 0, "iou_pooled": 0.5}]

    (runs / "other-unet-0.pt").write_text("of another experiment")
    monkeypatch.setattr(experiments, "RUNS", runs)
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", tiny)
    store = results.store
    monkeypatch.setattr(results, "store", lambda *given, **named: store(*given, **named, folder=stored))
    path = experiments.run("tiny")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["about"], content["command"]) == ("One number.", "python -m course_lib experiment tiny")
    assert content["rows"] == tiny() and {"device", "torch", "date", "commit"} <= set(content["measured"])
    (runs / "tiny-unet-0.pt").unlink()
    experiments.run("tiny")
    assert [file.name for file in runs.iterdir()] == ["other-unet-0.pt"]


def test_a_broken_experiment_keeps_its_checkpoints_to_go_on_with(tmp_path, monkeypatch):
    def breaks():
        raise KeyboardInterrupt

    (tmp_path / "broken-unet-0.pt").write_text("weights")
    monkeypatch.setattr(experiments, "RUNS", tmp_path)
    monkeypatch.setitem(experiments.EXPERIMENTS, "broken", breaks)
    with pytest.raises(KeyboardInterrupt):
        experiments.run("broken")
    assert (tmp_path / "broken-unet-0.pt").exists()
