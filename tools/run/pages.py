"""An executed lesson as one HTML page: figures inside, formulas as MathML. Only widgets ask the network."""

import copy
import re

# nbconvert's own page, with three changes: figures keep their alt text, scripts come only where widgets need them, and
# a line at both ends leads to the other lessons.
TEMPLATE = """{% extends "index.html.j2" %}
{% block html_head_js_requirejs %}{% if "widgets" in nb.metadata %}{{ super() }}{% endif %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block data_png %}<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] | replace("\n", "") }}"
alt="{{ (output | get_metadata("alt", "image/png") or "") | escape_html }}"></div>{% endblock %}
{% block body_header %}{{ super() }}{{ resources.ways }}{% endblock %}
{% block body_footer %}{{ resources.ways }}{{ super() }}{% endblock %}
"""
FENCE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)  # code keeps its dollar signs
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.S)
BADGE = re.compile(r"^\[!\[Open in Colab\]\([^)]*\)\]\((?P<colab>[^)]+)\)$", re.M)


def lesson_page(nb, name: str, *, before: str = "", after: str = "") -> str:
    """The executed notebook node `nb` as a page; `before` and `after` name the lessons beside it, "" for none."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = offline(cell.source)
    ways = [f'<a href="{before}.html">← {before}</a>'] if before else []
    ways += ['<a href="index.html">all lessons</a>']
    ways += [f'<a href="{after}.html">{after} →</a>'] if after else []
    line = f'<nav style="padding: 1rem 5rem; font-family: sans-serif">{" · ".join(ways)}</nav>'
    exporter = HTMLExporter(extra_loaders=[DictLoader({"lesson.html.j2": TEMPLATE})])
    exporter.template_file = "lesson.html.j2"
    page, _ = exporter.from_notebook_node(nb, resources={"metadata": {"name": name}, "ways": line})
    # Widgets load scripts from the network; deferred, the page shows at once without it too.
    return page.replace('<script src="http', '<script defer src="http')


def offline(text: str) -> str:
    """Markdown with its formulas as MathML, and links in words where there was a badge from the network."""
    parts, end = [], 0
    for code in FENCE.finditer(text):
        parts += [FORMULA.sub(_mathml, text[end : code.start()]), code[0]]
        end = code.end()
    text = "".join([*parts, FORMULA.sub(_mathml, text[end:])])

    return instead_of_badge(text, "[Open in Colab]({colab}) · [exercise edition in Colab]({exercise})")


def instead_of_badge(text: str, links: str) -> str:
    """Markdown with `links` in place of its Colab badge; {colab} and {exercise} in it open either edition."""

    def filled(badge: re.Match) -> str:
        return links.format(
            colab=badge["colab"], exercise=badge["colab"].replace("/notebooks/", "/notebooks/exercises/")
        )

    return BADGE.sub(filled, text)


def _mathml(formula: re.Match) -> str:
    from latex2mathml.converter import convert

    display = "block" if formula["block"] else "inline"
    return convert(formula["block"] or formula["inline"], display=display)
