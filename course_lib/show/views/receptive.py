"""What a node can depend on, as a frame in an image."""

from collections.abc import Sequence

from matplotlib.patches import Rectangle
from torch import Tensor

from course_lib import measure, show
from course_lib.show.diagram import NAMES, Node
from course_lib.show.palette import ORANGE
from course_lib.show.views.grids import design
from course_lib.show.views.view import View, check_node


def receptive_view(
    image: Tensor, node: Node = (0, 2), *, wiring: str = "unet++", depth: int = 2, row: int = 32, column: int = 32
) -> View:
    """What one pixel of one node can depend on, as a frame in the image.

    `row` and `column` are those of the input pixel above which the node's pixel lies.

    Args:
        image: one square image (C, H, W), uint8 or 0..1, whose sides can be halved `depth` times.

    Raises:
        UserError: no such node, a pixel outside, or a side that cannot be halved.
    """
    net = design(wiring, depth, width=1, deep_supervision=False)
    check_node(net, node)
    height, width = image.shape[1:]
    rows, columns = (
        measure.receptive_fields(net, side=side, at=at)[node] for side, at in ((height, row), (width, column))
    )
    figure, (axis,) = show.canvas(width=3.6, height=3.6)
    axis.imshow(show.pixels(image))
    tall, wide = rows[1] - rows[0] + 1, columns[1] - columns[0] + 1
    axis.add_patch(Rectangle((columns[0] - 0.5, rows[0] - 0.5), wide, tall, fill=False, color=ORANGE, linewidth=2.5))
    axis.plot(column, row, "+", color=ORANGE, markersize=12, markeredgewidth=2.5)
    axis.set_title(f"x{node[0]},{node[1]} sees {tall}x{wide}", fontsize=10)
    axis.axis("off")
    text = (
        f"{NAMES[wiring]}, depth {depth}: at row {row}, column {column} x{node[0]},{node[1]} reads rows {rows[0]} to "
        f"{rows[1]} and columns {columns[0]} to {columns[1]}, {tall * wide / (height * width):.0%} of the image"
    )
    return View(figure, f"A frame of {tall}x{wide} pixels around row {row}, column {column}.", text)


def depths_view(image: Tensor, depths: Sequence[int] = (1, 2, 3)) -> View:
    """Frames of the last node of U-Nets of several depths, around the middle: the explorer in print."""
    figure, (axis,) = show.canvas(width=4, height=4.3)
    axis.imshow(show.pixels(image))
    axis.axis("off")
    side, lines = image.shape[-1], []
    for depth, (colour, dash) in zip(depths, show.LINES[1:], strict=False):
        net = design("unet", depth, width=1, deep_supervision=False)
        first, last = measure.receptive_fields(net, side=side)[0, depth]
        seen = last - first + 1
        axis.add_patch(Rectangle((first - 0.5, first - 0.5), seen, seen, fill=False, color=colour, linestyle=dash,
                                 linewidth=2.5, label=f"depth {depth}"))  # fmt: skip
        lines.append(f"depth {depth}: {seen}x{seen} of {side}x{side} pixels")
    figure.legend(loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)
    return View(figure, "An image with one frame a depth, each larger than the one before.", "\n".join(lines))
