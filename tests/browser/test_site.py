"""The course site without a network: no failed request, no console error, formulas, search, and a slider that moves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("playwright", reason='browser tests need playwright: pip install -e ".[browser]"')
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "tools.publish.site", "--out", out], capture_output=True, text=True, cwd=ROOT
    )
    if built.returncode == 2:
        missing(built.stderr)
    assert built.returncode == 0, built.stderr
    return out


def test_a_walk_through_the_site(site, watched, serve):
    page, address = watched(), serve(site)
    page.goto(f"{address}/index.html")
    assert page.locator("img[alt*='triangle']").evaluate("image => image.naturalWidth") > 500
    page.get_by_role("link", name="06_nested_skips").first.click()
    page.wait_for_url("**/06_nested_skips.html")
    page.locator("mjx-container svg").first.wait_for()
    for name in ("Open in Colab", "Exercise edition in Colab"):
        assert "colab.research.google.com/github/" in page.get_by_role("link", name=name, exact=True).get_attribute(
            "href"
        )
    exercise = page.get_by_role("link", name="Download the exercises").get_attribute("href")
    assert page.request.get(f"{address}/notebooks/{exercise}").ok
    slider = page.get_by_role("slider").first
    slider.wait_for()
    before = slider.get_attribute("aria-valuenow")
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuenow") != before
    picture = page.locator(".widget-html-content img[src^='data:image/png']").first
    assert picture.get_attribute("alt").startswith("UNet++ of depth 4")


def test_the_api_and_the_search(site, watched, serve):
    page, address = watched(), serve(site)
    page.goto(f"{address}/api/network.html")
    assert "The grid of depth" in page.locator("#course_lib\\.grid\\.NestedUNet\\.prune").locator("..").inner_text()
    page.goto(f"{address}/search.html?q=receptive")
    page.locator("#search-results li").first.wait_for()
    assert page.locator("#search-results li").count() > 3


@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_is_wider_than_the_screen(site, watched, serve, width):
    page, address = watched(width), serve(site)
    for name in ("index", "teaching", "notebooks/00_start_here", "notebooks/06_nested_skips", "api/network"):
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_every_figure_of_every_lesson_has_alt_text(site):
    lessons = sorted((site / "notebooks").glob("[0-9][0-9]_*.html"))
    assert lessons
    for path in lessons:
        page = re.sub(r"<script.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.S)
        images = re.findall(r"<img [^>]*>", page)
        assert images and all(re.search(r'alt="[^"]{10,}"', image) for image in images), path.name
