"""Numbers that were measured: what a lesson records, and what experiments stored under data/results."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_lib.errors import UserError
from course_lib.files import write

STORED = Path(__file__).parents[2] / "data" / "results"  # where the package lies in a checkout
SHIPPED = Path(__file__).parent / "_results"  # in an installed wheel
Row = dict[str, Any]


def record(**values: Any) -> None:
    """Keep a lesson's results for whoever runs it: they join $COURSE_RESULTS_DIR/$COURSE_LESSON.json.

    Without COURSE_RESULTS_DIR nothing is written, so a lesson read by hand leaves no files.
    """
    folder = os.environ.get("COURSE_RESULTS_DIR")
    if folder is None:
        return
    path = Path(folder) / f"{os.environ.get('COURSE_LESSON', 'lesson')}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write(path, as_json(known | values))


def store(
    name: str, rows: Sequence[Row], *, about: str, command: str, measured: Row | None = None, folder: Path = STORED
) -> Path:
    """Write what an experiment measured to data/results/NAME.json.

    `measured` says where and when: `machine()` as it was when the experiment began, or now.
    """
    content = {"about": about, "command": command, "measured": measured or machine(), "rows": list(rows)}
    write(path := folder / f"{name}.json", as_json(content))
    return path


def load_results(name: str) -> Row:
    """The content of data/results/NAME.json: "about", "command", "measured" and "rows".
    Raises UserError: nothing of this name was measured yet.
    """
    for folder in (STORED, SHIPPED):
        path = folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    raise UserError(f"data/results/{name}.json is not there: not measured yet")


def table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows as aligned text. Floats have three decimals, integers commas, None (does not apply) is "-", and what a row
    lacks reads "not measured yet".
    """
    columns = list(columns or rows[0])
    lines = [columns] + [[_cell(row, column) for column in columns] for row in rows]
    shapes = []  # of cells, ">7" for numbers seven characters wide
    for n, column in enumerate(columns):
        numeric = all(isinstance(row.get(column), int | float) for row in rows)
        shapes.append(f"{'>' if numeric else '<'}{max(len(line[n]) for line in lines)}")
    return "\n".join("  ".join(map(format, line, shapes)) for line in lines)


def markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows as a table of Markdown, its cells as in `table`."""
    columns = list(columns or rows[0])
    lines = [columns, ["---"] * len(columns)] + [[_cell(row, column) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> Row:
    """Device, versions, date and commit: what a reader needs to judge a number."""
    import torch

    processor = f"CPU ({_processor()}, {torch.get_num_threads()} threads)"
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }


def as_json(content: Any) -> str:
    """Indented, so that a diff shows which number changed; a list of numbers stays on one line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return re.sub(r"\[[\s\d.,eE+-]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def _cell(row: Row, column: str) -> str:
    value = row.get(column, "not measured yet")
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.+)$", info.read_text(encoding="utf-8"), re.M) if info.is_file() else None
    return name[1] if name else platform.processor() or platform.machine()


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
