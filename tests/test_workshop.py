"""The checklist for the day before: each point can fail, and says what to do."""

import importlib.util
import os
from pathlib import Path

import pytest

from course_lib import data, train
from course_lib.__main__ import main
from course_lib.data import cache
from course_lib.lesson import presets
from tools.run import lessons as runner
from tools.run import workshop


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
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
    monkeypatch.setattr(workshop, "CHECKOUT", checkout)
    monkeypatch.setattr(workshop, "MEMORY", 1e6)
    monkeypatch.setattr(workshop, "DISK", 1e3)
    return checkout


def said(name):
    return next(point for point in workshop.checklist() if point.name == name)


def test_a_good_machine(capsys, tmp_path):
    assert main(["doctor", "--workshop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    names = ["packages", "kernel", "speed", "memory", "disk", "lessons", "images", "progress", "address"]
    assert [line.split()[1] for line in lines] == names
    assert list((tmp_path / "cache").iterdir()) == []  # nothing is left behind


def test_a_kernel_really_runs(monkeypatch):
    monkeypatch.setattr(workshop, "execute", runner.execute)
    assert said("kernel").good


def test_a_kernel_that_does_not_run(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Kernel died\nbefore replying")

    monkeypatch.setattr(workshop, "execute", broken)
    point = said("kernel")
    assert not point.good and "a kernel does not run (Kernel died before replying)" in point.said


def test_missing_packages(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbclient" else found(name))
    assert main(["doctor", "--workshop"]) == 2
    out = capsys.readouterr().out
    assert 'mend  packages  nbclient missing: pip install -e ".[notebooks]"' in out and "mend  kernel" in out


def test_a_slow_machine(monkeypatch):
    monkeypatch.setattr(workshop, "fit", lambda *_, **__: iter([{"seconds": 1.0}, {"seconds": 33.0}]))
    point = said("speed")
    assert not point.good and "an epoch of lesson 00 takes 33 s" in point.said


@pytest.mark.parametrize(("free", "good"), [(1.4e9, False), (1.6e9, True), (None, True)])
def test_memory(monkeypatch, free, good):
    monkeypatch.setattr(workshop, "MEMORY", 1.5e9)
    monkeypatch.setattr(workshop, "_free_memory", lambda: free)
    assert said("memory").good == good


def test_free_memory_is_a_number_where_linux_tells():
    free = workshop._free_memory()
    assert free is None or 10**7 < free < 10**14


def test_a_container_allows_less(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    monkeypatch.setattr(workshop, "CONTAINER", tmp_path)
    assert workshop._free_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert workshop._free_memory() != 2_000_000


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "file" / "cache"))
    point = said("disk")
    assert not point.good and "cannot be written" in point.said and "set COURSE_DATA" in point.said


def test_a_full_disk(monkeypatch):
    usage = workshop.shutil.disk_usage(".")
    monkeypatch.setattr(workshop.shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert not said("disk").good


def test_lessons_that_cannot_be_saved(monkeypatch, quick):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "copy it into the learner's own folder" in said("lessons").said


def test_the_package_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(workshop, "CHECKOUT", tmp_path / "site-packages")
    assert said("lessons").good and said("address").good


def test_images(monkeypatch, tmp_path):
    assert said("images").said == "built in"
    archive = cache.folder() / cache.ARCHIVES / "bbbc038.zip"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert said("images").said == "built in, and bbbc038"
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", str(tmp_path / "gone.zip"))
    assert not said("images").good


def test_progress(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "me.jsonl"))
    assert said("progress").said == f"kept in {tmp_path / 'me.jsonl'}"
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "none" / "me.jsonl"))
    assert not said("progress").good


def test_an_address_that_is_nowhere(quick):
    Path(quick, "pyproject.toml").write_text('[tool.course]\nrepository = "https://github.com/OWNER/course"\n')
    assert "the Colab buttons lead nowhere" in said("address").said


def test_the_estimate_rests_on_the_training_of_the_lessons():
    assert workshop.fit is train.fit
