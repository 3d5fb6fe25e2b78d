"""What the README promises is there, and its numbers are the measured ones."""

import re
import shlex
from pathlib import Path

import pytest

from course_lib.__main__ import _parser
from tools.readme_results import FILES, MARKED, shown

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:python|torchrun\b.*?) -m course_lib .*$", README, re.M)


def test_links_lead_to_files():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README) + re.findall(r'<img src="([^"]+)"', README)
    assert targets and all((ROOT / target).exists() for target in targets)


def test_make_targets_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= set(targets)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = shlex.split(command.split("course_lib", 1)[1].split("  #")[0])
    _parser().parse_args(words)


def test_the_lesson_table_lists_the_lessons_there_are():
    linked = set(re.findall(r"\(notebooks/(\d\d_\w+)\.ipynb\)", README))
    assert linked == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name in linked:
        title = (ROOT / f"notebooks/src/{name}.py").read_text(encoding="utf-8").splitlines()[1]
        assert f"[{name}](notebooks/{name}.ipynb) | {title.removeprefix('# # ')} |" in README


@pytest.mark.parametrize("name", FILES)
def test_the_tables_are_the_measured_ones(name):
    marked = MARKED.findall((ROOT / name).read_text(encoding="utf-8"))
    assert marked
    for _, asked, text in marked:
        assert text == shown(asked), f"{name}: run python tools/readme_results.py"


def test_ci_runs_the_readmes_test_command():
    assert "`make test` is what continuous integration runs" in README
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-2:] == ["make test", "make colab"]
