"""The report on a run of the lessons: a page for the browser, a table for the terminal, data for scripts."""

import json
import os
import platform
import re
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

import torch

from course_lib.files import write
from course_lib.lesson import presets
from course_lib.results import table

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>UNet++ from the ground up: executed lessons</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 0 auto; padding: 1rem; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 0; }}
p, dl {{ margin: .25rem 0; overflow-wrap: anywhere; }}
dt, dd {{ display: inline; margin: 0; }}
dd::after {{ content: ""; display: block; }}
</style>
</head>
<body>
<main>
<h1>Executed lessons</h1>
<dl>
{about}
</dl>
<p>{passed} of {total} lessons passed in {seconds:.0f} s.
The same as data: <a href="summary.json">summary.json</a></p>
{lessons}
</main>
</body>
</html>
"""


def about(preset: str) -> dict[str, str]:
    """What the top of the page says about this run; `preset` is resolved ("auto" never appears)."""
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores"
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-image", "matplotlib")]
    return {"preset": presets.resolve(preset), "device": device, "versions": ", ".join(versions)}


def summary(rows: Sequence[dict], out: Path) -> str:
    """The table that the terminal shows after a run: lesson, seconds, memory, scores; then where the page is."""
    lines = []
    for row in rows:
        note = ", ".join(f"{key} {value}" for key, value in _shown(row["scores"]).items())
        if row["error"]:
            note = f"FAILED in cell {row['error']['cell']}: {row['error']['message']}"
        measured = {"seconds": round(row["seconds"]), "memory": _megabytes(row["memory"])}
        lines.append({"lesson": row["lesson"], **measured, "scores": note})
    shown = re.sub(r" +$", "", table(lines), flags=re.M)  # one long note would widen every line
    return f"{shown}\n{Path(out) / 'index.html'}"


def _megabytes(memory: int | None) -> str:
    return f"{memory / 1e6:.0f} MB" if memory else "-"


def _shown(scores: dict) -> dict[str, str]:
    """The recorded scalars as text; tables stay in summary.json."""
    scalars = {key: value for key, value in scores.items() if isinstance(value, (int, float, str))}
    return {key: f"{value:.3f}" if isinstance(value, float) else f"{value}" for key, value in scalars.items()}


def write_pages(out: Path, facts: dict[str, str], rows: list[dict]) -> None:
    """Write OUT/index.html and OUT/summary.json from the facts of `about` and the rows of `run_lessons`."""

    def pairs(of: dict[str, str]) -> str:
        return "\n".join(f"<dt>{escape(key)}:</dt> <dd>{escape(value)}</dd>" for key, value in of.items())

    lessons = []
    for row in rows:
        lessons.append(f'<h2><a href="{row["page"]}">{escape(row["lesson"])}</a> {escape(row["title"])}</h2>')
        memory = _megabytes(row["memory"])
        lessons.append(
            f"<p>{row['status']}, {row['seconds']:.1f} s, {memory if row['memory'] else 'memory not measured'}</p>"
        )
        if row["error"]:
            link = f'<a href="{row["page"]}#cell-id={row["error"]["id"]}">cell {row["error"]["cell"]}</a>'
            lessons.append(f"<p>Stopped in {link}: <code>{escape(row['error']['message'])}</code></p>")
        if row["scores"]:
            lessons.append(f"<dl>\n{pairs(_shown(row['scores']))}\n</dl>")
    passed, seconds = sum(row["status"] == "passed" for row in rows), sum(row["seconds"] for row in rows)
    page = PAGE.format(about=pairs(facts), lessons="\n".join(lessons), passed=passed, total=len(rows), seconds=seconds)
    write(out / "index.html", page)
    data = json.dumps({**facts, "lessons": rows}, indent=1)
    write(out / "summary.json", f"{data}\n")
