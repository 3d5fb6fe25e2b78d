"""Figures: what is drawn for odd inputs, in which colour, and how large."""

import io

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text

from course_lib import show
from course_lib.show.palette import BLUE, INVENTED, MISSED, ORANGE, grey


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
    grey = 0.82 + 0.18 * images[0].float().mean(0).numpy() / 255
    np.testing.assert_allclose(right[:, 0], grey[true == found], atol=1e-5)
    assert legend(figure) == ["missed", "invented"]


def test_error_map_can_be_read_in_grey():
    figure = show.error_map(*batch(1))
    picture = np.asarray(figure.axes[0].images[0].get_array())
    right = picture[(picture == picture[..., :1]).all(-1)]
    assert grey(MISSED) < grey(INVENTED) - 0.2  # dark, middle, pale
    assert grey(INVENTED) < right.min() - 0.15


@pytest.mark.parametrize(
    "figure",
    [
        show.overlay(*batch(4), titles=["a"] * 4),
        show.error_map(*batch(8), titles=["a"] * 8),
        show.points({"a": {"L1": [0.5, 0.6]}, "b": {"L1": [0.4]}}, label="IoU"),
        show.canvas(2)[0],
    ],
)
def test_figures_fit_a_phone(figure):
    drawable(figure)
    assert figure.get_size_inches()[0] <= 6.4
    written = [text for text in figure.findobj(Text) if text.get_text()]
    assert min((text.get_fontsize() for text in written), default=9) >= 9


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
    assert list(dots[0].get_xdata()) == [0, 0]  # a lone group stands on the tick
    assert dots[1].get_xdata()[0] < dots[2].get_xdata()[0]  # groups side by side
    means = [collection.get_segments()[0][0][1] for collection in axis.collections]
    assert means == [2, 2, 5]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["L1", "L2"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss", "pruned"]
    assert any(list(line.get_ydata()) == [0, 0] for line in axis.lines)
    (axis,) = drawable(show.points(groups, zero=False)).axes
    assert not any(list(line.get_ydata()) == [0, 0] for line in axis.lines)


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
