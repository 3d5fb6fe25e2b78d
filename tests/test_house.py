"""The rules that keep course_lib small: imports go downwards, rooms keep their private names, nothing grows unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.numbers import house

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "course_lib"
FLOORS = (  # from the lowest; a room imports rooms of lower floors only
    {"errors", "losses", "metrics"},
    {"files", "grid"},
    {"results", "lesson"},
    {"data", "relatives", "measure"},
    {"predict", "checks"},
    {"train", "show"},
    {"__main__"},
)
LINES, OF_CHECKS, TOP_LEVEL = 8_200, 1_500, 16
FUNCTION, ARGUMENTS = 50, 6


def test_rooms_import_downwards_only():
    floor = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
    assert not [pair for pair in sorted(house.arrows(PACKAGE)) if floor[pair[0]] <= floor[pair[1]]]


def test_every_room_stands_on_a_floor():
    assert set(house.lines(PACKAGE)) == set.union(*FLOORS) | {"__init__"}


def test_nothing_outside_is_imported():
    tops = {one.source.split(".")[0] for one in house.imports(PACKAGE)}
    assert not tops & {"tools", "benchmarks", "tests", "docs", "notebooks"}


def test_private_names_stay_in_their_room():
    def private(one):
        return any(part.startswith("_") and not part.startswith("__") for part in one.target.split("."))

    across = [
        (one.module, one.target)
        for one in house.imports(PACKAGE)
        if one.source.startswith(house.PACKAGE)
        and private(one)
        and house.room_of(one.module) != house.room_of(one.target)
    ]
    assert not across


def test_it_stays_small():
    lines = house.lines(PACKAGE)
    assert sum(lines.values()) <= LINES and lines["checks"] <= OF_CHECKS
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= TOP_LEVEL
    large = [one for one in house.functions(PACKAGE) if one[1] > FUNCTION or one[2] > ARGUMENTS]
    assert not large


@pytest.mark.parametrize("room", sorted(set.union(*FLOORS) - {"__main__"}))
def test_a_room_comes_without_what_it_does_not_use(room):
    """Nothing is imported that only notebooks or downloads need; a rented GPU has no ipywidgets and no pooch."""
    program = f"import sys, course_lib.{room}; print(*(name for name in {FOREIGN} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


FOREIGN = ("ipywidgets", "pooch", "IPython", "nbclient", "jupyter_client", "monai", "torchvision", "onnx")


def test_the_rules_see_what_they_forbid(tmp_path):
    """A small package that breaks each of them."""
    low, high = tmp_path / "low", tmp_path / "high.py"
    low.mkdir()
    (low / "__init__.py").write_text("from course_lib.high import _secret\nimport tools\n", encoding="utf-8")
    body = "\n".join(f"    x = {n}" for n in range(60))
    high.write_text(f"def long(a, b, c, *, d, e, f, g):\n{body}\ndef _secret(): pass\n", encoding="utf-8")
    assert house.arrows(tmp_path) == {("low", "high")}
    (high.parent / "other.py").write_text("from course_lib import low\n", encoding="utf-8")
    assert house.floors(house.arrows(tmp_path)) == {"high": 0, "low": 1, "other": 2}
    assert ("course_lib.high.long", 61, 7) in list(house.functions(tmp_path))
    assert {one.target for one in house.imports(tmp_path)} == {"course_lib.high._secret", "tools", "course_lib.low"}
    high.write_text("import course_lib.low\n", encoding="utf-8")
    with pytest.raises(ValueError, match="low"):
        house.floors(house.arrows(tmp_path))
