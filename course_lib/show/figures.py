"""Figures. Functions return a matplotlib Figure; `display` puts it into a notebook with its alt text."""

import io
from collections.abc import Callable, Sequence
from itertools import cycle, zip_longest
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from course_lib.data.pixels import as_rgb
from course_lib.results.compare import MARGIN, WITHIN, Comparison
from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, INVENTED, MISSED, ORANGE, RED, SKY

LINES = [(BLUE, "solid"), (RED, "dashed"), (GREEN, "dashdot"), (ORANGE, "dotted"), (SKY, (0, (5, 1))), (BLACK, "solid")]


class Spot(NamedTuple):
    """A round place in a figure that answers when it is pointed at; fractions of the width and of the height."""

    left: float
    top: float
    width: float
    height: float
    text: str


class View(NamedTuple):
    """One state of an interactive view: a figure, what it shows in a sentence, and lines to print below it."""

    figure: Figure
    alt: str
    text: str
    spots: Sequence[Spot] = ()


def display(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook, with the sentence that a reader who cannot see it gets instead."""
    import IPython.display

    image = IPython.display.Image(png(figure))  # IPython 7 knows no `alt` here
    IPython.display.display(image, metadata={"image/png": {"alt": alt}})


def png(figure: Figure) -> bytes:
    """A figure as a file, 100 pixels an inch; drawn anew it gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, metadata={"Software": None})
    return out.getvalue()


def canvas(columns: int = 1, *, rows: int = 1, width: float = 6, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """An empty figure, `width` x `height` inches (a phone shows six readably), and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def bare(axis: Axes, title: str = "", *, fontsize: int = 9) -> None:
    """A panel that shows a picture: its title and neither frame nor ticks."""
    axis.set_title(title, fontsize=fontsize)
    axis.axis("off")


def overlay(
    images: Tensor, masks: Tensor, predicted: Tensor | None = None, *, titles: Sequence[str] = (), columns: int = 4,
    names: tuple[str, str] = ("true", "predicted"),
) -> Figure:  # fmt: skip
    """Images with the true outline (blue) and, where given, the predicted one (orange, dashed); `names` for the key.

    Images are (N, 3, H, W), uint8 or floats in 0..1, masks and predicted ones (N, 1, H, W), bool or {0, 1}.
    """
    if predicted is None:
        return _panels(draw_overlay, [images, masks], titles=titles, columns=columns, colours={names[0]: BLUE})
    colours = {names[0]: BLUE, names[1]: ORANGE}
    return _panels(draw_overlay, [images, masks, predicted], titles=titles, columns=columns, colours=colours)


def error_map(
    images: Tensor, masks: Tensor, predicted: Tensor, *, titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Where a prediction is wrong: missed pixels blue, invented ones orange, the image pale. Arguments as `overlay`."""
    colours = {"missed": MISSED, "invented": INVENTED}
    return _panels(draw_errors, [images, masks, predicted], titles=titles, columns=columns, colours=colours)


def draw_overlay(axis: Axes, image: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
    """One panel of `overlay`: an image (3, H, W), masks (1, H, W)."""
    axis.imshow(pixels(image))
    for one, colour, style in ((mask, BLUE, "solid"), (predicted, ORANGE, "dashed")):
        if one is not None and one.any():
            framed = np.pad(one[0].float().cpu().numpy(), 1)  # background closes what the image border cuts
            x, y = np.arange(framed.shape[1]) - 1, np.arange(framed.shape[0]) - 1
            axis.contour(x, y, framed, levels=[0.5], colors=[colour], linewidths=1.4, linestyles=style)


def draw_errors(axis: Axes, image: Tensor, mask: Tensor, predicted: Tensor) -> None:
    """One panel of `error_map`: an image (3, H, W), masks (1, H, W)."""
    true, positive = mask[0].bool().cpu().numpy(), predicted[0].bool().cpu().numpy()
    picture = np.repeat(0.82 + 0.18 * pixels(image).mean(axis=2, keepdims=True), 3, axis=2)  # paler than mistakes
    picture[true & ~positive] = to_rgb(MISSED)
    picture[positive & ~true] = to_rgb(INVENTED)
    axis.imshow(picture)


def training_curve(
    runs: dict[str, Sequence[Sequence[dict[str, float]]]], *, key: str = "val_iou", label: str = ""
) -> Figure:
    """One line a name: by epoch, the mean over its runs, lists of the rows of `fit`; a band from lowest to highest."""
    figure, (axis,) = canvas()
    for (name, rows), (colour, dash) in zip(runs.items(), cycle(LINES), strict=False):
        epochs = [row["epoch"] for row in rows[0]]
        values = np.array([[row[key] for row in run] for run in rows])
        axis.plot(epochs, values.mean(0), color=colour, linestyle=dash, label=name)
        if len(values) > 1:
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="epoch", ylabel=label or key)
    axis.legend(frameon=False)
    return figure


def points(groups: dict[str, dict[str, Sequence[float]]], *, label: str = "", zero: bool = True) -> Figure:
    """One dot a run and a bar at their mean: group -> category -> values. `zero` marks 0, for differences."""
    figure, (axis,) = canvas()
    categories = list(dict.fromkeys(name for values in groups.values() for name in values))
    for n, (group, values) in enumerate(groups.items()):
        colour, marker = LINES[n][0], "osD^vP"[n]
        for category, runs in values.items():
            beside = [name for name, others in groups.items() if category in others]  # a lone group stands on the tick
            x = categories.index(category) + 0.25 * (beside.index(group) - (len(beside) - 1) / 2)
            axis.plot([x] * len(runs), runs, marker, color=colour, markersize=5, alpha=0.8)
            axis.hlines(np.mean(runs), x - 0.1, x + 0.1, color=colour, linewidth=2)
        axis.plot([], [], marker, color=colour, label=group)
    if zero:
        axis.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    axis.set(xticks=range(len(categories)), xticklabels=categories, ylabel=label)
    axis.legend(frameon=False)
    return figure


def forest(found: dict[str, dict[str, Comparison]], *, label: str = "") -> Figure:
    """Differences and their intervals around zero: panel -> name -> comparison. The margin is shaded.

    What is ahead or behind is coloured, what is only within the margin black; what is open, or not judged, is hollow.
    """
    colours = {"ahead": BLUE, "behind": RED, WITHIN: BLACK, "open": GREY}
    names = list(dict.fromkeys(name for lines in found.values() for name in lines))[::-1]
    figure, axes = canvas(len(found), width=2.4 + 1.4 * len(found), height=1 + 0.24 * len(names))
    every = [one for lines in found.values() for one in lines.values()]
    reach = 1.05 * max(abs(end) for one in every for end in one.difference)
    for axis, (panel, lines) in zip(axes, found.items(), strict=True):
        for name, one in lines.items():
            y, colour = names.index(name), colours.get(one.verdict.split(",")[0], GREY)
            face = "white" if colour == GREY else colour
            axis.plot(one.difference[1:], [y, y], color=colour, linewidth=1.5)
            axis.plot(one.difference.mean, y, "o", color=colour, markersize=5, markerfacecolor=face)
        axis.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.15, linewidth=0)
        axis.axvline(0, color=BLACK, linewidth=0.8)
        axis.set(yticks=range(len(names)), yticklabels=names if axis is axes[0] else [], ylim=(-0.6, len(names) - 0.4))
        axis.set_xlim(-reach, reach)  # one scale for all
        axis.set_title(panel, fontsize=10)
        axis.locator_params(axis="x", nbins=4)
    said = {one.verdict.split(",")[0] for one in every}
    handles = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in colours.items() if name in said]
    for handle in (one for one in handles if one.get_label() == "open"):
        handle.set_markerfacecolor("white")
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9, title=label)
    return figure


def pixels(image: Tensor) -> np.ndarray:
    """An image (C, H, W), uint8 or 0..1, as matplotlib wants it: (H, W, 3), 0..1, by the rule of `as_rgb`."""
    image = image.float() / 255 if not image.is_floating_point() else image
    return as_rgb(image.permute(1, 2, 0).clamp(0, 1).cpu().numpy())


def keys(colours: dict[str, str]) -> list[Line2D]:
    """Entries of a legend, name -> colour: a short thick line each."""
    return [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in colours.items()]


def _panels(
    draw: Callable[..., None], batches: list[Tensor], *, titles: Sequence[str], columns: int, colours: dict[str, str]
) -> Figure:
    """A panel for each image, drawn from one of every batch, in rows of `columns`; below, what the colours mean."""
    count = len(batches[0])
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = canvas(columns, rows=rows, width=1.55 * columns, height=1.8 * rows + 0.3)
    for axis, title in zip_longest(axes, titles[:count], fillvalue=""):
        bare(axis, title, fontsize=10)
    for axis, *one in zip(axes, *batches, strict=False):
        draw(axis, *one)
    figure.legend(handles=keys(colours), loc="outside lower center", ncols=len(colours), frameon=False, fontsize=9)
    return figure
