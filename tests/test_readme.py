"""What the README promises is there, and its numbers are the measured ones."""

import re
import shlex
from importlib.util import find_spec

import pytest

from course_lib.__main__ import _parser
from tools.checkout import ROOT
from tools.numbers.readme_results import FILES, MARKED, shown

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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/teaching.md", "docs/own_data.md"])
def test_tools_that_are_named_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [tool for tool in re.findall(r"-m ((?:tools|benchmarks)[\w.]+)", text) if find_spec(tool) is None] == []
    assert [path for path in re.findall(r"\btools/[\w/]+\.\w+", text) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", FILES)
def test_the_tables_are_the_measured_ones(name):
    marked = MARKED.findall((ROOT / name).read_text(encoding="utf-8"))
    assert marked and (name != "README.md" or "lessons" in {asked for _, asked, _ in marked})
    for _, asked, text in marked:
        assert text == shown(asked), f"{name}: run python -m tools.numbers.readme_results"


def test_ci_runs_the_readmes_test_command():
    assert "`make test` is what continuous integration runs" in README
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-2:] == ["make test", "make colab"]
