"""The job with Colab's versions, without them: its runner, its disguise, and where git finds the course."""

import json
import os
import subprocess
import sys
import tomllib

import nbformat
import pytest

from tools import checkout, colab

COURSE = tomllib.loads((colab.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]


def execute(folder, *sources):
    cells = [nbformat.v4.new_markdown_cell("# Why?"), *map(nbformat.v4.new_code_cell, sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "a.ipynb")
    call = [sys.executable, "-c", colab.RUNNER, folder / "a.ipynb"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


def test_the_runner_tells_seconds_and_what_the_set_up_said(tmp_path):
    done = execute(tmp_path, "print('No GPU')", "import time; time.sleep(0.2)")
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["said"] == "No GPU" and 0 < row["setup"] < row["seconds"] - 0.2


def test_the_runner_fails_with_a_failing_cell(tmp_path):
    done = execute(tmp_path, "1", "raise ValueError('no ' + 'good')")
    assert done.returncode == 1 and "no good" in done.stderr


def test_git_finds_the_course_at_its_address(tmp_path):
    redirected = colab.address(COURSE, tmp_path / "course")
    env = os.environ | redirected
    clone = ["git", "clone", "-q", "--branch", COURSE["ref"], COURSE["repository"], tmp_path / "clone"]
    subprocess.run(clone, env=env, check=True, capture_output=True)
    assert checkout.files(tmp_path / "clone") == checkout.files()


def test_the_python_that_runs_it_is_refused(capsys):
    assert colab.main(["--python", sys.executable]) == 2
    assert "is the Python that runs this" in capsys.readouterr().err


def test_an_unknown_lesson_is_named(capsys):
    assert colab.main(["--only", "77"]) == 2
    assert "--only 77 names no lesson" in capsys.readouterr().err


@pytest.mark.parametrize("with_git", [True, False])
def test_files_of_the_course(with_git, tmp_path):
    tmp_path = tmp_path / "course"
    tmp_path.mkdir()
    for name in (
        "README.md",
        "data/results/a.json",
        "data/cache/big.npz",
        ".venv/x",
        "build/y",
        "course_lib/__pycache__/z",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if with_git:
        (tmp_path / ".gitignore").write_text("data/cache\n.venv\nbuild\n__pycache__\n")
        for command in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    else:
        subprocess.run(
            ["git", "-C", str(tmp_path.parent), "init", "-q"], check=True
        )  # of somebody who unpacked a zip in it
    expected = ["README.md", "data/results/a.json"]
    assert [name for name in checkout.files(tmp_path) if name != ".gitignore"] == expected
