"""Measured numbers: recorded where asked, stored with their origin, tabulated; and the three presets."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from course_lib.errors import UserError
from course_lib.lesson.presets import PRESETS, Sizes, resolve, sizes
from course_lib.results import as_json, load_results, machine, markdown, record, store, table


def test_without_the_variable_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_RESULTS_DIR", raising=False)
    monkeypatch.setenv("COURSE_LESSON", "04_unet")
    monkeypatch.chdir(tmp_path)
    record(iou=0.8)
    assert list(tmp_path.iterdir()) == []


def test_records_join_and_the_last_value_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("COURSE_LESSON", "04_unet")
    record(iou=0.8, wiring="unet")
    record(iou=0.9, rows=[{"epoch": 1}])
    path = tmp_path / "out" / "04_unet.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"iou": 0.9, "wiring": "unet", "rows": [{"epoch": 1}]}
    monkeypatch.setenv("COURSE_LESSON", "05_how_deep")
    record(iou=0.7)
    assert json.loads((tmp_path / "out" / "05_how_deep.json").read_text(encoding="utf-8")) == {"iou": 0.7}
    assert len(list(path.parent.iterdir())) == 2


def test_a_lesson_without_a_name_records_too(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS_DIR", str(tmp_path))
    monkeypatch.delenv("COURSE_LESSON", raising=False)
    record(iou=0.8)
    assert [path.name for path in tmp_path.iterdir()] == ["lesson.json"]


def test_values_that_json_does_not_know_leave_the_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS_DIR", str(tmp_path))
    monkeypatch.setenv("COURSE_LESSON", "x")
    record(iou=0.8)
    with pytest.raises(TypeError):
        record(mask=torch.ones(2))
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"iou": 0.8}


def test_what_is_stored_is_loaded_with_its_origin(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.results.records.STORED", tmp_path)
    rows = [{"seed": 0, "iou": 0.8123456}, {"seed": 1, "iou": None}]
    path = store("depth", iter(rows), about="U-Nets L1 to L4", command="python -m course_lib ...", folder=tmp_path)
    assert path == tmp_path / "depth.json"
    found = load_results("depth")
    assert list(found) == ["about", "command", "measured", "rows"]
    assert found["rows"] == rows
    assert (found["about"], found["command"]) == ("U-Nets L1 to L4", "python -m course_lib ...")
    assert found["measured"] == machine()


def test_the_checkout_comes_before_the_wheel(tmp_path, monkeypatch):
    for name in ("STORED", "SHIPPED"):
        monkeypatch.setattr(f"course_lib.results.records.{name}", tmp_path / name)
        store("both", [{"from": name}], about="", command="", folder=tmp_path / name)
    store("shipped", [{"from": "SHIPPED"}], about="", command="", folder=tmp_path / "SHIPPED")
    assert load_results("both")["rows"] == [{"from": "STORED"}]
    assert load_results("shipped")["rows"] == [{"from": "SHIPPED"}]


def test_what_was_not_measured_is_said_so():
    with pytest.raises(UserError, match=r"data/results/nothing\.json is not there: not measured yet"):
        load_results("nothing")


def test_where_and_when():
    found = machine()
    assert list(found) == ["device", "torch", "python", "date", "commit"]
    assert found["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert re.fullmatch(r"3\.\d+\.\d+\S*", found["python"])
    assert found["device"]
    assert found["commit"]


def test_a_machine_without_git_has_an_unknown_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine()["commit"] == "unknown"


def test_json_is_one_value_a_line_and_a_list_of_numbers_one():
    content = {"größe": [0.5, -1, 2e-7], "b": [{"c": 1}], "d": [], "e": ["x", "y"]}
    text = as_json(content)
    assert json.loads(text) == content
    assert '"größe": [ 0.5, -1, 2e-07 ]' in text
    assert len(text.splitlines()) == 13 and text.endswith("}\n")


NETS = [{"net": "a", "IoU": 0.5}, {"net": "b", "IoU": None}, {"net": "c"}]
WIRINGS = [{"wiring": "unet", "IoU": 0.83449, "seeds": 3}, {"wiring": "unet++", "IoU": 12.0, "seeds": 10}]


@pytest.mark.parametrize(
    ("rows", "columns", "lines"),
    [
        (WIRINGS, None, ["wiring     IoU  seeds", "unet     0.834      3", "unet++  12.000     10"]),
        (NETS, None, ["net  IoU", "a    0.500", "b    -", "c    not measured yet"]),
        ([{"a": 1, "b": "x", "c": 0.25}], ["c", "a"], ["    c  a", "0.250  1"]),
        ([{"a": 1}], ["d"], ["d", "not measured yet"]),
        ([{"parameters": 9163329, "clear": True}], None, ["parameters  clear", " 9,163,329   True"]),
        ([{"IoU": np.float64(2 / 3)}], None, ["  IoU", "0.667"]),
    ],
)
def test_a_table_by_hand(rows, columns, lines):
    assert [line.rstrip() for line in table(rows, columns).split("\n")] == lines


def test_a_table_of_markdown_has_the_same_cells():
    lines = ["| net | IoU |", "| --- | --- |", "| a | 0.500 |", "| b | - |", "| c | not measured yet |"]
    assert markdown(NETS).split("\n") == lines
    assert markdown(NETS, ["IoU"]).split("\n")[2] == "| 0.500 |"


def test_numpy_floats_are_floats():
    assert table([{"IoU": np.float64(2 / 3)}]).split() == ["IoU", "0.667"]


@pytest.fixture
def no_variable(monkeypatch):
    monkeypatch.delenv("COURSE_PRESET", raising=False)


@pytest.mark.parametrize(("cuda", "expected"), [(True, "gpu"), (False, "laptop")])
def test_auto_asks_the_machine(monkeypatch, no_variable, cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve() == resolve("auto") == expected
    monkeypatch.setenv("COURSE_PRESET", "auto")
    assert resolve() == expected


def test_the_variable_beats_the_machine_and_an_argument_beats_both(monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "smoke")
    assert resolve() == "smoke"
    assert resolve("gpu") == "gpu"
    assert sizes() == PRESETS["smoke"]
    assert sizes("laptop") == PRESETS["laptop"]


def test_unknown_presets_are_refused(monkeypatch, no_variable):
    with pytest.raises(UserError, match="preset 'tiny' is unknown: choose auto, smoke, laptop, gpu"):
        resolve("tiny")
    monkeypatch.setenv("COURSE_PRESET", "huge")
    with pytest.raises(UserError, match="preset 'huge' is unknown"):
        sizes()
    assert resolve("smoke") == "smoke"


def test_presets_grow_and_fit_their_nets():
    rows = list(PRESETS.values())
    assert list(PRESETS) == ["smoke", "laptop", "gpu"]
    for small, large in pairwise(rows):
        assert small.images < large.images
        assert small.size < large.size
        assert len(small.widths) < len(large.widths)
    assert all(isinstance(row, Sizes) and row.size % 2 ** (len(row.widths) - 1) == 0 for row in rows)
    assert all(row.seeds >= 2 for row in rows)  # a mean needs two
