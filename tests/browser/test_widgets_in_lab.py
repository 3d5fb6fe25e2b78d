"""Every lesson with widgets, opened in JupyterLab, run, and its controls moved by keyboard and by mouse."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import BADGE

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SHOWS = re.compile(r"^widgets\.(\w+)\(", re.M)
LESSONS = {  # its explorers in their order
    path.stem: SHOWS.findall(path.read_text(encoding="utf-8"))
    for path in sorted((NOTEBOOKS / "src").glob("*.py"))
    if SHOWS.search(path.read_text(encoding="utf-8"))
}
IDLE = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CODE = "window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')"


def test_six_explorers_have_a_lesson():
    shown = {name for names in LESSONS.values() for name in names}
    assert shown == {"grid_explorer", "prediction_explorer", "feature_explorer", "gradient_explorer", "loss_playground",
                     "receptive_field_explorer"}  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("lesson", LESSONS)
def test_its_controls_change_the_picture(lab, watched, lesson):
    address, token, root = lab
    shutil.copy(NOTEBOOKS / f"{lesson}.ipynb", root)
    page = watched()
    page.route(BADGE, lambda route: route.fulfill(body="<svg/>", content_type="image/svg+xml"))
    page.goto(f"{address}/lab/tree/{lesson}.ipynb?token={token}&reset")
    page.wait_for_function(IDLE)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(f"() => {CODE}.at(-1).model.executionCount > 0", timeout=120_000)
    page.wait_for_function(IDLE)
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() == 0, errors.first.inner_text()
    explorers = page.locator(".widget-vbox")
    assert explorers.count() == len(LESSONS[lesson])
    for number in range(explorers.count()):
        explorer = explorers.nth(number)
        explorer.scroll_into_view_if_needed()
        shoot(explorer, f"{lesson}-{number}-before")
        by_keyboard(page, explorer)
        by_mouse(page, explorer)
        choose(page, explorer)
        shoot(explorer, f"{lesson}-{number}-after")


def shoot(explorer, name: str) -> None:
    """A screenshot into $COURSE_SHOTS, for whoever wants to look."""
    if folder := os.environ.get("COURSE_SHOTS"):
        explorer.page.wait_for_timeout(300)  # the picture has come, it may not have been painted
        explorer.screenshot(path=str(Path(folder) / f"{name}.png"))


def picture(explorer) -> str:
    """What the explorer shows: its page, with the picture."""
    return explorer.locator(".widget-html-content").inner_html()


def changed(page, explorer, before: str) -> str:
    """Wait until the explorer shows something else that holds a picture or a sentence."""
    for _ in range(100):
        now = picture(explorer)
        if now != before and ("<img" in now or "<p>" in now):
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture did not change in ten seconds")


def by_keyboard(page, explorer) -> None:
    """The first slider by an arrow, or the first checkbox by the space bar."""
    before = picture(explorer)
    assert "data:image/png" in before
    slider = explorer.get_by_role("slider")
    if slider.count():
        now, most = (slider.first.get_attribute(f"aria-value{end}") for end in ("now", "max"))
        slider.first.press("ArrowLeft" if now == most else "ArrowRight")
    else:
        explorer.get_by_role("checkbox").first.press("Space")
    changed(page, explorer, before)


def by_mouse(page, explorer) -> None:
    """The last slider by a click in the other half of its bar, or the last checkbox."""
    before = picture(explorer)
    slider = explorer.locator(".noUi-base")
    if slider.count():
        box, handle = slider.last.bounding_box(), slider.last.locator(".noUi-handle").bounding_box()
        share = 0.2 if handle["x"] + handle["width"] / 2 > box["x"] + box["width"] / 2 - 1 else 0.8
        page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    else:
        explorer.get_by_role("checkbox").last.click()
    changed(page, explorer, before)


def choose(page, explorer) -> None:
    """The last list of choices: its last option, or the first where the last one is chosen already."""
    lists = explorer.locator("select")
    if lists.count():
        before = picture(explorer)
        last = lists.last.locator("option").count() - 1
        lists.last.select_option(index=0 if lists.last.evaluate("list => list.selectedIndex") == last else last)
        changed(page, explorer, before)
