"""Figures: what is drawn for odd inputs, in which colour, and how large."""

import io

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import QuadContourSet
from matplotlib.text import Text

from course_lib import show
from course_lib.results.compare import Comparison, Interval
from course_lib.show import BLUE, INVENTED, MISSED, ORANGE


@pytest.fixture(autouse=True)
def no_pyplot():
    """Figures are objects of their own: nothing stays behind in pyplot."""
    yield
    assert plt.get_fignums() == []


def batch(count, *, channels=3, size=(16, 24)):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(count, 1, *size, dtype=torch.uint8)
    masks[..., 4:10, 5:15] = 1
    predicted = torch.zeros(count, 1, *size, dtype=torch.bool)
    predicted[..., 5:12, 5:13] = True
    return images, masks, predicted


def drawable(figure):
    """The figure, which survives being drawn, fits a phone and can be read there."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert figure.get_size_inches()[0] <= 6.4
    assert min((text.get_fontsize() for text in figure.findobj(Text) if text.get_text()), default=9) >= 9
    return figure


def picture(axis):
    return np.asarray(axis.images[0].get_array())


def outlines(axis):
    return [c for c in axis.collections if isinstance(c, QuadContourSet)]


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


@pytest.mark.parametrize(("count", "panels", "channels"), [(1, 1, 3), (4, 4, 1), (5, 8, 3)])
def test_overlay(count, panels, channels):
    images, masks, predicted = batch(count, channels=channels)
    titles = [f"image {n}" for n in range(count)]
    figure = drawable(show.overlay(images, masks, predicted, titles=titles))
    assert len(figure.axes) == panels and not any(axis.axison for axis in figure.axes)
    assert [axis.get_title() for axis in figure.axes if axis.images] == titles
    for image, axis in zip(images, figure.axes, strict=False):
        expected = (image.permute(1, 2, 0) / 255).expand(-1, -1, 3).numpy()
        np.testing.assert_allclose(picture(axis), expected, atol=1e-6)
        assert [to_hex(c.get_edgecolor()[0]) for c in outlines(axis)] == [BLUE, ORANGE]
    assert legend(figure) == ["true", "predicted"]


def test_overlay_without_a_prediction_or_a_mask():
    images, masks, _ = batch(2)
    masks[1] = 0
    figure = drawable(show.overlay(images.float() / 255, masks))
    assert [len(outlines(axis)) for axis in figure.axes] == [1, 0]
    pixels = (images[1].permute(1, 2, 0) / 255).numpy()
    np.testing.assert_allclose(picture(figure.axes[1]), pixels, atol=1e-6)  # floats are not scaled again
    assert legend(figure) == ["true"]


def test_outlines_run_between_pixels_and_are_closed_at_the_border():
    images, masks, predicted = batch(1)
    spans = []
    for mask in (masks, predicted, torch.ones_like(masks)):
        (outline,) = outlines(show.overlay(images, mask).axes[0])
        vertices = np.concatenate([path.vertices for path in outline.get_paths()])
        assert np.allclose(vertices[0], vertices[-1])
        spans.append((*vertices.min(0), *vertices.max(0)))
    assert spans == [(4.5, 3.5, 14.5, 9.5), (4.5, 4.5, 12.5, 11.5), (-0.5, -0.5, 23.5, 15.5)]


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3)])
def test_error_map_colours_what_is_wrong_and_can_be_read_in_grey(count, channels):
    images, masks, predicted = batch(count, channels=channels)
    figure = drawable(show.error_map(images, masks, predicted, titles=["a"] * count))
    assert [axis.get_title() for axis in figure.axes if axis.images] == ["a"] * count
    true, positive = masks[0, 0].bool().numpy(), predicted[0, 0].numpy()
    drawn = picture(figure.axes[0])
    colours = np.array([to_hex(pixel) for pixel in drawn.reshape(-1, 3)]).reshape(16, 24)
    assert set(colours[true & ~positive]) == {MISSED}
    assert set(colours[positive & ~true]) == {INVENTED}
    right = drawn[true == positive]
    assert (right == right[:, :1]).all()
    pale = 0.82 + 0.18 * images[0].float().mean(0).numpy() / 255
    np.testing.assert_allclose(right[:, 0], pale[true == positive], atol=1e-5)
    dark, middle = (np.dot((0.299, 0.587, 0.114), to_rgb(colour)) for colour in (MISSED, INVENTED))  # luma
    assert dark < middle - 0.2 and middle < right.min() - 0.15
    assert legend(figure) == ["missed", "invented"]
    faultless = picture(show.error_map(images, 0 * masks, 0 * predicted).axes[0])
    assert (faultless == faultless[..., :1]).all()


def runs(seeds, epochs=3, start=0.5):
    def row(e, s):
        return {"epoch": e + 1, "val_iou": start + 0.1 * e + 0.02 * s, "loss": -e}

    return [[row(e, s) for e in range(epochs)] for s in range(seeds)]


def test_training_curve_is_the_mean_with_a_band():
    (axis,) = drawable(show.training_curve({"unet": runs(3), "unet++": runs(1, start=0.6)}, label="IoU")).axes
    assert [line.get_label() for line in axis.lines] == ["unet", "unet++"]
    assert axis.lines[0].get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_allclose([line.get_ydata() for line in axis.lines], [[0.52, 0.62, 0.72], [0.6, 0.7, 0.8]])
    (band,) = axis.collections  # one run has no spread
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.5), pytest.approx(0.74))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "IoU")
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 2


def test_training_curve_drops_nobody_and_shows_another_key():
    (axis,) = drawable(show.training_curve({f"net {n}": runs(1) for n in range(8)}, key="loss")).axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[0, -1, -2]] * 8
    assert axis.get_ylabel() == "loss"


def test_a_forest_is_a_line_for_each_comparison_on_one_scale():
    def one(mean, verdict):
        return Comparison(Interval(mean, mean - 0.02, mean + 0.01), 0, 0, verdict)

    found = {
        "nuclei": {"a": one(0.1, "ahead, within 0.02"), "b": one(0, "open")},
        "membranes": {"b": one(-0.03, "second look")},
    }
    left, right = drawable(show.forest(found, label="IoU")).axes
    assert left.get_xlim() == right.get_xlim() == (pytest.approx(-0.1155), pytest.approx(0.1155))
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["b", "a"]  # the first name on top
    dots = {line.get_ydata()[0]: line for line in left.lines if line.get_marker() == "o"}
    assert {y: line.get_xdata()[0] for y, line in dots.items()} == {1: 0.1, 0: 0}
    assert [dots[y].get_markerfacecolor() for y in (1, 0)] == [show.BLUE, "white"]
    spans = [list(line.get_xdata()) for line in left.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != 0]
    assert spans == [pytest.approx([0.08, 0.11]), pytest.approx([-0.02, 0.01])]
    (dot,) = (line for line in right.lines if line.get_marker() == "o")
    assert (dot.get_xdata()[0], dot.get_ydata()[0], dot.get_markerfacecolor()) == (-0.03, 0, "white")
    assert [text.get_text() for text in left.figure.legends[0].get_texts()] == ["ahead", "open"]


def test_points_show_every_run_and_the_mean():
    groups = {"loss": {"L1": [1.0, 3.0], "L2": [2.0]}, "pruned": {"L2": [4.0, 6.0, 5.0]}}
    (axis,) = drawable(show.points(groups, label="IoU")).axes
    dots = [line for line in axis.lines if line.get_marker() != "None" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in dots] == [[1, 3], [2], [4, 6, 5]]
    columns = [set(np.round(line.get_xdata()).tolist()) for line in dots]
    assert columns == [{0}, {1}, {1}]
    assert list(dots[0].get_xdata()) == [0, 0]  # a lone group stands on the tick
    assert dots[1].get_xdata()[0] < dots[2].get_xdata()[0]  # groups side by side
    means = [collection.get_segments()[0][0][1] for collection in axis.collections]
    assert means == [2, 2, 5]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["L1", "L2"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss", "pruned"]
    assert any(list(line.get_ydata()) == [0, 0] for line in axis.lines)
    (axis,) = drawable(show.points(groups, zero=False)).axes
    assert not any(list(line.get_ydata()) == [0, 0] for line in axis.lines)


class OldImage:
    """The Image of IPython 7.34, which Colab has: it knows no `alt`."""

    def __init__(
        self, data=None, url=None, filename=None, format=None, embed=None, width=None, height=None, retina=False,
        unconfined=False, metadata=None,
    ):  # fmt: skip
        self.data = data


@pytest.mark.parametrize("image", [IPython.display.Image, OldImage])
def test_display_gives_the_same_bytes_and_the_alt_text_to_the_notebook(monkeypatch, image):
    calls = []
    monkeypatch.setattr(IPython.display, "Image", image)
    monkeypatch.setattr(IPython.display, "display", lambda shown, **options: calls.append((shown.data, options)))
    for _ in range(2):
        show.display(show.overlay(*batch(1)[:2]), "One nucleus in blue outline.")
    assert calls[0] == calls[1]
    data, options = calls[0]
    assert data.startswith(b"\x89PNG") and b"Software" not in data
    assert options == {"metadata": {"image/png": {"alt": "One nucleus in blue outline."}}}
