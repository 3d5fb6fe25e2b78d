"""Sphinx, for `make site`: it reads build/site-source, put together by tools/publish/site.py, and executes nothing."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COURSE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]

project = "UNet++ from the ground up"
author = "the UNet++ from the ground up authors"
copyright = "the authors; text CC BY 4.0, code MIT"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "icon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]  # runs after MathJax, which is deferred too
html_extra_path = ["extra"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "repository_url": COURSE["repository"],
    "repository_branch": COURSE["ref"],
    "use_repository_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "show_toc_level": 2,
    "navbar_persistent": [],  # one search field is enough
}

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

# Everything that a page loads lies beside it, so that the site works without a network.
nb_ipywidgets_js = {
    "vendor/require.min.js": {},
    "vendor/embed-amd.js": {"data-jupyter-widgets-cdn": "", "crossorigin": "anonymous"},
}
mathjax_path = "vendor/tex-svg.js"

default_role = "literal"  # `name` in a docstring is code
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes of a class are described once
