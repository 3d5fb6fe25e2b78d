"""The site before Sphinx: widget states taken and put back, buttons, links, tables, and scripts that are checked."""

import base64
import hashlib
import io
import json
import re
import tarfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from course_lib.errors import UserError
from tools.checkout import ROOT
from tools.notebooks import widget_state
from tools.publish import site

A, B = "a1" * 16, "b2" * 16


def executed():
    """A lesson after its run: one widget (a box with one child), its twin, and a stream."""
    view = {widget_state.VIEW: {"model_id": B, "version_major": 2}, "text/plain": "interactive(...)"}
    shown = nbformat.v4.new_code_cell("widgets.grid_explorer()", id="shown")
    shown.outputs = [nbformat.v4.new_output("execute_result", data=view, execution_count=1)]
    other = nbformat.v4.new_code_cell("print(1)", id="other")
    other.outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nb = nbformat.v4.new_notebook(cells=[shown, other])
    state = {A: {"model_name": "IntSlider"}, B: {"state": {"children": [f"IPY_MODEL_{A}"]}}}
    nb.metadata["widgets"] = {widget_state.STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    return nb


def test_states_are_taken_out_with_their_views_numbered_and_put_back():
    nb = executed()
    saved = widget_state.take(nb)
    assert "widgets" not in nb.metadata
    assert [len(cell.outputs) for cell in nb.cells] == [0, 1]
    first, second = f"{1:032x}", f"{2:032x}"
    assert saved["views"] == {"shown": second}
    assert saved["state"][second] == {"state": {"children": [f"IPY_MODEL_{first}"]}}
    other_ids = nbformat.writes(executed()).replace(A, "c3" * 16).replace(B, "d4" * 16)
    assert widget_state.take(nbformat.reads(other_ids, 4)) == saved
    widget_state.put(nb, saved)
    assert nb.cells[0].outputs[0].data[widget_state.VIEW]["model_id"] == second
    assert nb.metadata.widgets[widget_state.STATE]["state"] == saved["state"]
    nbformat.validate(nb)


def test_a_lesson_without_widgets_has_no_file(tmp_path):
    saved = widget_state.take(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    widget_state.store(tmp_path / "00.json", saved)
    assert not (tmp_path / "00.json").exists()
    assert widget_state.load(tmp_path / "00.json") == saved == {"state": {}, "views": {}}


def test_a_file_stays_when_only_milliseconds_are_new(tmp_path):
    path = tmp_path / "00.json"
    for text, kept in (("1.5 ms", "1.5 ms"), ("9.8 ms", "1.5 ms"), ("9.8 ms a picture", "9.8 ms a picture")):
        widget_state.store(path, {"state": {"x": text}, "views": {"a": "x"}})
        assert kept in path.read_text()


def test_a_picture_is_not_taken_for_an_id():
    nb = executed()
    picture = "iVBOR" + "0123456789abcdef" * 3 + "Z"
    nb.metadata.widgets[widget_state.STATE].state[A]["png"] = picture
    assert picture in json.dumps(widget_state.take(nb))


def test_a_lesson_on_the_site():
    badge = "[![Open in Colab](https://c/badge.svg)](https://c/github/o/r/blob/main/notebooks/06_x.ipynb)"
    text = f"# Must we?\n\n{badge}\n\n[Lesson 07](07_y.ipynb) and [lesson 09](09_z.ipynb)"
    setup = nbformat.v4.new_code_cell("import sys", metadata={"tags": ["setup"]})
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), setup, *executed().cells])
    saved = {"state": {"m": {}}, "views": {"shown": "m"}}
    nb.cells[2].outputs = []
    made = site.lesson(nb, "06_x", names=["06_x", "07_y"], saved=saved)
    first = made.cells[0].source
    assert first.startswith("# 06 Must we?")
    assert "[Lesson 07](07_y.ipynb) and lesson 09" in first
    assert "badge.svg" not in first
    assert 'href="https://c/github/o/r/blob/main/notebooks/exercises/06_x.ipynb"' in first
    assert 'href="exercises/06_x.ipynb" download' in first
    assert made.cells[1].metadata.tags == ["setup", "hide-input"]
    assert widget_state.VIEW in made.cells[2].outputs[0].data
    assert "kernel" in made.cells[3].source
    nbformat.validate(made)
    gone = site.lesson(nbformat.v4.new_notebook(cells=nb.cells[:1]), "06_x", names=[], saved=saved)
    assert len(gone.cells) == 1  # no note for the view of a cell that is not there


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """`npm pack` of one script without a network: the entry of docs/vendor.json, and what was asked for."""
    out, content = io.BytesIO(), b"script"
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/a.js")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    asked = []

    def pack(command, cwd, **options):
        asked.append(command[-1])
        Path(cwd, "a-1.0.0.tgz").write_bytes(out.getvalue())

    monkeypatch.setattr(site.subprocess, "run", pack)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(out.getvalue()).digest()).decode()
    return {"package": "a@1.0.0", "integrity": integrity, "files": {"package/a.js": "a.js"}}, asked


def test_scripts_are_fetched_once_checked_and_fetched_again_for_a_new_version(npm, tmp_path):
    entry, asked = npm
    (tmp_path / "a.js").write_bytes(b"old")  # of a version before
    for _ in range(2):
        site.vendor(tmp_path, [entry])
    assert asked == ["a@1.0.0"] and (tmp_path / "a.js").read_bytes() == b"script"
    with pytest.raises(UserError, match=r"not the package that docs/vendor\.json names"):
        site.vendor(tmp_path, [entry | {"integrity": "sha512-else"}])
    assert (tmp_path / "a.js").read_bytes() == b"script"


def test_without_npm_there_is_one_sentence(npm, tmp_path, monkeypatch):
    def gone(*args, **options):
        raise FileNotFoundError("npm")

    monkeypatch.setattr(site.subprocess, "run", gone)
    with pytest.raises(UserError, match=r"npm could not fetch a@1.0.0 .*install Node.js"):
        site.vendor(tmp_path, [npm[0]])


def test_a_folder_with_other_files_is_not_emptied(tmp_path, capsys):
    pytest.importorskip("sphinx")
    (tmp_path / "letter.txt").write_text("mine")
    assert site.main(["--out", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").exists()


def test_the_pages_of_the_package_name_every_room_and_nothing_that_is_not_there():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    named = re.findall(r"automodule:: (\S+)", pages)
    rooms = {path.stem for path in (ROOT / "course_lib").iterdir() if not path.stem.startswith("_")}
    assert {room for room in rooms if not any(f"{name}.".startswith(f"course_lib.{room}.") for name in named)} == set()
    assert [name for name in named if find_spec(name) is None] == []
