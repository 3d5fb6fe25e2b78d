"""The house in numbers: rooms of course_lib, who imports whom, how large everything is.

    python -m tools.numbers.house [FOLDER]      (default: course_lib of this checkout)

A room is an entry on the top level of the package, a folder or a file; an arrow says that one room imports another.
`tests/test_house.py` holds the package to its rules with the functions of this file.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course_lib.results import table

PACKAGE = "course_lib"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """`module` imports `name` (or all of `source`, where `name` is empty)."""

    module: str  # "course_lib.data.sets"
    source: str  # "course_lib.files"
    name: str

    @property
    def target(self) -> str:
        return f"{self.source}.{self.name}" if self.name else self.source


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the package in `folder`."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


def room_of(module: str) -> str:
    """ "course_lib.data.sets" -> "data"; the package's own __init__ is "__init__"."""
    return [*module.split("."), "__init__"][1]


def imports(folder: Path) -> Iterator[Import]:
    """All imports, also those inside functions."""
    for module, path in modules(folder).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (Import(module, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (Import(module, node.module or "", alias.name) for alias in node.names)


def arrows(folder: Path) -> set[tuple[str, str]]:
    """(room, room that it imports), for different rooms."""
    rooms = {room_of(module) for module in modules(folder)}
    found = set()
    for one in imports(folder):
        if one.source.split(".")[0] == PACKAGE:
            target = one.target if one.source == PACKAGE else one.source
            pair = (room_of(one.module), room_of(target))
            if pair[0] != pair[1] and pair[1] in rooms - {"__init__"}:
                found.add(pair)
    return found


def floors(pairs: set[tuple[str, str]]) -> dict[str, int]:
    """Room -> its floor: 0 imports no other room, every other one stands above all that it imports.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    rooms = {room for pair in pairs for room in pair}
    found: dict[str, int] = {}
    while len(found) < len(rooms):
        ready = {
            room: 1 + max((found[below] for above, below in pairs if above == room), default=-1)
            for room in rooms - set(found)
            if all(below in found for above, below in pairs if above == room)
        }
        if not ready:
            raise ValueError(f"these rooms import each other in a circle: {', '.join(sorted(rooms - set(found)))}")
        found |= ready
    return found


def functions(folder: Path) -> Iterator[tuple[str, int, int]]:
    """(module.function, lines, arguments without self and cls) of every function, also those inside others."""
    for module, path in modules(folder).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                given = node.args
                names = [
                    a.arg for a in given.posonlyargs + given.args + given.kwonlyargs if a.arg not in ("self", "cls")
                ]
                count = len(names) + bool(given.vararg) + bool(given.kwarg)
                yield f"{module}.{node.name}", node.end_lineno - node.lineno + 1, count


def public_names(folder: Path) -> int:
    """Functions, classes and constants on the top level of all modules that do not begin with _."""
    total = 0
    for path in modules(folder).values():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, Function | ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            total += sum(not name.startswith("_") for name in names)
    return total


def lines(folder: Path) -> dict[str, int]:
    """Room -> lines of its files, blank ones included."""
    found: dict[str, int] = {}
    for module, path in modules(folder).items():
        room = room_of(module)
        found[room] = found.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
    return found


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parents[2] / PACKAGE
    pairs, sizes = arrows(folder), lines(folder)
    try:
        height = floors(pairs)
        print(table([
            {"room": room, "floor": height.get(room, 0), "lines": sizes[room],
             "imports": ", ".join(sorted(below for above, below in pairs if above == room)) or "-"}
            for room in sorted(sizes, key=lambda room: (height.get(room, 0), room))
        ]))  # fmt: skip
        print(f"floors {1 + max(height.values())}, ", end="")
    except ValueError as circle:
        print(circle)
    every = list(functions(folder))
    longest, most = max(every, key=lambda f: f[1]), max(every, key=lambda f: f[2])
    print(f"rooms {len(sizes)}, arrows {len(pairs)}, files {len(modules(folder))}, lines {sum(sizes.values()):,}")
    print(f"public names {public_names(folder)}; longest function {longest[0]} with {longest[1]} lines")
    print(f"most arguments {most[0]} with {most[2]}; above 50 lines or 6 arguments:")
    print("\n".join(f"  {name} {length} {count}" for name, length, count in every if length > 50 or count > 6))


if __name__ == "__main__":
    main()
