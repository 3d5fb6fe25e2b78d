"""The site before Sphinx: widget states taken and put back, buttons, links, tables, and scripts that are checked."""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import nbformat
import pytest

from course_lib.errors import UserError
from tools import build_site, widget_state

ROOT = Path(__file__).resolve().parent.parent
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


def test_states_are_taken_out_with_their_views_and_numbered():
    nb = executed()
    saved = widget_state.take(nb)
    assert "widgets" not in nb.metadata
    assert [len(cell.outputs) for cell in nb.cells] == [0, 1]
    first, second = f"{1:032x}", f"{2:032x}"
    assert saved["views"] == {"shown": second}
    assert saved["state"][second] == {"state": {"children": [f"IPY_MODEL_{first}"]}}
    again = executed()
    text = nbformat.writes(again).replace(A, "c3" * 16).replace(B, "d4" * 16)
    assert widget_state.take(nbformat.reads(text, 4)) == saved  # other ids, the same bytes


def test_states_are_put_back():
    nb = executed()
    saved = widget_state.take(nb)
    widget_state.put(nb, saved)
    (output,) = nb.cells[0].outputs
    assert output.data[widget_state.VIEW]["model_id"] == saved["views"]["shown"]
    assert nb.metadata.widgets[widget_state.STATE]["state"] == saved["state"]
    nbformat.validate(nb)


def test_a_lesson_without_widgets_has_no_file(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    saved = widget_state.take(nb)
    path = tmp_path / "widgets" / "00.json"
    widget_state.store(path, saved)
    assert not path.exists()
    assert widget_state.load(path) == saved == {"state": {}, "views": {}}


def test_a_file_stays_when_only_milliseconds_are_new(tmp_path):
    path = tmp_path / "00.json"
    for ms, kept in (("1.5", "1.5"), ("9.8", "1.5")):
        widget_state.store(path, {"state": {"x": f"{ms} ms an image"}, "views": {"a": "x"}})
        assert kept in path.read_text()
    widget_state.store(path, {"state": {"x": "1.5 ms a picture"}, "views": {"a": "x"}})
    assert "a picture" in path.read_text()


def test_a_picture_is_not_taken_for_an_id():
    nb = executed()
    nb.metadata.widgets[widget_state.STATE].state[A]["png"] = "iVBOR" + "0123456789abcdef" * 3 + "Z"
    assert "iVBOR" + "0123456789abcdef" * 3 + "Z" in json.dumps(widget_state.take(nb))


def test_a_lesson_on_the_site():
    badge = "[![Open in Colab](https://c/badge.svg)](https://c/github/o/r/blob/main/notebooks/06_x.ipynb)"
    text = f"# Must we?\n\n{badge}\n\n[Lesson 07](07_y.ipynb) and [lesson 09](09_z.ipynb)"
    setup = nbformat.v4.new_code_cell("import sys", metadata={"tags": ["setup"]})
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), setup, *executed().cells])
    saved = {"state": {"m": {}}, "views": {"shown": "m"}}
    nb.cells[2].outputs = []
    made = build_site.lesson(nb, "06_x", names=["06_x", "07_y"], saved=saved)
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


def test_the_table_of_lessons_comes_from_the_readme():
    readme = "| [00_a](notebooks/00_a.ipynb) | What? | 2 |\n| 09_z | Why? | not written yet |\n| other | table |\n"
    table = build_site.lesson_table(readme)
    assert table.splitlines() == ["| [00_a](notebooks/00_a) | What? | 2 |", "| 09_z | Why? | not written yet |"]


def packed(folder, content=b"script"):
    """What `npm pack` leaves in a folder, and its integrity."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/a.js")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    (Path(folder) / "a-1.0.0.tgz").write_bytes(out.getvalue())
    return "sha512-" + base64.b64encode(hashlib.sha512(out.getvalue()).digest()).decode()


def test_scripts_are_fetched_once_and_checked(tmp_path, monkeypatch):
    calls, integrity = [], packed(tmp_path)
    archive = (tmp_path / "a-1.0.0.tgz").read_bytes()

    def npm(command, cwd, **options):
        calls.append(command[-1])
        (Path(cwd) / "a-1.0.0.tgz").write_bytes(archive)

    monkeypatch.setattr(build_site.subprocess, "run", npm)
    wanted = [{"package": "a@1.0.0", "integrity": integrity, "files": {"package/a.js": "a.js"}}]
    for _ in range(2):
        build_site.vendor(tmp_path / "vendor", wanted)
    assert calls == ["a@1.0.0"]
    assert (tmp_path / "vendor" / "a.js").read_bytes() == b"script"
    with pytest.raises(UserError, match=r"not the package that docs/vendor\.json names"):
        build_site.vendor(tmp_path / "vendor", [wanted[0] | {"integrity": "sha512-else"}])
    assert (tmp_path / "vendor" / "a.js").read_bytes() == b"script"


def test_a_folder_with_other_files_is_not_emptied(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sphinx")
    monkeypatch.setattr(build_site, "sources", lambda root, out: None)
    (tmp_path / "letter.txt").write_text("mine")
    assert build_site.main(["--out", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").exists()


def test_a_new_version_of_a_script_is_fetched(tmp_path, monkeypatch):
    integrity = packed(tmp_path, b"new")
    archive = (tmp_path / "a-1.0.0.tgz").read_bytes()
    monkeypatch.setattr(build_site.subprocess, "run", lambda command, cwd, **options: (
        (Path(cwd) / "a-2.0.0.tgz").write_bytes(archive)))  # fmt: skip
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "a.js").write_bytes(b"old")
    build_site.vendor(
        tmp_path / "vendor", [{"package": "a@2", "integrity": integrity, "files": {"package/a.js": "a.js"}}]
    )
    assert (tmp_path / "vendor" / "a.js").read_bytes() == b"new"


def test_views_of_cells_that_are_gone_are_left_out():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Why?")])
    made = build_site.lesson(nb, "00_a", names=[], saved={"state": {}, "views": {"gone": "m"}})
    assert len(made.cells) == 1


def test_without_npm_there_is_one_sentence(tmp_path, monkeypatch):
    def npm(*args, **options):
        raise FileNotFoundError("npm")

    monkeypatch.setattr(build_site.subprocess, "run", npm)
    wanted = [{"package": "a@1.0.0", "integrity": "", "files": {"package/a.js": "a.js"}}]
    with pytest.raises(UserError, match=r"npm could not fetch a@1.0.0 .*install Node.js"):
        build_site.vendor(tmp_path / "vendor", wanted)


def test_the_pages_of_the_package_name_every_module():
    described = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    modules = {path.stem for path in (ROOT / "course_lib").glob("*.py")} - {"__init__", "__main__"}
    assert {name for name in modules if f"course_lib.{name}\n" not in described} == set()
