"""What every view returns, and what several views share."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.show import diagram
from course_lib.show.diagram import NAMES, Node


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


def check_node(net: NestedUNet, node: Node) -> None:
    """Whether the net has this node; raises UserError if not."""
    if node not in net.nodes:
        name = NAMES[net.config["wiring"]]
        known = " ".join(f"x{i},{j}" for i, j in net.nodes)
        raise UserError(f"{name} of depth {net.depth} has no node x{node[0]},{node[1]}: choose from {known}")


def spots(figure: Figure, about: dict[Node, str]) -> list[Spot]:
    """Where the nodes of `diagram.grid` lie in the figure, which is placed by hand and need not be drawn to know."""
    (axis,) = figure.axes
    wide, high = figure.canvas.get_width_height()
    found = []
    for node, text in about.items():
        x, y = diagram.place(node)
        left, low = axis.transData.transform((x - 0.2, y - 0.2))
        right, top = axis.transData.transform((x + 0.2, y + 0.2))
        found.append(Spot(left / wide, 1 - top / high, (right - left) / wide, (top - low) / high, text))
    return found
