"""The ways to install the course agree with each other, and the package imports nothing that they do not install."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
MODULES = {"scikit-image": "skimage", "pillow": "PIL"}  # where the name to import is not the name to install
BROUGHT = "IPython"  # which ipywidgets requires


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level names that these nodes import."""
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(requirements: list[str]) -> set[str]:
    names = [Requirement(text).name.lower() for text in requirements]
    return {MODULES.get(name, name) for name in names}


def test_environment_yml_installs_the_project_and_nothing_else():
    assert sorted(CONDA) == ["channels", "dependencies", "name"]
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
    python, pip, packages = CONDA["dependencies"]
    assert pip == "pip"
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert sys.version.split()[0] in SpecifierSet(PROJECT["requires-python"])
    (editable,) = packages["pip"]
    assert re.fullmatch(r"-e \.\[[\w,]+\]", editable)


@pytest.mark.parametrize("file", ["environment.yml", "Makefile", ".github/workflows/test.yml", "tools/run/lessons.py"])
def test_extras_that_are_named_exist(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.findall(r"\.\[([\w,]+)\]", text) + re.findall(r"^EXTRAS := ([\w,]+)", text, re.M)
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("file", ["Makefile", ".github/workflows/test.yml", ".ci/run"])
def test_tools_that_are_run_exist(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    files = [tool.replace(".", "/") for tool in re.findall(r"-[mp] (tools[\w.]+)", text)]
    assert [
        tool for tool in files if not any((ROOT / f"{tool}{end}").exists() for end in (".py", "/__main__.py"))
    ] == []


def test_what_is_installed_satisfies_pyproject():
    requirements = map(Requirement, [*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["test"]])
    installed = {one: distribution(one.name).version for one in requirements}
    assert {one: v for one, v in installed.items() if not one.specifier.contains(v, prereleases=True)} == {}


def test_constraints_lie_within_the_ranges_of_pyproject():
    ranges = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["dependencies"]}
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    assert "torch" in {pin.name for pin in pins}
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert ranges.get(pin.name, SpecifierSet()).contains(exact.version)


@pytest.mark.parametrize("path", sorted(ROOT.glob("course_lib/**/*.py")), ids=lambda path: path.name)
def test_the_package_imports_only_what_it_declares(path):
    """Inside of functions also what an extra brings."""
    always = set(sys.stdlib_module_names) | {"course_lib", BROUGHT} | modules(PROJECT["dependencies"])
    assert imports(parsed(path).body) <= always
    assert imports(list(ast.walk(parsed(path)))) <= always | modules(EXTRAS["export"])


def test_torchvision_is_neither_declared_nor_imported():
    assert "torchvision" not in modules([*PROJECT["dependencies"], *chain(*EXTRAS.values())])
    folders = ("notebooks/src", "tools", "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in files if "torchvision" in imports(list(ast.walk(parsed(path))))] == []
