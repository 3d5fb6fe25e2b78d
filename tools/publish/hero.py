"""Draw docs/hero.png: a small UNet++ at work, from an image to the masks of its heads. python -m tools.publish.hero

Everything in it is computed: the net is trained here, on the built-in images, for half a minute.
"""

import sys

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib import data, metrics, show
from course_lib.grid import NestedUNet
from course_lib.predict import probabilities
from course_lib.show import diagram
from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, INVENTED, MISSED, RED
from course_lib.show.views import Features
from course_lib.train import fit
from tools.checkout import ROOT

WIDTHS, SIZE, EPOCHS = (8, 16, 32, 64), 96, 20
LIMITS = (-1.85, 4.15), (-3.45, 1.95)
SIDE = 0.36  # half of a picture's side; nodes are 1 apart


def trained() -> tuple[NestedUNet, data.Split]:
    """A UNet++ with deep supervision, and images that it has not seen."""
    torch.manual_seed(0)
    splits = data.draw(300, SIZE)
    net = NestedUNet(widths=WIDTHS, deep_supervision=True)
    for row in fit(net, splits, epochs=EPOCHS):
        print("epoch {epoch:2d}  val IoU {val_iou:.3f}".format(**row), flush=True)
    return net.cpu().eval(), splits.val


def telling(net: NestedUNet, val: data.Split) -> int:
    """The stained image, not too empty, on which the last head beats the first by most: levels differ there."""
    first, last = (metrics.iou(metrics.count(probabilities(net, val.images, head=j) > 0.5, val.masks)) for j in (1, 3))
    colours = val.images.float().mean((2, 3))
    stained = (colours.amax(1) - colours.amin(1) > 15) & (val.labels.amax((1, 2)) >= 5)
    return int(torch.where(stained & (last > 0.85), last - first, -1.0).argmax())


def draw(net: NestedUNet, val: data.Split) -> Figure:
    """An image, what every node makes of it, and above the top row what each head gets wrong."""
    n = telling(net, val)
    image, mask = val.images[n], val.masks[n]
    features = Features(net, image)
    pictures = {node: strongest(maps) for node, maps in features.maps.items()}
    figure = Figure(figsize=(9, 6.6))
    axis = figure.add_axes((0, 0, 1, 1))
    diagram.draw(axis, net, pictures=pictures, pitch=9 / 6)
    place(axis, show.pixels(image), -1.35, 0, "image")
    axis.annotate("", (-0.4, 0), (-0.95, 0), arrowprops={"arrowstyle": "-|>", "color": BLACK})
    for j in net.heads.values():
        p = probabilities(net, image[None], head=j)
        score = metrics.iou(metrics.count(p > 0.5, mask[None])).item()
        box = place(axis, show.pixels(image), j, 1.2, f"head {j}\nIoU {score:.2f}")
        panel = figure.add_axes(box)
        show.draw_errors(panel, image, mask, p[0] > 0.5)
        panel.axis("off")
        axis.annotate("", (j, 0.8), (j, 0.4), arrowprops={"arrowstyle": "-|>", "color": GREEN})
    words(axis)
    return figure


def strongest(maps: np.ndarray) -> np.ndarray:
    """The channel that varies most, in 0..1."""
    picture = maps[maps.std(axis=(1, 2)).argmax()]
    return (picture - picture.min()) / max(picture.max() - picture.min(), 1e-6)


def place(axis: Axes, picture: np.ndarray, x: float, y: float, title: str) -> tuple[float, float, float, float]:
    """Show a picture at (x, y) with its title; returns its box in fractions of the figure."""
    axis.set(xlim=LIMITS[0], ylim=LIMITS[1], aspect="equal")
    axis.imshow(picture, extent=(x - SIDE, x + SIDE, y - SIDE, y + SIDE), zorder=3)
    axis.set(xlim=LIMITS[0], ylim=LIMITS[1], aspect="equal")
    axis.text(x, y + SIDE + 0.08, title, ha="center", fontsize=10)
    axis.apply_aspect()
    to_figure = axis.transData + axis.figure.transFigure.inverted()
    left, low = to_figure.transform((x - SIDE, y - SIDE))
    right, top = to_figure.transform((x + SIDE, y + SIDE))
    return left, low, right - left, top - low


def words(axis: Axes) -> None:
    """The size of each row, and a key of the colours."""
    note = {"fontsize": 10, "color": GREY, "ha": "left", "va": "center"}
    axis.text(3.55, 0, "full size", **note)
    axis.text(2.55, -1, "half", **note)
    axis.text(1.6, -2, "quarter", **note)
    axis.text(0.6, -3, "eighth", **note)
    keys = {"blue arrows halve": BLUE, "red ones double": RED, "grey ones are skip connections": GREY,
            "green: nodes with a head": GREEN, "missed by a head": MISSED, "invented by it": INVENTED}  # fmt: skip
    for line, (text, colour) in enumerate(keys.items()):
        axis.plot(2.25, -1.95 - 0.25 * line, "s", color=colour, markersize=9)
        axis.text(2.4, -1.95 - 0.25 * line, text, fontsize=10, va="center")


def main() -> int:
    draw(*trained()).savefig(ROOT / "docs" / "hero.png", dpi=160, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
