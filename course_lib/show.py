"""Figures. Every function returns a matplotlib Figure; `display` puts it into a notebook with its alt text."""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from course_lib.grid import NestedUNet

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their lightness.
BLACK, GREY = "#000000", "#8c8c8c"
ORANGE, SKY, GREEN, BLUE, RED = "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"
MISSED, INVENTED = SKY, ORANGE
LINES = [(BLUE, "solid"), (RED, "dashed"), (GREEN, "dashdot"), (ORANGE, "dotted"), (SKY, (0, (5, 1))), (BLACK, "solid")]


def display(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook, with the sentence that a reader who cannot see it gets instead."""
    from IPython.display import Image
    from IPython.display import display as show

    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    image = Image(png.getvalue())  # IPython 7 knows no `alt` here
    show(image, metadata={"image/png": {"alt": alt}})


def overlay(
    images: Tensor, masks: Tensor, predicted: Tensor | None = None, *, titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Images with the true outline (blue) and, where given, the predicted one (orange, dashed).

    Args:
        images: uint8 (N, 3, H, W) or floats in 0..1.
        masks, predicted: (N, 1, H, W), bool or {0, 1}.
    """
    figure, axes = _panels(len(images), columns)
    for n, axis in enumerate(axes):
        axis.imshow(_pixels(images[n]))
        _outline(axis, masks[n], BLUE, "solid")
        if predicted is not None:
            _outline(axis, predicted[n], ORANGE, "dashed")
        axis.set_title(titles[n] if titles else "", fontsize=10)
    _legend(figure, {"true": BLUE} | ({"predicted": ORANGE} if predicted is not None else {}))
    return figure


def error_map(
    images: Tensor, masks: Tensor, predicted: Tensor, *, titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Where a prediction is wrong: missed pixels in blue, invented ones in orange, over the image in grey.

    Arguments as `overlay`.
    """
    figure, axes = _panels(len(images), columns)
    for n, axis in enumerate(axes):
        true, found = masks[n, 0].bool().cpu().numpy(), predicted[n, 0].bool().cpu().numpy()
        grey = 0.35 + 0.5 * _pixels(images[n]).mean(axis=2, keepdims=True)
        picture = np.repeat(grey, 3, axis=2)
        picture[true & ~found] = _rgb(MISSED)
        picture[found & ~true] = _rgb(INVENTED)
        axis.imshow(picture)
        axis.set_title(titles[n] if titles else "", fontsize=10)
    _legend(figure, {"missed": MISSED, "invented": INVENTED})
    return figure


def training_curve(
    runs: dict[str, Sequence[Sequence[dict[str, float]]]], *, key: str = "val_iou", label: str = ""
) -> Figure:
    """One line a name: the mean over its runs of a row's value by epoch, and a band from lowest to highest.

    Args:
        runs: name -> runs, each a list of the rows that `fit` yields.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    for (name, rows), (colour, dash) in zip(runs.items(), cycle(LINES), strict=False):
        epochs = [row["epoch"] for row in rows[0]]
        values = np.array([[row[key] for row in run] for run in rows])
        axis.plot(epochs, values.mean(0), color=colour, linestyle=dash, label=name)
        if len(values) > 1:
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="epoch", ylabel=label or key)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def points(groups: dict[str, dict[str, Sequence[float]]], *, label: str = "", zero: bool = True) -> Figure:
    """One dot a run and a bar at their mean: group -> category -> values. `zero` marks 0, for differences."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    categories = list(dict.fromkeys(name for values in groups.values() for name in values))
    for n, (group, values) in enumerate(groups.items()):
        colour, marker = LINES[n][0], "osD^vP"[n]
        shift = 0.25 * (n - (len(groups) - 1) / 2)
        for category, runs in values.items():
            x = categories.index(category) + shift
            axis.plot([x] * len(runs), runs, marker, color=colour, markersize=5, alpha=0.8)
            axis.hlines(np.mean(runs), x - 0.1, x + 0.1, color=colour, linewidth=2)
        axis.plot([], [], marker, color=colour, label=group)
    if zero:
        axis.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    axis.set(xticks=range(len(categories)), xticklabels=categories, ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def grid(
    net: NestedUNet, *, title: str = "", values: Mapping[tuple[int, int], float] | None = None, label: str = ""
) -> Figure:
    """The net as the paper draws it, made from `net.nodes`, `net.skips` and `net.heads` and nothing else.

    Rows go down, columns to the right. Blue arrows pool, red ones up-sample, grey ones are skip connections;
    a green node has a head.

    Args:
        values: node -> a number >= 0, written below the node and shown by its shade, on a log scale. A node of
            exactly 0 is white with a dashed edge; a node without a value is white.
        label: what the values are.
    """
    figure = Figure(figsize=(1.35 * net.depth + 1.6, 1.15 * net.depth + 1.6), layout="constrained")
    axis = figure.subplots()
    nodes = set(net.nodes)
    for i, j in net.nodes:
        if j == 0 and i > 0:
            _arrow(axis, (i - 1, 0), (i, 0), BLUE)
        if j > 0:
            _arrow(axis, (i + 1, j - 1), (i, j), RED)
            for k in net.skips[j]:
                if (i, k) in nodes:
                    _arrow(axis, (i, k), (i, j), GREY, bend=0 if j - k == 1 else -0.18 - 0.05 * (j - k))
    headed = {(0, j) for j in net.heads.values()}
    shades = None if values is None else _shades(values)
    for i, j in net.nodes:
        x, y = _place(i, j)
        if shades is None:
            face, dark = (GREEN, True) if (i, j) in headed else ("white", False)
        else:
            face, dark = shades.get((i, j), ("white", False))
        dashed = values is not None and values.get((i, j)) == 0
        edge = "none" if dashed else BLACK
        axis.plot(x, y, "o", markersize=27, markerfacecolor=face, markeredgecolor=edge, zorder=3)
        if dashed:
            axis.scatter(x, y, s=27**2, facecolor="none", edgecolor=BLACK, linestyle="dashed", zorder=4)
        axis.text(x, y, f"$x^{{{i},{j}}}$", ha="center", va="center", fontsize=10, color="white" if dark else BLACK,
                  zorder=5)  # fmt: skip
        if values is not None and (i, j) in values:
            axis.text(x, y - 0.3, f"{values[i, j]:.2g}", ha="center", va="top", fontsize=8, zorder=5, color=BLACK,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    for i, width in enumerate(net.config["widths"]):
        axis.text(-0.62, -i, f"{width}", ha="right", va="center", fontsize=9, color=GREY)
    axis.text(-0.62, 0.5, "channels", ha="center", va="center", fontsize=8, color=GREY)
    axis.set(xlim=(-1, net.depth + 0.5), ylim=(-net.depth - 0.5, 0.85), aspect="equal", title=title)
    axis.axis("off")
    key = {"D, pooling": BLUE, "U, up-sampling": RED, "skip connection": GREY}
    key |= {"node with a head": GREEN} if values is None else {f"{label}; dashed: exactly 0": BLACK}
    figure.legend(handles=[_key(name, colour) for name, colour in key.items()], loc="outside lower center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure


def _shades(values: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], tuple[tuple[float, ...] | str, bool]]:
    """Node -> its colour, white for 0 and from pale to full blue by the logarithm, and whether that is dark."""
    logs = {node: np.log(value) for node, value in values.items() if value > 0}
    low, high = min(logs.values(), default=0), max(logs.values(), default=0)
    found: dict[tuple[int, int], tuple[tuple[float, ...] | str, bool]] = dict.fromkeys(values, ("white", False))
    for node, value in logs.items():
        share = 0.15 + 0.85 * ((value - low) / (high - low) if high > low else 1)
        found[node] = (tuple(1 - share * (1 - c) for c in _rgb(BLUE)), share > 0.6)
    return found


def _place(i: int, j: int) -> tuple[int, int]:
    """Where x^{i,j} is drawn: columns to the right, rows downwards."""
    return j, -i


def _arrow(axis: Axes, start: tuple[int, int], end: tuple[int, int], colour: str, bend: float = 0) -> None:
    arrow = FancyArrowPatch(
        _place(*start), _place(*end), arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.1,
        shrinkA=14, shrinkB=14, connectionstyle=f"arc3,rad={bend}", zorder=2,
    )  # fmt: skip
    axis.add_patch(arrow)


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.9 * columns, 2.15 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    return figure, list(axes[:count])


def _pixels(image: Tensor) -> np.ndarray:
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


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
