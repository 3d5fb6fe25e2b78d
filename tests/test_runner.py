"""Running the lessons: rows, pages, scores, and what happens when a lesson fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import nbval.kernel
import pytest

from course_lib.errors import UserError
from tools.run import __main__ as command
from tools.run import lessons as runner
from tools.run import sockets
from tools.run.lessons import run_lessons, select
from tools.run.report import summary

FIGURE = """
import matplotlib.pyplot as plt
from IPython.display import display
figure, axes = plt.subplots(figsize=(1, 1))
plt.close(figure)
display(figure, metadata={"image/png": {"alt": "empty <axes>"}})
"""
RECORD = """
import os
from course_lib.results import record
record(val_iou=0.81234, images=12, curve=[1, 2], preset=os.environ["COURSE_PRESET"], folder=os.getcwd())
"""


def lesson(folder: Path, name: str, *sources: str) -> None:
    cells = [nbformat.v4.new_markdown_cell(f"# What is {name} & co?\n\nText.")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run over a good lesson, two that fail in different ways, and another good one."""
    root = tmp_path_factory.mktemp("run")
    (root / "notebooks").mkdir()
    lesson(root / "notebooks", "00_good", FIGURE, RECORD)
    lesson(root / "notebooks", "01_bad", "value = 1", "raise ValueError('no <mask>\\nat all')", "print('never')")
    lesson(root / "notebooks", "02_dead", "import os", "os._exit(3)")
    lesson(root / "notebooks", "03_last", "assert 'value' not in globals()")
    foreign = root / "jupyter/kernels/python3"  # a kernel that the user registered under the name of ours
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["no-such-python"], "display_name": "x", "language": "python"}')
    (root / "out/results").mkdir(parents=True)
    (root / "out/results/03_last.json").write_text('{"val_iou": 1.0}')  # left by an earlier run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("JUPYTER_PATH", str(foreign.parent.parent))
        rows = run_lessons(root / "notebooks", root / "out", preset="smoke", progress=False)
    return rows, root


def test_a_failing_lesson_does_not_stop_the_others(run):
    good, bad, dead, last = rows = run[0]
    assert [row["lesson"] for row in rows] == ["00_good", "01_bad", "02_dead", "03_last"]
    assert [row["status"] for row in rows] == ["passed", "failed", "failed", "passed"]
    assert all(row["seconds"] > 0 for row in rows)
    if Path("/proc/self/status").exists():  # elsewhere it is not measured
        assert [row["memory"] is None for row in rows] == [False, True, True, False]
        assert all(20e6 < row["memory"] < 5e9 for row in rows if row["memory"])
    assert good["title"] == "What is 00_good & co?"
    expected = {"val_iou": 0.81234, "images": 12, "curve": [1, 2], "preset": "smoke"}
    assert good["scores"] == expected | {"folder": str(run[1] / "notebooks")}
    assert (bad["error"]["cell"], bad["error"]["message"]) == (3, "ValueError: no <mask> at all")
    assert (dead["error"]["cell"], dead["error"]["message"]) == (3, "Kernel died")
    assert last["scores"] == {}  # not those of the earlier run


def test_every_lesson_has_a_page_with_its_figures_and_their_alt_text(run):
    rows, root = run
    pages = {row["lesson"]: (root / "out" / row["page"]).read_text(encoding="utf-8") for row in rows}
    assert 'alt="empty &lt;axes&gt;" src="data:image/png;base64,' in pages["00_good"]
    # Scripts from the network must not hold up the page.
    assert all(" defer " in tag for tag in re.findall(r"<script[^>]* src=", "".join(pages.values())))
    assert "require" not in pages["00_good"].partition("<body")[0]
    assert f'id="cell-id={rows[1]["error"]["id"]}"' in pages["01_bad"]
    # The ways to the lessons beside it.
    assert 'href="00_good.html"' in pages["01_bad"] and 'href="02_dead.html"' in pages["01_bad"]


def test_the_index_and_summary_json_hold_lessons_scores_and_failures(run):
    rows, root = run
    page = (root / "out/index.html").read_text(encoding="utf-8")
    for part in (
        '<h2><a href="00_good.html">00_good</a> What is 00_good &amp; co?</h2>',
        "<dt>val_iou:</dt> <dd>0.812</dd>",
        f'<a href="01_bad.html#cell-id={rows[1]["error"]["id"]}">cell 3</a>',
        "<code>ValueError: no &lt;mask&gt; at all</code>",
        "2 of 4 lessons passed",
        "<dd>smoke</dd>",
        'name="viewport"',
    ):
        assert part in page
    assert "curve" not in page
    data = json.loads((root / "out/summary.json").read_text(encoding="utf-8"))
    assert data["lessons"] == rows and data["preset"] == "smoke"
    assert "torch" in data["versions"] and data["device"]


def test_the_terminal_table_ends_with_the_page(run):
    head, good, bad, dead, last, page = summary(run[0], Path("out")).splitlines()
    assert head.split() == ["lesson", "seconds", "memory", "scores"]
    assert re.search(r" (\d+ MB|-) +val_iou 0\.812, images 12, ", good)
    assert bad.endswith("FAILED in cell 3: ValueError: no <mask> at all")
    assert dead.endswith("FAILED in cell 3: Kernel died")
    assert last.split()[:1] == ["03_last"]
    assert page == str(Path("out", "index.html"))


def test_select_takes_names_and_numbers_in_course_order():
    names = ["04_unet", "05_how_deep", "10_the_verdict"]
    assert select(names, ["10", "04_unet"]) == ["04_unet", "10_the_verdict"]
    assert select(names) == names
    for wrong in ("4", "0", "unet", "04_unet.ipynb"):
        with pytest.raises(UserError, match=f"--only {wrong} names no lesson: choose from 04_unet, 05_how_deep"):
            select(names, ["04", wrong])


def test_the_command_prints_its_table_and_tells_failures_from_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    lesson(tmp_path / "notebooks", "00_good", "1")
    lesson(tmp_path / "notebooks", "01_bad", "1 / 0")
    out = ["--preset", "smoke", "--out", str(tmp_path / "out")]
    assert command.main([*out, "--only", "00"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("00_good") and table[2:] == [str(tmp_path / "out" / "index.html")]
    assert command.main(out) == 1
    assert command.main([*out, "--only", "07"]) == 2
    assert capsys.readouterr().err.endswith("error: --only 07 names no lesson: choose from 00_good, 01_bad\n")


def test_a_cell_that_never_ends_fails_its_lesson_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LONGEST_CELL", 1)
    lesson(tmp_path, "00_stuck", "import time", "time.sleep(30)")
    lesson(tmp_path, "01_next", "1")
    stuck, after = run_lessons(tmp_path, tmp_path / "out", progress=False)
    assert (stuck["status"], stuck["error"]["cell"]) == ("failed", 3) and stuck["seconds"] < 20
    assert stuck["error"]["message"] == "the cell took longer than 1 seconds: run the lesson again"
    assert after["status"] == "passed"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no Unix sockets for ZeroMQ")
def test_a_kernel_needs_no_ports(tmp_path, monkeypatch):
    """Ports that are chosen before a kernel starts can be taken when it comes to them."""
    monkeypatch.setattr(nbval.kernel, "KernelManager", None)
    sockets.pytest_configure(SimpleNamespace(add_cleanup=lambda _: None))
    assert nbval.kernel.KernelManager().transport == "ipc"
    transport = "from ipykernel.connect import get_connection_info\nget_connection_info(unpack=True)['transport']"
    lesson(tmp_path, "00_good", f"{transport} == 'ipc' or 1 / 0")
    (row,) = run_lessons(tmp_path, tmp_path / "out", progress=False)
    assert row["status"] == "passed", row["error"]


def test_mistakes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="holds no lessons"):
        run_lessons(tmp_path, tmp_path / "out")
    lesson(tmp_path, "00_good", "1")
    with pytest.raises(UserError, match="preset 'huge' is unknown"):
        run_lessons(tmp_path, tmp_path / "out", preset="huge")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"out cannot be written .*: choose another folder with --out"):
        run_lessons(tmp_path, tmp_path / "out", progress=False)
    (tmp_path / "00_good.ipynb").write_text("<<<<<<< ours")
    with pytest.raises(UserError, match="is no notebook"):
        run_lessons(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("package", ["nbclient", "nbconvert", "nbformat"])
def test_a_missing_extra_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is missing: to run lessons, type `pip install .*\[notebooks\]"):
        run_lessons(tmp_path, tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to another process")
def test_an_interrupt_stops_the_run_and_its_kernel(tmp_path):
    told = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    lesson(tmp_path, "00_slow", told, "time.sleep(60)")
    lesson(tmp_path, "01_next", "1")
    code = "import signal, sys; from tools.run.lessons import *\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # jobs in the background inherit none
    code += "run_lessons(Path(sys.argv[1]), Path(sys.argv[1]) / 'out')"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=30)
    assert error.splitlines()[-1] == "KeyboardInterrupt"
    assert not (tmp_path / "out/01_next.html").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_paths_of_variables_are_meant_from_where_the_command_was_typed(tmp_path, monkeypatch):
    """A kernel starts beside the lesson."""
    names = ("COURSE_DATA", "COURSE_PROGRESS", "COURSE_BBBC038_ARCHIVE", "COURSE_VNC_ARCHIVE")
    for name in names:
        monkeypatch.setenv(name, f"here/{name}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lessons").mkdir()
    code = f"import os; from course_lib.results import record; record(**{{n: os.environ[n] for n in {names}}})"
    lesson(tmp_path / "lessons", "00_paths", code)
    [row] = run_lessons(Path("lessons"), Path("out"), progress=False)
    assert row["error"] is None and row["scores"] == {name: str(tmp_path / "here" / name) for name in names}
