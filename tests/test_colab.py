"""What a learner on Colab is told, and where trainings are kept."""

import sys
from types import ModuleType

import pytest
import torch

from course_lib.errors import UserError
from course_lib.lesson import colab


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A laptop without a GPU, whatever runs the tests."""
    for variable in (colab.VARIABLE, "COURSE_PRESET", "COURSE_PROGRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")


@pytest.fixture
def on_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))


def test_a_laptop_is_told_its_preset_and_keeps_nothing(tmp_path):
    (tmp_path / "drive").mkdir()  # a Drive counts on Colab only
    assert colab.notice() == 'No GPU on this machine: "auto" is the preset laptop here.'
    assert colab.run_folder() is None and colab.kept("05", 2) is None


def test_colab_without_a_gpu_is_told_what_to_click(on_colab):
    first, clicks, second = colab.notice().splitlines()
    assert first == 'No GPU is attached, and the lessons run without one: "auto" is the preset laptop here.'
    assert clicks == "For larger trainings click Runtime, Change runtime type, T4 GPU, Save, then run from the top."
    assert second.startswith("A disconnect loses what was trained.") and second.endswith(colab.MOUNT)
    assert colab.run_folder().as_posix() == "runs"


def test_colab_with_a_gpu_is_told_which(on_colab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    gpu, disconnect = colab.notice().splitlines()
    assert gpu == 'Tesla T4: "auto" is the preset gpu here.' and disconnect.startswith("A disconnect")


def test_a_mounted_drive_keeps_trainings_and_the_variable_goes_first(on_colab, monkeypatch, tmp_path):
    (tmp_path / "drive").mkdir()
    folder = tmp_path / "drive" / "unetpp-course"
    assert colab.run_folder() == folder
    assert colab.notice().splitlines()[2] == f"Trainings are kept in {folder} and go on where they stopped."
    assert not folder.exists()  # to look makes nothing
    monkeypatch.setenv(colab.VARIABLE, str(tmp_path / "mine"))
    assert colab.run_folder() == tmp_path / "mine"
    assert f"kept in {tmp_path / 'mine'}" in colab.notice()


def test_a_training_is_kept_in_a_file_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(colab.VARIABLE, str(tmp_path))
    assert f"kept in {tmp_path}" in colab.notice()  # on a laptop too
    assert colab.kept("05", "small, sharp", 2, 0, 15) == tmp_path / "05-small_sharp-2-0-15.pt"
    trainings = [("05", 2, 1), ("05", 21), ("05", "2.1"), ("10", "U-Net"), ("10", "UNet++"), ("10", "UNet+")]
    assert len({colab.kept(*training) for training in trainings}) == len(trainings)
    assert {colab.kept(name).parent for name in ("a/b", "../up", "C:\\x", "what?")} == {tmp_path}


def test_progress_is_taken_home_from_colab(on_colab, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "ada.jsonl")
    assert colab.notice().splitlines()[-1].endswith("files.download('ada.jsonl')")


def test_a_wrong_preset_is_named_by_the_first_cell(monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "big")
    with pytest.raises(UserError, match="preset 'big' is unknown"):
        colab.notice()
