"""The grid as a picture: drawn from the net and nothing else, every arrow, every value."""

from collections import Counter

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from course_lib.grid import NestedUNet
from course_lib.show import BLUE, GREEN, GREY, RED, diagram, grid
from tests.test_show import drawable, legend

TINY = (4, 6, 10)


def arrows(figure):
    """(start node, end node, colour) of every arrow."""
    ends = [(*patch._posA_posB, to_hex(patch.get_edgecolor())) for patch in figure.axes[0].patches]
    return [((-y0, x0), (-y1, x1), colour) for (x0, y0), (x1, y1), colour in ends]


POOL = {((0, 0), (1, 0), BLUE), ((1, 0), (2, 0), BLUE)}
INNER = {((1, 0), (0, 1), RED), ((2, 0), (1, 1), RED), ((1, 1), (0, 2), RED), ((0, 0), (0, 1), GREY),
         ((1, 0), (1, 1), GREY)}  # fmt: skip
DEPTH_2 = {
    "unet": POOL | {((2, 0), (1, 1), RED), ((1, 1), (0, 2), RED), ((1, 0), (1, 1), GREY), ((0, 0), (0, 2), GREY)},
    "unet-e": POOL | INNER | {((0, 0), (0, 2), GREY)},
    "unet+": POOL | INNER | {((0, 1), (0, 2), GREY)},
    "unet++": POOL | INNER | {((0, 0), (0, 2), GREY), ((0, 1), (0, 2), GREY)},
}


@pytest.mark.parametrize(
    ("wiring", "name", "pools", "ups", "skips"),
    [("unet", "U-Net", 4, 4, 4), ("unet-e", "U-Net^e", 4, 10, 10), ("unet+", "UNet+", 4, 10, 10),
     ("unet++", "UNet++", 4, 10, 20)],
)  # fmt: skip
def test_a_wiring_has_its_name_and_its_arrows(wiring, name, pools, ups, skips):
    assert diagram.NAMES[wiring] == name
    drawn = arrows(drawable(grid(NestedUNet(widths=TINY, wiring=wiring))))
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == DEPTH_2[wiring]
    colours = Counter(colour for _, _, colour in arrows(grid(NestedUNet(widths=(2, 3, 4, 5, 6), wiring=wiring))))
    assert colours == {BLUE: pools, RED: ups, GREY: skips}


def test_the_grid_is_drawn_from_the_net_and_not_from_its_name():
    net = NestedUNet(widths=TINY, wiring="unet++")
    net.skips = {1: [0], 2: [1]}
    assert set(arrows(grid(net))) == DEPTH_2["unet+"]


@pytest.mark.parametrize(
    ("options", "headed"),
    [({}, [(0, 2)]), ({"deep_supervision": True}, [(0, 1), (0, 2)]), ({"wiring": "unet"}, [(0, 2)])],
)
def test_the_grid_names_its_nodes_and_fills_those_with_a_head(options, headed):
    net = NestedUNet(widths=TINY, **options)
    figure = drawable(grid(net, title="two levels"))
    (axis,) = figure.axes
    assert axis.get_title() == "two levels"
    faces = {(-int(line.get_ydata()[0]), int(line.get_xdata()[0])): line.get_markerfacecolor() for line in axis.lines}
    assert list(faces) == net.nodes
    assert [node for node, face in faces.items() if face == GREEN] == headed
    texts = [(text.get_text(), text.get_position()) for text in axis.texts]
    for i, j in net.nodes:
        assert (f"$x^{{{i},{j}}}$", (j, -i)) in texts
    assert [text for text, (x, _) in texts if x < 0] == ["4", "6", "10", "channels"]
    assert legend(figure) == ["D, pooling", "U, up-sampling", "skip connection", "node with a head"]


def test_values_shade_the_nodes_and_zero_is_dashed():
    net = NestedUNet(widths=TINY, wiring="unet-e")
    values = {(0, 0): 2.0, (1, 0): 0.5, (0, 1): 0.0, (2, 0): 1234.5}
    figure = drawable(grid(net, values=values, label="gradient"))
    (axis,) = figure.axes
    faces = {(-int(one.get_ydata()[0]), int(one.get_xdata()[0])): one.get_markerfacecolor() for one in axis.lines}
    lightness = {node: sum(to_rgb(face)) for node, face in faces.items()}
    assert lightness[2, 0] < lightness[0, 0] < lightness[1, 0] < 3  # the larger the darker
    assert lightness[0, 1] == lightness[1, 1] == 3  # exactly 0, and no value: white
    assert [tuple(dots.get_offsets()[0]) for dots in axis.collections if dots.get_linestyle()[0][1]] == [(1, 0)]
    written = {text.get_position(): text.get_text() for text in axis.texts if text.get_position()[1] % 1}
    assert written.items() >= {(0, -0.3): "2", (0, -1.3): "0.5", (1, -0.3): "0", (0, -2.3): "1,234"}.items()
    assert legend(figure)[-1] == "gradient; dashed: exactly 0"


@pytest.mark.parametrize("values", [{}, {(0, 0): 0.0}, {(0, 0): 1.0, (1, 0): 1.0}])
@pytest.mark.parametrize("widths", [(2, 3), (2, 3, 4, 5, 6)])
def test_values_that_are_all_alike_stand_in_a_grid_of_any_size(values, widths):
    net = NestedUNet(widths=widths)
    (axis,) = drawable(grid(net, values=values)).axes
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    assert all(left < j < right and low < -i < high for i, j in net.nodes)


def test_skips_over_a_node_go_round_it():
    bends = {}
    for patch in grid(NestedUNet(widths=(4, 6, 10, 12))).axes[0].patches:
        (x0, y0), (x1, y1) = patch._posA_posB
        if y0 == y1:
            bends.setdefault(x1 - x0, set()).add(patch.get_connectionstyle().rad)
    assert bends[1] == {0}
    assert len(bends[2] | bends[3]) == 2
    assert 0 not in bends[2] | bends[3]


def test_a_chosen_node_leaves_only_its_own_arrows_bold():
    figure = grid(NestedUNet(widths=TINY), chosen=(0, 2))
    bold = [patch.get_alpha() == 1 for patch in figure.axes[0].patches]
    assert bold == [end == (0, 2) for _, end, _ in arrows(figure)] and sum(bold) == 3


def test_pictures_stand_where_the_nodes_are():
    net = NestedUNet(widths=TINY, deep_supervision=True)
    pictures = {(i, j): np.full((4, 4), 0.1 * i + 0.3 * j) for i, j in net.nodes}
    (axis,) = drawable(grid(net, pictures=pictures)).axes
    for (i, j), image in zip(net.nodes, axis.images, strict=True):
        left, right, low, high = image.get_extent()
        assert ((left + right) / 2, (low + high) / 2) == pytest.approx((j, -i))
        assert float(image.get_array()[0, 0]) == pytest.approx(0.1 * i + 0.3 * j)
    assert [to_hex(line.get_color()) == GREEN for line in axis.lines] == [i == 0 and j > 0 for i, j in net.nodes]


@pytest.mark.parametrize(
    ("wiring", "node", "expected"),
    [
        ("unet++", (0, 0), "x0,0 = H(image)"),
        ("unet++", (2, 0), "x2,0 = H(D(x1,0))"),
        ("unet++", (0, 2), "x0,2 = H([x0,0, x0,1, U(x1,1)])"),
        ("unet+", (0, 2), "x0,2 = H([x0,1, U(x1,1)])"),
        ("unet-e", (0, 2), "x0,2 = H([x0,0, U(x1,1)])"),
    ],
)
def test_formulas(wiring, node, expected):
    assert diagram.formula(NestedUNet(widths=TINY, wiring=wiring), node) == expected
