"""Figures. Every function returns a matplotlib Figure; `display` puts it into a notebook with its alt text."""

import io
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, INVENTED, MISSED, ORANGE, RED, SKY, rgb

LINES = [(BLUE, "solid"), (RED, "dashed"), (GREEN, "dashdot"), (ORANGE, "dotted"), (SKY, (0, (5, 1))), (BLACK, "solid")]


def display(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook, with the sentence that a reader who cannot see it gets instead."""
    from IPython.display import Image
    from IPython.display import display as show

    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    image = Image(png.getvalue())  # IPython 7 knows no `alt` here
    show(image, metadata={"image/png": {"alt": alt}})


def canvas(columns: int = 1, *, rows: int = 1, width: float = 6, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """An empty figure in the style of the course, `width` x `height` inches, and its axes row by row.

    Six inches are what a phone still shows readably; type is never smaller than 9 points.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def overlay(
    images: Tensor, masks: Tensor, predicted: Tensor | None = None, *, titles: Sequence[str] = (), columns: int = 4,
    names: tuple[str, str] = ("true", "predicted"),
) -> Figure:  # fmt: skip
    """Images with the true outline (blue) and, where given, the predicted one (orange, dashed); `names` for the key.

    Args:
        images: uint8 (N, 3, H, W) or floats in 0..1.
        masks, predicted: (N, 1, H, W), bool or {0, 1}.
    """
    figure, axes = _panels(len(images), columns)
    for n, axis in enumerate(axes):
        draw_overlay(axis, images[n], masks[n], None if predicted is None else predicted[n])
        axis.set_title(titles[n] if titles else "", fontsize=10)
    _legend(figure, {names[0]: BLUE} | ({names[1]: ORANGE} if predicted is not None else {}))
    return figure


def error_map(
    images: Tensor, masks: Tensor, predicted: Tensor, *, titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Where a prediction is wrong: missed pixels in blue, invented ones in orange, over the image in pale grey.

    Arguments as `overlay`.
    """
    figure, axes = _panels(len(images), columns)
    for n, axis in enumerate(axes):
        draw_errors(axis, images[n], masks[n], predicted[n])
        axis.set_title(titles[n] if titles else "", fontsize=10)
    _legend(figure, {"missed": MISSED, "invented": INVENTED})
    return figure


def draw_overlay(axis: Axes, image: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
    """One panel of `overlay`: an image (3, H, W), masks (1, H, W)."""
    axis.imshow(pixels(image))
    _outline(axis, mask, BLUE, "solid")
    if predicted is not None:
        _outline(axis, predicted, ORANGE, "dashed")


def draw_errors(axis: Axes, image: Tensor, mask: Tensor, predicted: Tensor) -> None:
    """One panel of `error_map`: an image (3, H, W), masks (1, H, W)."""
    true, found = mask[0].bool().cpu().numpy(), predicted[0].bool().cpu().numpy()
    grey = 0.82 + 0.18 * pixels(image).mean(axis=2, keepdims=True)  # paler than both kinds of mistakes
    picture = np.repeat(grey, 3, axis=2)
    picture[true & ~found] = rgb(MISSED)
    picture[found & ~true] = rgb(INVENTED)
    axis.imshow(picture)


def training_curve(
    runs: dict[str, Sequence[Sequence[dict[str, float]]]], *, key: str = "val_iou", label: str = ""
) -> Figure:
    """One line a name: the mean over its runs of a row's value by epoch, and a band from lowest to highest.

    Args:
        runs: name -> runs, each a list of the rows that `fit` yields.
    """
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


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.55 * columns, 1.8 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    return figure, list(axes[:count])


def pixels(image: Tensor) -> np.ndarray:
    """An image (C, H, W), uint8 or 0..1, of 1 or 3 channels, as matplotlib wants it: (H, W, 3), 0..1."""
    image = image.float() / 255 if not image.is_floating_point() else image
    return image.permute(1, 2, 0).expand(-1, -1, 3).clamp(0, 1).cpu().numpy()


def _outline(axis: Axes, mask: Tensor, colour: str, style: str) -> None:
    # A frame of background closes the outline of what the image border cuts.
    framed = np.pad(mask[0].float().cpu().numpy(), 1)
    if framed.any():
        x, y = np.arange(framed.shape[1]) - 1, np.arange(framed.shape[0]) - 1
        axis.contour(x, y, framed, levels=[0.5], colors=[colour], linewidths=1.4, linestyles=style)


def _legend(figure: Figure, names: dict[str, str]) -> None:
    handles = [_key(name, colour) for name, colour in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)


def _key(name: str, colour: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=4, label=name)
