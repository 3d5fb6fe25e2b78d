"""The checklist for the day before: each point can fail, and says what to do."""

import importlib.util
import os
from pathlib import Path

import pytest

from course_lib import data, train
from course_lib.data import cache
from course_lib.lesson import presets
from tools.run import lessons, workshop

NAMES = ["packages", "kernel", "speed", "memory", "disk", "lessons", "images", "progress", "address"]


@pytest.fixture(autouse=True)
def room(monkeypatch, tmp_path):
    """Small pictures, a folder of its own, a checkout without faults, and no kernel but in the test of it."""
    small = presets.Sizes(images=20, size=16, widths=(2, 3), epochs=3, seeds=1)
    monkeypatch.setitem(presets.PRESETS, "laptop", small)
    monkeypatch.setattr(workshop, "execute", lambda *_, **__: None)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    for source in data.SOURCES.values():
        monkeypatch.delenv(source.variable, raising=False)
    checkout = tmp_path / "checkout"
    (checkout / "notebooks/exercises").mkdir(parents=True)
    (checkout / "notebooks/exercises/00_a.ipynb").touch()
    (checkout / "pyproject.toml").write_text('[tool.course]\nrepository = "https://github.com/me/course"\n')
    for name, value in {"ROOT": checkout, "MEMORY": 1e6, "DISK": 1e3}.items():
        monkeypatch.setattr(workshop, name, value)
    return tmp_path


def point(name):
    return next(point for point in workshop.checklist() if point.name == name)


def test_a_good_machine(capsys, room):
    assert workshop.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert list((room / "cache").iterdir()) == []  # nothing is left behind


def test_a_kernel_really_runs_and_the_training_is_that_of_the_lessons(monkeypatch):
    monkeypatch.setattr(workshop, "execute", lessons.execute)
    assert point("kernel").good
    assert workshop.fit is train.fit


def test_missing_packages(monkeypatch, capsys):
    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbclient" else spec(name))
    assert workshop.main() == 2
    out = capsys.readouterr().out
    assert 'mend  packages  nbclient missing: pip install -e ".[notebooks]"' in out and "mend  kernel" in out


def stopped(*_, **__):
    raise RuntimeError("Kernel died\nbefore")


def slow(*_, **__):
    return [{"seconds": 1.0}, {"seconds": 33.0}]


FAULTS = [
    ("kernel", lambda patch, _: patch.setattr(workshop, "execute", stopped), "does not run (Kernel died before)"),
    ("speed", lambda patch, _: patch.setattr(workshop, "fit", slow), "lesson 00 takes 33 s"),
    ("memory", lambda patch, _: patch.setattr(workshop, "_free_memory", lambda: 9e5), "close other programs"),
    ("disk", lambda patch, _: patch.setattr(workshop, "DISK", 1e18), "set COURSE_DATA elsewhere"),
    ("disk", lambda patch, room: patch.setenv("COURSE_DATA", f"{room}/file/x"), "set COURSE_DATA to another folder"),
    ("lessons", lambda patch, _: patch.setattr(os, "access", lambda *_: False), "copy it into the learner's own"),
    ("images", lambda patch, _: patch.setenv("COURSE_BBBC038_ARCHIVE", "gone.zip"), "names gone.zip, which is not"),
    ("progress", lambda patch, room: patch.setenv("COURSE_PROGRESS", f"{room}/no/me"), "which cannot be written"),
]


@pytest.mark.parametrize(("name", "fault", "said"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_a_fault_is_named(name, fault, said, monkeypatch, room):
    (room / "file").touch()
    assert point(name).good
    fault(monkeypatch, room)
    asked = point(name)
    assert not asked.good and said in asked.said


def test_memory_that_the_system_does_not_tell(monkeypatch):
    free = workshop._free_memory()
    assert free is None or 10**7 < free < 10**14
    monkeypatch.setattr(workshop, "_free_memory", lambda: None)
    assert point("memory").good


def test_a_container_allows_less(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    monkeypatch.setattr(workshop, "CONTAINER", tmp_path)
    assert workshop._free_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert workshop._free_memory() != 2_000_000


def test_images_and_progress_that_are_kept(monkeypatch, room):
    assert point("images").said == "built in"
    archive = cache.folder() / cache.ARCHIVES / "bbbc038.zip"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert point("images").said == "built in, and bbbc038"
    monkeypatch.setenv("COURSE_PROGRESS", str(room / "me.jsonl"))
    assert point("progress").said == f"kept in {room / 'me.jsonl'}"


def test_an_address_that_is_nowhere():
    Path(workshop.ROOT, "pyproject.toml").write_text('[tool.course]\nrepository = "https://github.com/OWNER/course"\n')
    assert "the Colab buttons lead nowhere" in point("address").said
