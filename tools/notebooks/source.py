"""What the source of a lesson says of it: notebooks/src/NN_title.py, read as text.

Its first line is `# %% [markdown] needs="02, 03" minutes=3`: the lessons whose ideas it needs (none needs a variable or
a file of another), and how long it computes on two cores.
"""

import re
from pathlib import Path
from typing import NamedTuple

from tools.checkout import ROOT


class Front(NamedTuple):
    title: str
    needs: str
    minutes: int


def sources() -> list[Path]:
    """The sources of all lessons, in order."""
    return sorted((ROOT / "notebooks" / "src").glob("[0-9][0-9]_*.py"))


def source(number: str) -> Path:
    """The source of a lesson by its number."""
    (path,) = (path for path in sources() if path.stem.startswith(f"{number}_"))
    return path


def front(path: Path) -> Front:
    """The first two lines of a source."""
    first, title = path.read_text(encoding="utf-8").splitlines()[:2]
    needs, minutes = re.fullmatch(r'# %% \[markdown\] needs="([^"]+)" minutes=(\d+)', first).groups()
    return Front(title.removeprefix("# # "), needs, int(minutes))


def headings(number: str) -> list[str]:
    """The sections of a lesson, in order, without the three at its end."""
    sections = re.findall(r"^# ## (.+)$", source(number).read_text(encoding="utf-8"), re.M)
    return sections[: sections.index("What we found")]


def exercises(number: str) -> list[int]:
    """The minutes of each exercise of a lesson, as its headings say."""
    text = source(number).read_text(encoding="utf-8")
    return [int(minutes) for minutes in re.findall(r"^# ### Exercise \d.*\((\d+) minutes", text, re.M)]
