"""The job with Colab's versions, without them: one lesson, the disguise, and where git finds the course."""

import os
import subprocess
import sys

import nbformat
import pytest

from tools import checkout
from tools.run import colab


def lesson(folder, *sources):
    cells = [nbformat.v4.new_markdown_cell("# Why?"), *map(nbformat.v4.new_code_cell, sources)]
    nb = nbformat.v4.new_notebook(cells=cells)
    return colab.lesson(nb, cwd=folder, env=dict(os.environ), python=sys.executable)


def test_a_lesson_tells_seconds_and_what_the_set_up_said(tmp_path):
    row = lesson(tmp_path, "import os; print(os.environ.get('PYTHONPATH'))", "import time; time.sleep(0.2)")
    assert row["passed"] and 0 < row["setup"] < row["seconds"] - 0.2
    assert row["said"] == str(
        os.environ.get("PYTHONPATH")
    )  # not our course_lib: there the set-up cell has to bring one
    failed = lesson(tmp_path, "1", "raise ValueError('no ' + 'good')")
    assert not failed["passed"] and "no good" in failed["said"]


def test_the_disguise_is_taken_off(tmp_path, monkeypatch):
    removed = []
    monkeypatch.setattr(colab, "answer", lambda python, code: str(tmp_path))
    monkeypatch.setattr(colab.subprocess, "run", lambda command, **_: removed.append(command[-1]))
    with colab.disguise("python"):
        assert (tmp_path / "google/colab/__init__.py").is_file() and removed == ["unetpp-course"]
        assert (tmp_path / "as_on_colab.pth").read_text() == "import google.colab\n"
    assert list(tmp_path.rglob("*colab*")) == [] and removed == ["unetpp-course"] * 2


def test_git_finds_the_course_at_its_address(tmp_path):
    course = checkout.address()
    env = os.environ | colab.redirected(course, tmp_path / "course")
    clone = ["git", "clone", "-q", "--branch", course["ref"], course["repository"], tmp_path / "clone"]
    subprocess.run(clone, env=env, check=True, capture_output=True)
    assert checkout.files(tmp_path / "clone") == checkout.files()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--python", sys.executable], "is the Python that runs this"), (["--only", "77"], "--only 77 names no lesson")],
)
def test_mistakes_are_told(arguments, said, capsys):
    assert colab.main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("with_git", [True, False])
def test_files_of_the_course(with_git, tmp_path):
    root = tmp_path / "course"
    ours = ["README.md", "data/results/a.json"]
    for name in (*ours, "data/cache/big.npz", ".venv/x", "build/y", "course_lib/__pycache__/z"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if with_git:
        (root / ".gitignore").write_text("data/cache\n.venv\nbuild\n__pycache__\n")
    place = root if with_git else tmp_path  # of somebody who unpacked a zip in it
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(place), *command], check=True)
    assert [name for name in checkout.files(root) if name != ".gitignore"] == ours
