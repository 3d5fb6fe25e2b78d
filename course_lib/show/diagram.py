"""The grid as the papers draw it, made from `net.nodes`, `net.skips` and `net.heads` and nothing else.

Rows go down, columns to the right: x^{i,j} stands at (j, -i).
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet
from course_lib.show.figures import Spot, keys
from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, RED, SKY, WHITE

Node = tuple[int, int]
# A wiring as the papers write it: U-Net, U-Net^e, UNet+, UNet++.
NAMES = {one: one.replace("unet", "UNet" if "+" in one else "U-Net").replace("t-", "t^") for one in SKIPS}
SIDE = 0.34  # half of a picture's side, in nodes


def grid(
    net: NestedUNet, *, title: str = "", values: Mapping[Node, float] | None = None, label: str = "",
    pictures: Mapping[Node, np.ndarray] | None = None, chosen: Node | None = None,
) -> Figure:  # fmt: skip
    """The net as a figure. Blue arrows pool, red ones up-sample, grey ones are skips; a green node has a head.

    Args:
        values: node -> a number >= 0, written below the node and shown by its shade, on a log scale; `label` says what
            it is. A node of exactly 0 is white with a dashed edge; a node without a value is white.
        pictures: node -> an array (h, w) in 0..1 or NaN, drawn in place of the node.
        chosen: a node whose own inputs stand out; all other arrows are pale.
    """
    left, right, above, below = 1.05, 0.5, 0.85, 0.5  # of the first and last nodes, in nodes
    wide, high = net.depth + left + right, net.depth + above + below  # an inch from node to node
    key, tall = 0.5, high + 0.35 + 0.5  # the title is above the grid, the key below
    figure = Figure(figsize=(wide, tall))  # placed by hand: a layout engine would take most of the time
    axis = figure.add_axes((0, key / tall, 1, high / tall))
    draw(axis, net, values=values, pictures=pictures, chosen=chosen)
    for i, width in enumerate(net.config["widths"]):
        axis.text(-0.62, -i, f"{width}", ha="center", va="center", fontsize=10, color=GREY)
    axis.text(-0.62, 0.5, "channels", ha="center", va="center", fontsize=9, color=GREY)
    axis.set(xlim=(-left, net.depth + right), ylim=(-net.depth - below, above), aspect="auto")
    axis.set_title(title, pad=2)
    if values is None:
        label, colour = "node with a head", GREEN
    else:
        label, colour = f"{label}; dashed: exactly 0" if 0 in values.values() else label, SKY
    node = Line2D([], [], marker="o" if pictures is None else "s", markersize=9, color=colour,
                  markeredgecolor=BLACK, ls="none", label=label)  # fmt: skip
    handles = [*keys({"D, pooling": BLUE, "U, up-sampling": RED, "skip connection": GREY}), node]
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    return figure


def draw(
    axis: Axes, net: NestedUNet, *, values: Mapping[Node, float] | None = None,
    pictures: Mapping[Node, np.ndarray] | None = None, chosen: Node | None = None, pitch: float = 1,
) -> None:  # fmt: skip
    """`grid` without its frame, into `axis`. Nodes are `pitch` inches apart; below 3/4 they are small and nameless."""
    size = 27 if pitch >= 0.75 else 11  # points
    reach = 14 / 27 * size if pictures is None else 72 * SIDE * pitch + 1  # of an arrow's ends from the places
    for (row, k), (i, j), colour in arrows(net):
        to_corner = pictures is not None and i != row and k != j
        shrink = reach * (1.4 if to_corner else 1)  # a square reaches further along its diagonal
        bend = -0.18 - 0.05 * (j - k) if row == i and j - k > 1 else 0
        axis.add_patch(FancyArrowPatch(
            (k, -row), (j, -i), arrowstyle="-|>", mutation_scale=9, linewidth=1.1, color=colour, zorder=2,
            alpha=1 if chosen in (None, (i, j)) else 0.2, shrinkA=shrink, shrinkB=shrink,
            connectionstyle=f"arc3,rad={bend}",
        ))  # fmt: skip
    headed = {(0, j) for j in net.heads.values()} if values is None else set()
    shades = dict.fromkeys(headed, (GREEN, True)) if values is None else _shades(values)
    for i, j in net.nodes:
        node, place = (i, j), (j, -i)
        if pictures is not None:
            _picture(axis, place, picture=pictures[node], edge=GREEN if node in headed else BLACK)
        else:
            face, dark = shades.get(node, (WHITE, False))
            dashed = values is not None and values.get(node) == 0
            axis.plot(*place, "o", markersize=size, markerfacecolor=face, zorder=3,
                      markeredgecolor="none" if dashed else BLACK)  # fmt: skip
            if dashed:
                axis.scatter(*place, s=size**2, facecolor="none", edgecolor=BLACK, linestyle="dashed", zorder=4)
            if pitch >= 0.75:
                axis.text(*place, f"$x^{{{i},{j}}}$", ha="center", va="center", fontsize=11,
                          color=WHITE if dark else BLACK, zorder=5)  # fmt: skip
        if values is not None and node in values:
            number = f"{values[node]:,.0f}" if values[node] >= 100 else f"{values[node]:.2g}"
            axis.text(j, -i - 0.3, number, ha="center", va="top", fontsize=9, zorder=5, color=BLACK,
                      bbox={"facecolor": WHITE, "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    axis.set(xlim=(-0.5, net.depth + 0.5), ylim=(-net.depth - 0.5, 0.85), aspect="equal")
    axis.axis("off")


def arrows(net: NestedUNet) -> list[tuple[Node, Node, str]]:
    """(from, to, colour) of every arrow, in the order in which the nodes read."""
    drawn = []
    for i, j in net.nodes:
        if j > 0:
            drawn += [((i, k), (i, j), GREY) for k in net.skips[j]]
            drawn.append(((i + 1, j - 1), (i, j), RED))
        elif i > 0:
            drawn.append(((i - 1, 0), (i, 0), BLUE))
    return drawn


def name(node: Node) -> str:
    """ "x0,2", as formulas and sentences call a node."""
    return f"x{node[0]},{node[1]}"


def formula(net: NestedUNet, node: Node) -> str:
    """What a node of the net computes, as text: "x0,2 = H([x0,0, x0,1, U(x1,1)])"."""
    i, j = node
    if j > 0:
        skips = "".join(f"{name((i, k))}, " for k in net.skips[j])
        return f"{name(node)} = H([{skips}U({name((i + 1, j - 1))})])"
    return f"{name(node)} = H(D({name((i - 1, 0))}))" if i > 0 else "x0,0 = H(image)"


def check_node(net: NestedUNet, node: Node) -> None:
    """Raises UserError: the net has no such node."""
    if node not in net.nodes:
        net_name, known = NAMES[net.config["wiring"]], " ".join(map(name, net.nodes))
        raise UserError(f"{net_name} of depth {net.depth} has no node {name(node)}: choose from {known}")


def spots(figure: Figure, about: dict[Node, str]) -> list[Spot]:
    """Where the nodes of `grid` lie in the figure, which is placed by hand and need not be drawn to know."""
    (axis,) = figure.axes
    wide, high = figure.canvas.get_width_height()
    placed = []
    for (i, j), text in about.items():
        (left, low), (right, top) = axis.transData.transform([(j - 0.2, -i - 0.2), (j + 0.2, -i + 0.2)])
        placed.append(Spot(left / wide, 1 - top / high, (right - left) / wide, (top - low) / high, text))
    return placed


def _picture(axis: Axes, place: tuple[int, int], *, picture: np.ndarray, edge: str) -> None:
    (x, y), r = place, SIDE
    axis.imshow(picture, extent=(x - r, x + r, y - r, y + r), cmap="gray", vmin=0, vmax=1, aspect="auto", zorder=3)
    axis.plot([x - r, x + r, x + r, x - r, x - r], [y - r, y - r, y + r, y + r, y - r], color=edge, zorder=4,
              linewidth=2.5 if edge == GREEN else 0.8)  # fmt: skip


def _shades(values: Mapping[Node, float]) -> dict[Node, tuple[tuple[float, ...], bool]]:
    """Node with a value above 0 -> its colour, from pale to full blue by the logarithm, and whether that is dark."""
    logs = {node: np.log(value) for node, value in values.items() if value > 0}
    low, high = min(logs.values(), default=0), max(logs.values(), default=0)
    shares = {n: 0.15 + 0.85 * ((log - low) / (high - low) if high > low else 1) for n, log in logs.items()}
    return {n: (tuple(1 - share * (1 - c) for c in to_rgb(BLUE)), share > 0.6) for n, share in shares.items()}
