"""The grid as the papers draw it, made from `net.nodes`, `net.skips` and `net.heads` and nothing else.

Rows go down, columns to the right: x^{i,j} stands at (j, -i).
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from course_lib.grid import NestedUNet
from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, RED, SKY, WHITE, rgb

Node = tuple[int, int]
NAMES = {"unet": "U-Net", "unet-e": "U-Net^e", "unet+": "UNet+", "unet++": "UNet++"}  # a wiring in the papers' words
PITCH = 1.0  # inches from node to node
SIDE = 0.34  # half of a picture's side, in nodes
TITLE, KEYS = 0.35, 0.5  # inches above and below the grid


def grid(
    net: NestedUNet,
    *,
    title: str = "",
    values: Mapping[Node, float] | None = None,
    label: str = "",
    pictures: Mapping[Node, np.ndarray] | None = None,
    chosen: Node | None = None,
) -> Figure:
    """The net as a figure. Blue arrows pool, red ones up-sample, grey ones are skips; a green node has a head.

    Args:
        values: node -> a number >= 0, written below the node and shown by its shade, on a log scale. A node of
            exactly 0 is white with a dashed edge; a node without a value is white.
        label: what the values are.
        pictures: node -> an array (h, w) in 0..1 or NaN, drawn in place of the node.
        chosen: a node whose own inputs stand out; all other arrows are pale.
    """
    left, right, above, below = 1.05, 0.5, 0.85, 0.5  # of the first and last nodes, in nodes
    wide, high = PITCH * (net.depth + left + right), PITCH * (net.depth + above + below)
    figure = Figure(figsize=(wide, high + TITLE + KEYS))  # placed by hand: a layout engine would take most of the time
    axis = figure.add_axes((0, KEYS / (high + TITLE + KEYS), 1, high / (high + TITLE + KEYS)))
    draw(axis, net, values=values, pictures=pictures, chosen=chosen)
    for i, width in enumerate(net.config["widths"]):
        axis.text(-0.62, -i, f"{width}", ha="center", va="center", fontsize=10, color=GREY)
    axis.text(-0.62, 0.5, "channels", ha="center", va="center", fontsize=9, color=GREY)
    axis.set(xlim=(-left, net.depth + right), ylim=(-net.depth - below, above), aspect="auto")
    axis.set_title(title, pad=2)
    keys = _legend(values, label, pictures)
    figure.legend(handles=keys, loc="lower center", ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    return figure


def draw(
    axis: Axes,
    net: NestedUNet,
    *,
    values: Mapping[Node, float] | None = None,
    pictures: Mapping[Node, np.ndarray] | None = None,
    chosen: Node | None = None,
    small: bool = False,
    pitch: float = PITCH,
) -> None:
    """Draw the net into `axis`; arguments as `grid`. `small` nodes have no name.

    `pitch` is the inches from node to node, by which arrows find the rims of pictures.
    """
    size = 11 if small else 27  # points
    reach = 14 / 27 * size if pictures is None else 72 * SIDE * pitch + 1
    for start, end, colour in arrows(net):
        (i, k), (row, j) = start, end
        bend = -0.18 - 0.05 * (j - k) if row == i and j - k > 1 else 0
        pale = chosen is not None and end != chosen
        to_corner = pictures is not None and i != row and k != j  # a square reaches further along its diagonal
        _arrow(
            axis, (start, end), colour, alpha=0.2 if pale else 1, bend=bend, reach=1.4 * reach if to_corner else reach
        )
    shades = {} if values is None else _shades(values)
    headed = {(0, j) for j in net.heads.values()} if values is None else set()
    for node in net.nodes:
        face, dark = shades.get(node, (GREEN, True) if node in headed else (WHITE, False))
        if pictures is not None:
            _picture(axis, node, pictures[node], GREEN if node in headed else BLACK)
        else:
            _circle(axis, node, face, size, dashed=values is not None and values.get(node) == 0)
            if not small:
                i, j = node
                axis.text(*place(node), f"$x^{{{i},{j}}}$", ha="center", va="center", fontsize=11,
                          color=WHITE if dark else BLACK, zorder=5)  # fmt: skip
        if values is not None and node in values:
            x, y = place(node)
            axis.text(x, y - 0.3, _short(values[node]), ha="center", va="top", fontsize=9, zorder=5, color=BLACK,
                      bbox={"facecolor": WHITE, "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    axis.set(xlim=(-0.5, net.depth + 0.5), ylim=(-net.depth - 0.5, 0.85), aspect="equal")
    axis.axis("off")


def arrows(net: NestedUNet) -> list[tuple[Node, Node, str]]:
    """(from, to, colour) of every arrow, in the order in which the nodes read."""
    found = []
    for i, j in net.nodes:
        if j == 0 and i > 0:
            found.append(((i - 1, 0), (i, 0), BLUE))
        if j > 0:
            found += [((i, k), (i, j), GREY) for k in net.skips[j]]
            found.append(((i + 1, j - 1), (i, j), RED))
    return found


def formula(net: NestedUNet, node: Node) -> str:
    """What a node computes, as text: "x0,2 = H([x0,0, x0,1, U(x1,1)])".

    Raises:
        KeyError: the net has no such node.
    """
    if node not in net.nodes:
        raise KeyError(node)
    i, j = node
    if j > 0:
        inputs = ", ".join([f"x{i},{k}" for k in net.skips[j]] + [f"U(x{i + 1},{j - 1})"])
        return f"x{i},{j} = H([{inputs}])"
    return f"x{i},0 = H(D(x{i - 1},0))" if i > 0 else "x0,0 = H(image)"


def place(node: Node) -> tuple[int, int]:
    """Where x^{i,j} is drawn, in the coordinates of the axes."""
    i, j = node
    return j, -i


def _arrow(axis: Axes, ends: tuple[Node, Node], colour: str, *, alpha: float, bend: float, reach: float) -> None:
    arrow = FancyArrowPatch(
        place(ends[0]), place(ends[1]), arrowstyle="-|>", mutation_scale=9, linewidth=1.1, color=colour, alpha=alpha,
        shrinkA=reach, shrinkB=reach, connectionstyle=f"arc3,rad={bend}", zorder=2,
    )  # fmt: skip
    axis.add_patch(arrow)


def _circle(axis: Axes, node: Node, face: str | tuple[float, ...], size: float, *, dashed: bool) -> None:
    x, y = place(node)
    edge = "none" if dashed else BLACK
    axis.plot(x, y, "o", markersize=size, markerfacecolor=face, markeredgecolor=edge, zorder=3)
    if dashed:
        axis.scatter(x, y, s=size**2, facecolor="none", edgecolor=BLACK, linestyle="dashed", zorder=4)


def _picture(axis: Axes, node: Node, picture: np.ndarray, edge: str) -> None:
    (x, y), r = place(node), SIDE
    axis.imshow(picture, extent=(x - r, x + r, y - r, y + r), cmap="gray", vmin=0, vmax=1, aspect="auto", zorder=3)
    axis.plot([x - r, x + r, x + r, x - r, x - r], [y - r, y - r, y + r, y + r, y - r], color=edge, zorder=4,
              linewidth=2.5 if edge == GREEN else 0.8)  # fmt: skip


def _short(value: float) -> str:
    """Two digits, without an exponent where the number is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _shades(values: Mapping[Node, float]) -> dict[Node, tuple[tuple[float, ...] | str, bool]]:
    """Node -> its colour, white for 0 and from pale to full blue by the logarithm, and whether that is dark."""
    logs = {node: np.log(value) for node, value in values.items() if value > 0}
    low, high = min(logs.values(), default=0), max(logs.values(), default=0)
    found: dict[Node, tuple[tuple[float, ...] | str, bool]] = dict.fromkeys(values, (WHITE, False))
    for node, value in logs.items():
        share = 0.15 + 0.85 * ((value - low) / (high - low) if high > low else 1)
        found[node] = (tuple(1 - share * (1 - c) for c in rgb(BLUE)), share > 0.6)
    return found


def _legend(values: Mapping[Node, float] | None, label: str, pictures: Mapping | None) -> list[Line2D]:
    ways = {"D, pooling": BLUE, "U, up-sampling": RED, "skip connection": GREY}
    keys = [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in ways.items()]
    if values is None:
        name, colour = "node with a head", GREEN
    else:
        name = f"{label}; dashed: exactly 0" if 0 in values.values() else label
        colour = SKY
    marker = "o" if pictures is None else "s"
    node = Line2D(
        [], [], marker=marker, markersize=9, color=colour, markeredgecolor=BLACK, linestyle="none", label=name
    )
    return [*keys, node]
