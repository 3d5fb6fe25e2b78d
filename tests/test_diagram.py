"""The grid as a picture: drawn from the net and nothing else, every arrow, every value."""

import io
from collections import Counter

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from course_lib.grid import SKIPS, NestedUNet
from course_lib.show import diagram
from course_lib.show.diagram import grid
from course_lib.show.palette import BLUE, GREEN, GREY, RED

TINY = (4, 6, 10)


def drawable(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def arrows(figure):
    """(start node, end node, colour) of every arrow."""
    found = []
    for patch in figure.axes[0].patches:
        assert isinstance(patch, FancyArrowPatch)
        (x0, y0), (x1, y1) = patch._posA_posB
        found.append(((-y0, x0), (-y1, x1), to_hex(patch.get_edgecolor())))
    return found


POOL = {((0, 0), (1, 0), BLUE), ((1, 0), (2, 0), BLUE)}
INNER = {
    ((1, 0), (0, 1), RED),
    ((2, 0), (1, 1), RED),
    ((1, 1), (0, 2), RED),
    ((0, 0), (0, 1), GREY),
    ((1, 0), (1, 1), GREY),
}
DEPTH_2 = {
    "unet": POOL | {((2, 0), (1, 1), RED), ((1, 1), (0, 2), RED), ((1, 0), (1, 1), GREY), ((0, 0), (0, 2), GREY)},
    "unet-e": POOL | INNER | {((0, 0), (0, 2), GREY)},
    "unet+": POOL | INNER | {((0, 1), (0, 2), GREY)},
    "unet++": POOL | INNER | {((0, 0), (0, 2), GREY), ((0, 1), (0, 2), GREY)},
}


@pytest.mark.parametrize("wiring", DEPTH_2)
def test_the_grid_has_exactly_the_arrows_of_depth_2(wiring):
    found = arrows(drawable(grid(NestedUNet(widths=(4, 6, 10), wiring=wiring))))
    assert len(found) == len(set(found))
    assert set(found) == DEPTH_2[wiring]


@pytest.mark.parametrize(
    ("wiring", "pools", "ups", "skips"),
    [("unet", 4, 4, 4), ("unet-e", 4, 10, 10), ("unet+", 4, 10, 10), ("unet++", 4, 10, 20)],
)
def test_the_grid_counts_its_arrows_at_depth_4(wiring, pools, ups, skips):
    colours = Counter(colour for _, _, colour in arrows(grid(NestedUNet(widths=(2, 3, 4, 5, 6), wiring=wiring))))
    assert colours == {BLUE: pools, RED: ups, GREY: skips}


def test_the_grid_is_drawn_from_the_net_and_not_from_its_name():
    net = NestedUNet(widths=(4, 6, 10), wiring="unet++")
    net.skips = {1: [0], 2: [1]}
    assert set(arrows(grid(net))) == DEPTH_2["unet+"]


@pytest.mark.parametrize(
    ("options", "headed"),
    [({}, [(0, 2)]), ({"deep_supervision": True}, [(0, 1), (0, 2)]), ({"wiring": "unet"}, [(0, 2)])],
)
def test_the_grid_names_its_nodes_and_fills_those_with_a_head(options, headed):
    net = NestedUNet(widths=(4, 6, 10), **options)
    figure = drawable(grid(net, title="two levels"))
    (axis,) = figure.axes
    assert axis.get_title() == "two levels"
    filled, places = [], []
    for line in axis.lines:
        node = (-int(line.get_ydata()[0]), int(line.get_xdata()[0]))
        places.append(node)
        if line.get_markerfacecolor() == GREEN:
            filled.append(node)
    assert places == net.nodes
    assert filled == headed
    texts = [(text.get_text(), text.get_position()) for text in axis.texts]
    for i, j in net.nodes:
        assert (f"$x^{{{i},{j}}}$", (j, -i)) in texts
    assert [text for text, (x, _) in texts if x < 0] == ["4", "6", "10", "channels"]
    assert legend(figure) == ["D, pooling", "U, up-sampling", "skip connection", "node with a head"]


def test_every_node_lies_inside_the_picture():
    for widths in ((2, 3), (2, 3, 4, 5, 6, 7)):
        net = NestedUNet(widths=widths)
        (axis,) = grid(net).axes
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert all(left < j < right and low < -i < high for i, j in net.nodes)


def test_values_shade_the_nodes_and_zero_is_dashed():
    net = NestedUNet(widths=(4, 6, 10), wiring="unet-e")
    values = {(0, 0): 2.0, (1, 0): 0.5, (0, 1): 0.0, (2, 0): 8.0}
    (axis,) = drawable(grid(net, values=values, label="gradient")).axes
    faces = {(-int(one.get_ydata()[0]), int(one.get_xdata()[0])): one.get_markerfacecolor() for one in axis.lines}
    lightness = {node: sum(to_rgb(face)) for node, face in faces.items()}
    assert lightness[2, 0] < lightness[0, 0] < lightness[1, 0] < 3  # the larger the darker
    assert lightness[0, 1] == lightness[1, 1] == 3  # exactly 0, and no value: white
    assert [tuple(dots.get_offsets()[0]) for dots in axis.collections if dots.get_linestyle()[0][1]] == [(1, 0)]
    written = {text.get_position(): text.get_text() for text in axis.texts if text.get_text() in {"2", "0.5", "0", "8"}}
    assert written == {(0, -0.3): "2", (0, -1.3): "0.5", (1, -0.3): "0", (0, -2.3): "8"}


@pytest.mark.parametrize("values", [{}, {(0, 0): 0.0}, {(0, 0): 1.0, (1, 0): 1.0}])
def test_values_that_are_all_alike_can_be_drawn(values):
    drawable(grid(NestedUNet(widths=(4, 6)), values=values))


def test_skips_over_a_node_go_round_it():
    figure = grid(NestedUNet(widths=(4, 6, 10, 12)))
    bends = {}
    for patch in figure.axes[0].patches:
        (x0, y0), (x1, y1) = patch._posA_posB
        if y0 == y1:
            bends.setdefault(x1 - x0, set()).add(patch.get_connectionstyle().rad)
    assert bends[1] == {0}
    assert len(bends[2] | bends[3]) == 2
    assert 0 not in bends[2] | bends[3]


def test_a_chosen_node_leaves_only_its_own_arrows_bold():
    net = NestedUNet(widths=TINY)
    bold = []
    for patch in grid(net, chosen=(0, 2)).axes[0].patches:
        (x0, y0), (x1, y1) = patch._posA_posB
        if patch.get_alpha() == 1:
            bold.append(((-y0, x0), (-y1, x1)))
    assert bold == [((0, 0), (0, 2)), ((0, 1), (0, 2)), ((1, 1), (0, 2))]


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


def test_a_node_that_is_not_there_has_no_formula():
    with pytest.raises(KeyError):
        diagram.formula(NestedUNet(widths=TINY, wiring="unet"), (0, 1))


def test_every_wiring_has_a_name():
    assert set(diagram.NAMES) == set(SKIPS)


def test_the_largest_grid_fits_a_phone():
    figure = drawable(grid(NestedUNet(widths=(2, 3, 4, 5, 6)), values={(0, 0): 1.0}, label="gradient"))
    assert figure.get_size_inches()[0] <= 6.4
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 9
