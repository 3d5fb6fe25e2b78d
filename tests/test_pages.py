"""Pages of executed lessons: nothing from the network, formulas that a browser shows by itself, ways to the others."""

import re

import nbformat

from tools.run.pages import lesson_page, offline


def page(text, **beside):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return lesson_page(nb, "01_middle", **beside), nb


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
    found = offline(text)
    assert found == (
        f"[Open in Colab]({lab}/github/a/b/blob/main/notebooks/01_middle.ipynb) · "
        f"[exercise edition in Colab]({lab}/github/a/b/blob/main/notebooks/exercises/01_middle.ipynb)"
    )


def test_a_page_loads_nothing_and_leaves_the_notebook_alone():
    made, nb = page("$x$")
    assert "<math" in made
    assert "MathJax" not in made
    assert not re.search(r'(src|href)="https?://', made)
    assert nb.cells[0].source == "$x$"


def test_ways_to_the_other_lessons():
    made, _ = page("text", before="00_first", after="02_last")
    for way in ("00_first.html", "index.html", "02_last.html"):
        assert made.count(f'href="{way}"') == 2  # above and below
    alone, _ = page("text")
    assert re.findall(r'href="([^"#]*\.html)"', alone) == ["index.html", "index.html"]
