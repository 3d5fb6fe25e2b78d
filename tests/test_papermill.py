"""Lessons with other parameters than the stored ones."""

import json

import nbformat
import pytest

from tools.checkout import ROOT
from tools.notebooks import run_parametrised


@pytest.fixture
def lesson(tmp_path):
    """A lesson of three cells that records its parameters."""
    cells = [
        nbformat.v4.new_code_cell("PRESET = 'auto'\nSEED = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os\nassert 'COURSE_PRESET' not in os.environ"),
        nbformat.v4.new_code_cell("from course_lib.results import record\nrecord(preset=PRESET, seed=SEED)"),
    ]
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "00_small.ipynb")
    return tmp_path / "00_small.ipynb"


def test_parameters_reach_the_lesson_and_its_results_come_back(lesson, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "gpu")  # a parameter that is given counts, not the environment
    (tmp_path / "out").mkdir()
    (tmp_path / "out/00_small.json").write_text('{"old": 1}')
    assert run_parametrised.main([str(lesson), str(tmp_path / "out"), "-p", "PRESET=smoke", "-p", "SEED=5"]) == 0
    assert json.loads(capsys.readouterr().out) == {"preset": "smoke", "seed": 5}


def test_an_unknown_parameter_is_refused_before_anything_runs(lesson, tmp_path, capsys):
    assert run_parametrised.main([str(lesson), str(tmp_path / "out"), "-p", "SEEDS=1"]) == 2
    assert capsys.readouterr().err == "error: 00_small.ipynb has no parameter SEEDS: choose from PRESET, SEED\n"
    assert not (tmp_path / "out").exists()


def test_the_unet_lesson_learns_with_another_seed(tmp_path):
    parameters = {"PRESET": "smoke", "DATA": "synthetic", "SEED": 1}
    results = run_parametrised.run(ROOT / "notebooks/04_unet.ipynb", tmp_path, parameters)
    assert results["val_iou"] > results["otsu_iou"] + 0.05
    assert results["boundary_lost_without_skips"] > 0.05
