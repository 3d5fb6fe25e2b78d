"""Slides: which cells they show, where one begins, and that a page loads nothing from elsewhere."""

import re

import nbformat
import pytest

from tools.publish.slides import page, slides

code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell


def tagged(source, *tags):
    return code(source, metadata={"tags": list(tags)})


def lesson(solution="return 1", outputs=True):
    badge = "[![Open in Colab](https://colab.research.google.com/x.svg)](https://colab.research.google.com/a)"
    shown = code("show()")
    if outputs:
        shown.outputs = [nbformat.v4.new_output("stream", text="0.786\n")]
    cells = [
        text(f"# What now?\n\n{badge}\n\nText."),
        tagged("import pip", "setup"),
        tagged("PRESET = 1", "parameters"),
        code("sizes = 1"),
        text("## First?\n\nAsk $x^2$."),
        shown,
        text("Read it.\n\n## Second?\n\n" + "Long. " * 200),
        tagged(f"def f():\n    {solution}", "exercise"),
        code("check_f(f)"),
        code("results.record(a=1)"),
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def shown():
    return slides(lesson(), lesson('raise NotImplementedError("your code here")', outputs=False)).cells


def test_a_question_begins_a_slide_and_set_up_sizes_checks_and_records_are_left_out(shown):
    kinds = [(cell.source.splitlines()[0], cell.metadata.slideshow["slide_type"]) for cell in shown]
    assert kinds == [
        ("# What now?", "slide"),
        ("## First?", "slide"),
        ("show()", "-"),
        ("Read it.", "subslide"),
        ("## Second?", "slide"),
        ("def f():", "subslide"),
    ]
    assert "colab" not in shown[0].source
    assert 'raise NotImplementedError("your code here")' in shown[-1].source and "return 1" not in shown[-1].source
    assert shown[2].outputs[0].text == "0.786\n"


def test_a_page_needs_nothing_else(shown, tmp_path):
    for name, content in (("reveal.css", "x{}"), ("reveal.js", "/* reveal */"), ("reveal-notes.js", "/* notes */")):
        (tmp_path / name).write_text(content)
    html = page(nbformat.v4.new_notebook(cells=shown), "00_a", tmp_path)
    assert "/* reveal */" in html and "/* notes */" in html and "<math" in html
    assert not re.findall(r"(?:src|href)=[\"']?https?:", html)
    assert html.count("<section") >= 5
