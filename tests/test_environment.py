"""The ways to install the course agree with each other, and the package imports nothing that they do not install."""

import ast
import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
# Where the name to import is not the name to install.
MODULES = {"scikit-image": "skimage"}
# Modules that a declared dependency itself requires: module -> (dependency, what it requires).
BROUGHT = {
    "IPython": ("ipywidgets", "ipython"),
    "PIL": ("scikit-image", "pillow"),
    "scipy": ("scikit-image", "scipy"),
    "tifffile": ("scikit-image", "tifffile"),
}
BROUGHT_BY_NOTEBOOKS = {
    "jinja2": ("nbconvert", "jinja2"),
    "jupyter_client": ("nbclient", "jupyter-client"),
    "nbformat": ("nbclient", "nbformat"),
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level names that a file imports, each with whether the import runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    late = {id(inner) for node in functions for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else ["course_lib"]
        found += [(name.partition(".")[0], id(node) not in late) for name in names]
    return found


def modules(requirements: list[str]) -> set[str]:
    names = [Requirement(text).name for text in requirements]
    return {MODULES.get(name, name) for name in names}


def test_environment_yml_installs_the_project_and_nothing_else():
    assert sorted(CONDA) == ["channels", "dependencies", "name"]
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
    python, pip, packages = CONDA["dependencies"]
    assert pip == "pip"
    assert python.startswith("python ")
    (editable,) = packages["pip"]
    assert re.fullmatch(r"-e \.\[[\w,]+\]", editable)


def test_environment_yml_asks_for_the_python_of_pyproject():
    assert SpecifierSet(CONDA["dependencies"][0].removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert sys.version.split()[0] in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("file", ["environment.yml", "Makefile", ".github/workflows/test.yml", "tools/run/lessons.py"])
def test_extras_that_are_named_exist(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.findall(r"\.\[([\w,]+)\]", text) + re.findall(r"^EXTRAS := ([\w,]+)", text, re.M)
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", [None, "notebooks", "test"])
def test_what_is_installed_satisfies_pyproject(extra):
    requirements = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    installed = {text: distribution(Requirement(text).name).version for text in requirements}
    wrong = {t: v for t, v in installed.items() if not Requirement(t).specifier.contains(v, prereleases=True)}
    assert wrong == {}


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
    always = set(sys.stdlib_module_names) | {"course_lib"} | modules(PROJECT["dependencies"]) | set(BROUGHT)
    extras = PROJECT["optional-dependencies"]
    optional = modules(extras["notebooks"] + extras["export"]) | set(BROUGHT_BY_NOTEBOOKS)
    at_import = {name for name, early in imports(path) if early}
    inside_functions = {name for name, early in imports(path) if not early}
    assert at_import <= always
    assert inside_functions <= always | optional


@pytest.mark.parametrize(("module", "chain"), (BROUGHT | BROUGHT_BY_NOTEBOOKS).items())
def test_undeclared_modules_come_with_a_declared_dependency(module, chain):
    declared, required = chain
    groups = [PROJECT["dependencies"], PROJECT["optional-dependencies"]["notebooks"]]
    assert declared in {Requirement(text).name for group in groups for text in group}
    always = [req for req in map(Requirement, distribution(declared).requires or []) if "extra" not in str(req.marker)]
    assert required in {canonicalize_name(req.name) for req in always}


def test_torchvision_is_neither_declared_nor_imported():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert "torchvision" not in {Requirement(text).name for group in groups for text in group}
    folders = ("course_lib", "notebooks/src", "tools", "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in files if "torchvision" in {name for name, _ in imports(path)}] == []


def test_the_scan_tells_early_imports_from_late_ones(tmp_path):
    (tmp_path / "x.py").write_text("import a.b\ndef f():\n    from c.d import e\nif True:\n    import g, h\n")
    assert sorted(imports(tmp_path / "x.py")) == [("a", True), ("c", False), ("g", True), ("h", True)]
