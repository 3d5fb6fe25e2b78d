"""Controls: each of them changes what is shown, and what is impossible is said in a sentence. No browser here."""

import html
import re

import pytest
import torch
from ipywidgets import Output

from course_lib.grid import NestedUNet
from course_lib.show import widgets
from course_lib.show.views import View, four_wirings

SIDE = 32


def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.uint8)
    masks[..., 8:20, 10:24] = 1
    return pixels, masks


def net(**options):
    torch.manual_seed(0)
    return NestedUNet(**{"widths": (4, 6, 10), "deep_supervision": True} | options)


EXPLORERS = {
    "grid": widgets.grid_explorer,
    "prediction": lambda: widgets.prediction_explorer(net(), images()[0], masks=images()[1]),
    "feature": lambda: widgets.feature_explorer(net(), images()[0][0]),
    "gradient": lambda: widgets.gradient_explorer(*images()),
    "loss": widgets.loss_playground,
    "receptive": lambda: widgets.receptive_field_explorer(images()[0][0]),
}
MOVES = {
    "grid": {"wiring": "unet+", "depth": 3, "channels of row 0": 8, "deep supervision": False, "pruned to level": 2,
             "node": (1, 0), "number at a node": "receptive field"},
    "prediction": {"image": 2, "threshold": 0.4, "head": "L1"},
    "feature": {"node": (0, 1), "channel (0: the mean)": 2},
    "gradient": {"wiring": "unet++", "a loss on every head": True, "loss": "BCE"},
    "loss": {"shift, pixels": 2.0, "radius, pixels": 5.0, "blur, pixels": 3.0, "gradient of": "BCE"},
    "receptive": {"wiring": "unet-e", "depth": 3, "node": (0, 1), "row": 3, "column": 5},
}  # fmt: skip


def controls(explorer):
    return {control.description: control for control in explorer.controls.values()}


@pytest.mark.parametrize("name", MOVES)
def test_every_control_changes_what_is_shown(name):
    explorer = EXPLORERS[name]()
    assert list(explorer.children) == [*explorer.controls.values(), explorer.page]
    assert not isinstance(explorer.page, Output)  # for which papermill may wait for ever
    assert set(controls(explorer)) == set(MOVES[name])
    for control, value in MOVES[name].items():
        start, before = controls(explorer)[control].value, explorer.page.value
        assert isinstance(explorer.view, View)
        controls(explorer)[control].value = value
        assert html.escape(explorer.view.alt) in explorer.page.value
        assert explorer.page.value != before, control
        controls(explorer)[control].value = start


@pytest.mark.parametrize(
    ("name", "moves", "sentence"),
    [
        ("grid", {"wiring": "unet"}, "wiring 'unet' has no decoder but the deepest to supervise: choose 'unet-e'"),
        ("grid", {"deep supervision": False, "pruned to level": 2}, "prune needs deep supervision"),
        ("grid", {"depth": 1, "pruned to level": 3}, "level 3 does not exist: choose 1 to 1"),
        ("grid", {"node": (3, 0), "depth": 2}, "UNet++ of depth 2 has no node x3,0: choose from"),
        ("gradient", {"wiring": "unet", "a loss on every head": True}, "choose 'unet-e'"),
        ("receptive", {"depth": 1}, "has no node x0,2"),
    ],
)
def test_the_impossible_is_said_in_a_sentence_until_it_is_possible(name, moves, sentence):
    explorer = EXPLORERS[name]()
    before = {control: controls(explorer)[control].value for control in moves}
    for control, value in moves.items():
        controls(explorer)[control].value = value
    assert explorer.view is None
    assert re.fullmatch(r"<p>[^<]*</p>", explorer.page.value)
    assert sentence in html.unescape(explorer.page.value)
    for control, value in before.items():
        controls(explorer)[control].value = value
    assert isinstance(explorer.view, View) and "<img" in explorer.page.value


def test_the_page_carries_the_picture_its_alt_text_its_spots_and_no_markup_of_a_text():
    page = widgets.grid_explorer(depth=1).page.value
    assert re.search(r'<img alt="UNet\+\+ of depth 1: 3 nodes[^"]*" [^>]*src="data:image/png;base64,', page)
    assert page.count("<span title=") == 3
    assert 'title="x0,1 = H([x0,0, U(x1,0)])' in page
    assert "<pre" in page and "UNet++, depth 1" in page
    page = widgets.as_html(View(four_wirings(8, 1).figure, 'a "quoted" <alt>', "1 < 2"))
    assert 'alt="a &quot;quoted&quot; &lt;alt&gt;"' in page
    assert "1 &lt; 2" in page


def test_a_net_with_one_head_has_no_other_to_choose():
    explorer = widgets.prediction_explorer(net(deep_supervision=False), images()[0], masks=images()[1])
    assert controls(explorer)["head"].options == ("the only head",) and explorer.view
