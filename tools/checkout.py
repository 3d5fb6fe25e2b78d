"""The checkout: where it is, what address it names, and which files belong to it."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = {
    ".git",
    ".venv",
    "build",
    "dist",
    "runs",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
    ".hypothesis",
}


def address(root: Path = ROOT) -> dict[str, str]:
    """ "repository" and "ref", as [tool.course] of pyproject.toml has them."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]


def files(root: Path = ROOT) -> list[str]:
    """What git tracks, or what lies here where there is no git (a downloaded zip).

    Paths below `root`, sorted, with / between their parts.
    """
    if (root / ".git").exists():  # not a folder of somebody else's that this one lies in
        git = ["git", "-C", str(root), "ls-files", "-z"]
        listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        listed = [path.relative_to(root).as_posix() for path in root.rglob("*") if not _made(path.relative_to(root))]
    return sorted(name for name in listed if name and (root / name).is_file())


def _made(path: Path) -> bool:
    return bool(MADE & set(path.parts)) or path.parts[:2] == ("data", "cache") or path.parts[0].endswith(".egg-info")
