"""Pages of executed lessons: nothing from the network, formulas that a browser shows by itself, ways to the others."""

import re

import nbformat

from tools.run.pages import lesson_page, offline


def test_formulas_become_mathml():
    inline = offline("The ratio $\\frac{a}{b}$ is less than 1.")
    assert re.fullmatch(
        r'The ratio <math [^>]*display="inline"[^>]*><mrow><mfrac>.*</mfrac></mrow></math> is .*', inline
    )
    assert 'display="block"' in offline("$$\na_1\n+ b\n$$")
    assert "$" not in offline("$x^{0,0}$ and $$y$$ and $z$")


def test_code_keeps_its_dollars():
    text = "`$HOME` costs $5\n\n```\necho $A $B\n```"
    assert offline(text) == text


def test_the_badge_becomes_two_links():
    lab = "https://colab.research.google.com"
    text = f"[![Open in Colab]({lab}/assets/colab-badge.svg)]({lab}/github/a/b/blob/main/notebooks/01_middle.ipynb)"
    assert offline(text) == (
        f"[Open in Colab]({lab}/github/a/b/blob/main/notebooks/01_middle.ipynb) · "
        f"[exercise edition in Colab]({lab}/github/a/b/blob/main/notebooks/exercises/01_middle.ipynb)"
    )


def test_a_page_loads_nothing_leaves_the_notebook_alone_and_leads_to_the_others():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("$x$")])
    page = lesson_page(nb, "01_middle", before="00_first", after="02_last")
    assert "<math" in page and "MathJax" not in page
    assert not re.search(r'(src|href)="https?://', page)
    assert nb.cells[0].source == "$x$"
    ways = ["00_first.html", "index.html", "02_last.html"]
    assert re.findall(r'href="([^"#]*\.html)"', page) == [*ways, *ways]  # above and below
    assert re.findall(r'href="([^"#]*\.html)"', lesson_page(nb, "01_middle")) == ["index.html", "index.html"]
