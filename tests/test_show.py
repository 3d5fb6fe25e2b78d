"""Figures: what is drawn for odd inputs, in which colour, and that the grid is drawn from the net and nothing else."""

import io
from collections import Counter

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from course_lib import show
from course_lib.grid import NestedUNet
from course_lib.show import BLUE, GREEN, GREY, INVENTED, MISSED, ORANGE, RED


@pytest.fixture(autouse=True)
def no_pyplot():
    """Figures are objects of their own: nothing stays behind in pyplot."""
    yield
    assert plt.get_fignums() == []


def batch(count, *, channels=3, size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(count, 1, *size, dtype=torch.uint8)
    masks[..., 4:10, 5:15] = 1
    predicted = torch.zeros(count, 1, *size, dtype=torch.bool)
    predicted[..., 5:12, 5:13] = True
    return images, masks, predicted


def drawable(figure):
    """Is a Figure, and survives being drawn."""
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def outlines(axis):
    return [c for c in axis.collections if isinstance(c, QuadContourSet)]


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


# Overlays


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "panels"), [(1, 1), (4, 4), (5, 8)])
def test_overlay(count, panels, channels):
    images, masks, predicted = batch(count, channels=channels)
    figure = drawable(show.overlay(images, masks, predicted, titles=[f"image {n}" for n in range(count)]))
    assert len(figure.axes) == panels
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in drawn] == [f"image {n}" for n in range(count)]
    for n, axis in enumerate(drawn):
        expected = (images[n].permute(1, 2, 0) / 255).expand(-1, -1, 3).numpy()
        np.testing.assert_allclose(axis.images[0].get_array(), expected, atol=1e-6)
        assert [to_hex(c.get_edgecolor()[0]) for c in outlines(axis)] == [BLUE, ORANGE]
    assert legend(figure) == ["true", "predicted"]


def test_overlay_without_a_prediction_or_a_mask():
    images, masks, _ = batch(2)
    masks[1] = 0
    figure = drawable(show.overlay(images.float() / 255, masks))
    assert [len(outlines(axis)) for axis in figure.axes] == [1, 0]
    pixels = (images[1].permute(1, 2, 0) / 255).numpy()
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), pixels, atol=1e-6)  # floats are not scaled again
    assert legend(figure) == ["true"]


def test_outlines_run_along_the_borders_of_their_masks():
    spans = []
    for outline in outlines(show.overlay(*batch(1)).axes[0]):
        x, y = np.concatenate([path.vertices for path in outline.get_paths()]).T
        spans.append((x.min(), x.max(), y.min(), y.max()))
    assert spans == [(4.5, 14.5, 3.5, 9.5), (4.5, 12.5, 4.5, 11.5)]  # between pixels


def test_a_mask_at_the_image_border_is_closed():
    images, _, _ = batch(1)
    (outline,) = outlines(show.overlay(images, torch.ones(1, 1, 16, 24)).axes[0])
    vertices = np.concatenate([path.vertices for path in outline.get_paths()])
    assert np.allclose(vertices[0], vertices[-1])
    assert (vertices.min(0).tolist(), vertices.max(0).tolist()) == ([-0.5, -0.5], [23.5, 15.5])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_error_map_colours_what_is_wrong(count, channels):
    images, masks, predicted = batch(count, channels=channels)
    figure = drawable(show.error_map(images, masks, predicted, titles=["a"] * count))
    true, found = masks[0, 0].bool().numpy(), predicted[0, 0].numpy()
    picture = np.asarray(figure.axes[0].images[0].get_array())
    colours = np.array([to_hex(pixel) for pixel in picture.reshape(-1, 3)]).reshape(16, 24)
    assert set(colours[true & ~found]) == {MISSED}
    assert set(colours[found & ~true]) == {INVENTED}
    right = picture[true == found]
    assert (right == right[:, :1]).all()  # grey
    assert right.std() > 0.05
    assert legend(figure) == ["missed", "invented"]


def test_error_map_of_empty_masks():
    images, masks, predicted = batch(1)
    picture = np.asarray(drawable(show.error_map(images, 0 * masks, 0 * predicted)).axes[0].images[0].get_array())
    assert (picture == picture[..., :1]).all()


# Curves and points


def runs(seeds, epochs=3, start=0.5):
    return [[{"epoch": e + 1, "val_iou": start + 0.1 * e + 0.02 * s} for e in range(epochs)] for s in range(seeds)]


def test_training_curve_is_the_mean_with_a_band():
    figure = drawable(show.training_curve({"unet": runs(3), "unet++": runs(1, start=0.6)}, label="IoU"))
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["unet", "unet++"]
    assert axis.lines[0].get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.52, 0.62, 0.72])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [0.6, 0.7, 0.8])
    (band,) = axis.collections  # one run has no spread
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.5), pytest.approx(0.74))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "IoU")
    styles = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
    assert len(styles) == 2


def test_training_curve_drops_nobody():
    (axis,) = drawable(show.training_curve({f"net {n}": runs(1) for n in range(8)})).axes
    assert len(axis.lines) == 8


def test_training_curve_of_another_key():
    rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    (axis,) = drawable(show.training_curve({"a": [rows]}, key="loss")).axes
    assert axis.lines[0].get_ydata().tolist() == [2, 1]
    assert axis.get_ylabel() == "loss"


def test_points_show_every_run_and_the_mean():
    groups = {"loss": {"L1": [1.0, 3.0], "L2": [2.0]}, "pruned": {"L2": [4.0, 6.0, 5.0]}}
    (axis,) = drawable(show.points(groups, label="IoU")).axes
    dots = [line for line in axis.lines if line.get_marker() != "None" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in dots] == [[1, 3], [2], [4, 6, 5]]
    columns = [set(np.round(line.get_xdata()).tolist()) for line in dots]
    assert columns == [{0}, {1}, {1}]
    assert dots[1].get_xdata()[0] < dots[2].get_xdata()[0]  # groups side by side
    means = [collection.get_segments()[0][0][1] for collection in axis.collections]
    assert means == [2, 2, 5]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["L1", "L2"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss", "pruned"]
    assert any(list(line.get_ydata()) == [0, 0] for line in axis.lines)
    (axis,) = drawable(show.points(groups, zero=False)).axes
    assert not any(list(line.get_ydata()) == [0, 0] for line in axis.lines)


# The grid


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
    found = arrows(drawable(show.grid(NestedUNet(widths=(4, 6, 10), wiring=wiring))))
    assert len(found) == len(set(found))
    assert set(found) == DEPTH_2[wiring]


@pytest.mark.parametrize(
    ("wiring", "pools", "ups", "skips"),
    [("unet", 4, 4, 4), ("unet-e", 4, 10, 10), ("unet+", 4, 10, 10), ("unet++", 4, 10, 20)],
)
def test_the_grid_counts_its_arrows_at_depth_4(wiring, pools, ups, skips):
    colours = Counter(colour for _, _, colour in arrows(show.grid(NestedUNet(widths=(2, 3, 4, 5, 6), wiring=wiring))))
    assert colours == {BLUE: pools, RED: ups, GREY: skips}


def test_the_grid_is_drawn_from_the_net_and_not_from_its_name():
    net = NestedUNet(widths=(4, 6, 10), wiring="unet++")
    net.skips = {1: [0], 2: [1]}
    assert set(arrows(show.grid(net))) == DEPTH_2["unet+"]


@pytest.mark.parametrize(
    ("options", "headed"),
    [({}, [(0, 2)]), ({"deep_supervision": True}, [(0, 1), (0, 2)]), ({"wiring": "unet"}, [(0, 2)])],
)
def test_the_grid_names_its_nodes_and_fills_those_with_a_head(options, headed):
    net = NestedUNet(widths=(4, 6, 10), **options)
    figure = drawable(show.grid(net, title="two levels"))
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
        (axis,) = show.grid(net).axes
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert all(left < j < right and low < -i < high for i, j in net.nodes)


def test_values_shade_the_nodes_and_zero_is_dashed():
    net = NestedUNet(widths=(4, 6, 10), wiring="unet-e")
    values = {(0, 0): 2.0, (1, 0): 0.5, (0, 1): 0.0, (2, 0): 8.0}
    (axis,) = drawable(show.grid(net, values=values, label="gradient")).axes
    faces = {(-int(one.get_ydata()[0]), int(one.get_xdata()[0])): one.get_markerfacecolor() for one in axis.lines}
    lightness = {node: sum(to_rgb(face)) for node, face in faces.items()}
    assert lightness[2, 0] < lightness[0, 0] < lightness[1, 0] < 3  # the larger the darker
    assert lightness[0, 1] == lightness[1, 1] == 3  # exactly 0, and no value: white
    assert [tuple(dots.get_offsets()[0]) for dots in axis.collections if dots.get_linestyle()[0][1]] == [(1, 0)]
    written = {text.get_position(): text.get_text() for text in axis.texts if text.get_text() in {"2", "0.5", "0", "8"}}
    assert written == {(0, -0.3): "2", (0, -1.3): "0.5", (1, -0.3): "0", (0, -2.3): "8"}


@pytest.mark.parametrize("values", [{}, {(0, 0): 0.0}, {(0, 0): 1.0, (1, 0): 1.0}])
def test_values_that_are_all_alike_can_be_drawn(values):
    drawable(show.grid(NestedUNet(widths=(4, 6)), values=values))


def test_skips_over_a_node_go_round_it():
    figure = show.grid(NestedUNet(widths=(4, 6, 10, 12)))
    bends = {}
    for patch in figure.axes[0].patches:
        (x0, y0), (x1, y1) = patch._posA_posB
        if y0 == y1:
            bends.setdefault(x1 - x0, set()).add(patch.get_connectionstyle().rad)
    assert bends[1] == {0}
    assert len(bends[2] | bends[3]) == 2
    assert 0 not in bends[2] | bends[3]


# display


class OldImage:
    """The Image of IPython 7.34, which Colab has: it knows no `alt`."""

    def __init__(
        self, data=None, url=None, filename=None, format=None, embed=None, width=None, height=None, retina=False,
        unconfined=False, metadata=None,
    ):  # fmt: skip
        self.data = data


@pytest.mark.parametrize("image", [IPython.display.Image, OldImage])
def test_display_gives_the_alt_text_to_the_notebook(monkeypatch, image):
    calls = []
    monkeypatch.setattr(IPython.display, "Image", image)
    monkeypatch.setattr(IPython.display, "display", lambda *args, **kwargs: calls.append((args, kwargs)))
    figure = show.overlay(*batch(1)[:2])
    show.display(figure, "One nucleus in blue outline.")
    (((shown,), options),) = calls
    assert shown.data.startswith(b"\x89PNG")
    assert options == {"metadata": {"image/png": {"alt": "One nucleus in blue outline."}}}


def test_the_same_figure_gives_the_same_bytes(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda image, **kwargs: shown.append(image.data))
    for _ in range(2):
        show.display(show.overlay(*batch(1)), "the same")
    assert shown[0] == shown[1]
    assert b"Software" not in shown[0]
