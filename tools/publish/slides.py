"""Slides from the stored lessons -> build/slides/NN_title.html, each a page that needs nothing else: `make slides`

A slide for each question, below it one for each piece of text with the code behind it. Exercises have their hole; the
set-up, the parameters and what only records a score are left out. reveal.js comes from npm once, as the scripts of the
site do.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import SlidesExporter
from nbformat import NotebookNode

from course_lib.files import write
from tools.checkout import ROOT
from tools.command import command
from tools.notebooks.editions import tags
from tools.publish.site import vendor
from tools.run.lessons import select
from tools.run.pages import BADGE, TEMPLATE, offline

LEFT_OUT = {"setup", "parameters", "imports", "solution", "check"}
LONG = 700  # characters of text that fill a slide; code behind it then gets one of its own
PAGE = (
    """{% extends "reveal/index.html.j2" %}
{% block html_head_js %}<style>{{ resources.reveal_css }}</style>{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_css %}<style>
.reveal { background: white; color: #222; font-family: sans-serif; font-size: 20px }
.reveal .slides { text-align: left }
.reveal .slides section { max-height: 95vh; overflow-y: auto }
.reveal h1, .reveal h2 { font-size: 1.7em; margin: 0 0 0.6em } .reveal h3 { font-size: 1.2em }
:root { --jp-code-font-size: 15.5px !important }
.reveal img { max-width: 100%; max-height: 62vh } .jp-InputPrompt, .jp-OutputPrompt { display: none }
</style>{% endblock %}
"""
    + re.search(r"{% block data_png %}.*?{% endblock %}", TEMPLATE, re.S)[0]
    + """
{% block footer_js %}<script>{{ resources.reveal_js }}</script><script>{{ resources.notes_js }}</script>
<script>Reveal.initialize({width: 1100, height: 760, hash: true, slideNumber: "c/t", transition: "none",
plugins: [RevealNotes]});</script>{% endblock %}
"""
)


def slides(complete: NotebookNode, exercise: NotebookNode) -> NotebookNode:
    """The cells that are shown, each with its slide_type."""
    holes = iter([cell.source for cell in exercise.cells if "exercise" in tags(cell)])
    shown: list[NotebookNode] = []

    def add(cell: NotebookNode, kind: str) -> None:
        cell.metadata = NotebookNode(slideshow={"slide_type": kind})
        shown.append(cell)

    for cell in complete.cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"^(?=## )", BADGE.sub("", cell.source), flags=re.M):
                if part.strip():
                    add(nbformat.v4.new_markdown_cell(offline(part)), "slide" if part.startswith("#") else "subslide")
            continue
        if not any(part.source.startswith("## ") for part in shown):  # sizes and data, before the first question
            continue
        if "exercise" in tags(cell):
            cell = nbformat.v4.new_code_cell(next(holes))
        elif LEFT_OUT & set(tags(cell)) or re.match(r"(from|import)\b|results\.record|record\(|check_", cell.source):
            continue
        behind_text = shown and shown[-1].cell_type == "markdown" and len(shown[-1].source) < LONG
        add(cell, "-" if behind_text else "subslide")
    return nbformat.v4.new_notebook(cells=shown, metadata=complete.metadata)


def page(nb: NotebookNode, name: str, scripts: Path) -> str:
    """The slides as one HTML page, reveal.js inside."""
    exporter = SlidesExporter(extra_loaders=[DictLoader({"slides.html.j2": PAGE})])
    exporter.template_file = "slides.html.j2"
    files = {"reveal_css": "reveal.css", "reveal_js": "reveal.js", "notes_js": "reveal-notes.js"}
    inside = {key: (scripts / file).read_text(encoding="utf-8") for key, file in files.items()}
    html, _ = exporter.from_notebook_node(nb, resources={"metadata": {"name": name}, **inside})
    return re.sub(r"<link[^>]*https:[^>]*>", "", html)  # the theme of the exporter, from the network


@command
def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons, by number or name")
    args = parser.parse_args(argv)
    lessons, out, scripts = root / "notebooks", root / "build" / "slides", root / "build" / "vendor"
    names = select(sorted(path.stem for path in lessons.glob("*.ipynb")), args.only)
    vendor(scripts, json.loads((root / "docs" / "vendor.json").read_text(encoding="utf-8")))
    for name in names:
        both = (nbformat.read(folder / f"{name}.ipynb", as_version=4) for folder in (lessons, lessons / "exercises"))
        write(out / f"{name}.html", page(slides(*both), name, scripts))
        print(out / f"{name}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
