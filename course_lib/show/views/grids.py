"""The grid with a number at every node: what it costs, how much gradient reaches it; and what a node sees."""

from collections.abc import Sequence

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from course_lib import measure, show
from course_lib.grid import SKIPS, NestedUNet
from course_lib.predict import as_input
from course_lib.show import diagram
from course_lib.show.diagram import Node
from course_lib.show.views.losses import LOSSES

NUMBERS = {  # as written -> key of a fact, the unit, the unit as written
    "parameters": ("parameters", 1e3, "thousand parameters"),
    "MACs": ("macs", 1e6, "million MACs"),
    "receptive field": ("sees", 1, "pixels seen, one way"),
}
FRAME = {"fill": False, "linewidth": 2.5}


def design(wiring: str, depth: int, *, width: int = 32, deep_supervision: bool = True, level: int = 0) -> NestedUNet:
    """A net without weights (on the device "meta"), for counting: row i has width * 2**i channels.

    `level` prunes it; 0 leaves it whole. Raises UserError: what `NestedUNet` or `prune` refuses.
    """
    with torch.device("meta"):
        net = NestedUNet(3, 1, [width * 2**i for i in range(depth + 1)], wiring, deep_supervision)
    return net.prune(level) if level else net


def grid_view(net: NestedUNet, node: Node, *, number: str = "MACs") -> show.View:
    """The grid with `number` ("parameters", "MACs" or "receptive field") at every node, and the inputs of one node.

    Counted for an image of 96x96; the receptive field is that of the middle pixel and stops at 256.
    Raises UserError: no such node.
    """
    diagram.check_node(net, node)
    costs, reach = measure.node_costs(net), measure.receptive_fields(net)
    facts = {n: costs[n] | {"sees": last - first + 1} for n, (first, last) in reach.items()}
    key, unit, label = NUMBERS[number]
    name = show.NAMES[net.config["wiring"]]
    title, values = f"{name}, depth {net.depth}", {n: fact[key] / unit for n, fact in facts.items()}
    figure = diagram.grid(net, title=title, values=values, label=label, chosen=node)
    of_heads = len(net.heads) * net.config["classes"] * net.config["widths"][0] * 96 * 96
    macs = of_heads + sum(fact["macs"] for fact in facts.values())
    total = f"{measure.parameters(net):,} parameters, {macs / 1e9:.2f} billion MACs for 96x96 pixels"
    heads = f"heads on columns {', '.join(map(str, net.heads.values()))}"
    about = {
        n: f"{diagram.formula(net, n)}\n{fact['parameters']:,} parameters, {fact['macs'] / 1e6:.1f} million MACs, "
        f"sees {fact['sees']}x{fact['sees']} pixels"
        for n, fact in facts.items()
    }
    alt = f"{name} of depth {net.depth}: {len(net.nodes)} nodes, each with its {number}; {diagram.formula(net, node)}."
    return show.View(figure, alt, f"{title}: {total}; {heads}\n{about[node]}", diagram.spots(figure, about))


def four_wirings(width: int = 32, depth: int = 4) -> show.View:
    """The four wirings side by side with what they cost: the grid explorer in print."""
    figure, axes = show.canvas(2, rows=2, height=6.4)
    lines = []
    for axis, wiring in zip(axes, SKIPS, strict=True):
        net = design(wiring, depth, width=width, deep_supervision=False)
        diagram.draw(axis, net, pitch=0.5)
        cost = f"{measure.parameters(net) / 1e6:.2f} million parameters\n{measure.macs(net) / 1e9:.2f} billion MACs"
        axis.set_title(f"{show.NAMES[wiring]}\n{cost}", fontsize=10)
        lines.append(f"{show.NAMES[wiring]}: {len(net.nodes)} nodes, {cost}".replace("\n", ", "))
    alt = "Four grids of the same depth: U-Net has the outer nodes alone, the others fill the triangle."
    return show.View(figure, alt, "\n".join(lines))


def gradient_view(
    images: Tensor, masks: Tensor, *, wiring: str = "unet-e", every_head: bool = False, loss: str = "BCE/2 + Dice",
    seed: int = 0,
) -> show.View:  # fmt: skip
    """How much gradient reaches each node of an untrained net of depth 4 and widths 4 to 8.

    Images (N, 3, H, W), uint8 or prepared, sides multiples of 16; masks (N, 1, H, W).
    Raises UserError: a loss on every head of the plain U-Net.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.default_generator.manual_seed(seed)  # not the GPU's, which is not saved
        net = NestedUNet(widths=(4, 5, 6, 7, 8), wiring=wiring, deep_supervision=every_head).train()
        sizes = measure.node_gradients(net, as_input(images), masks.float(), loss=LOSSES[loss])
    heads = "a loss on every head" if every_head else "one loss, on the last head"
    title = f"{show.NAMES[wiring]}: {loss}, {heads}"
    figure = diagram.grid(net, title=title, values={n: 1000 * s for n, s in sizes.items()}, label="gradient, 1e-3")
    silent = [diagram.name(node) for node, size in sizes.items() if size == 0]
    share = f"{len(silent)} of {len(sizes)} nodes"
    text = f"{share} get no gradient" + (f": {' '.join(silent)}" if silent else "")
    spots = diagram.spots(figure, {node: f"{diagram.name(node)}: {size:.2g}" for node, size in sizes.items()})
    return show.View(figure, f"Gradient at each node of {title}; {share} get none.", text, spots)


def receptive_view(
    image: Tensor, node: Node = (0, 2), *, wiring: str = "unet++", depth: int = 2, row: int = 32, column: int = 32
) -> show.View:
    """What one pixel of one node can depend on, as a frame in an image (C, H, W), uint8 or 0..1.

    `row` and `column` are those of the input pixel above which the node's pixel lies.
    Raises UserError: no such node, a pixel outside, or a side that cannot be halved `depth` times.
    """
    net = design(wiring, depth, width=1, deep_supervision=False)
    diagram.check_node(net, node)
    height, width = image.shape[1:]
    top, bottom = measure.receptive_fields(net, side=height, at=row)[node]
    left, right = measure.receptive_fields(net, side=width, at=column)[node]
    tall, wide = bottom - top + 1, right - left + 1
    figure, (axis,) = show.canvas(width=3.6, height=3.6)
    axis.imshow(show.pixels(image))
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), wide, tall, color=show.ORANGE, **FRAME))
    axis.plot(column, row, "+", color=show.ORANGE, markersize=12, markeredgewidth=2.5)
    show.bare(axis, f"{diagram.name(node)} sees {tall}x{wide}", fontsize=10)
    text = (
        f"{show.NAMES[wiring]}, depth {depth}: at row {row}, column {column} {diagram.name(node)} reads rows {top} to "
        f"{bottom} and columns {left} to {right}, {tall * wide / (height * width):.0%} of the image"
    )
    return show.View(figure, f"A frame of {tall}x{wide} pixels around row {row}, column {column}.", text)


def depths_view(image: Tensor, depths: Sequence[int] = (1, 2, 3)) -> show.View:
    """Frames of the last node of U-Nets of several depths, around the middle: the explorer in print."""
    figure, (axis,) = show.canvas(width=4, height=4.3)
    axis.imshow(show.pixels(image))
    show.bare(axis)
    side, lines = image.shape[-1], []
    for depth, (colour, dash) in zip(depths, show.LINES[1:], strict=False):
        net = design("unet", depth, width=1, deep_supervision=False)
        first, last = measure.receptive_fields(net, side=side)[0, depth]
        seen, corner, label = last - first + 1, (first - 0.5, first - 0.5), f"depth {depth}"
        axis.add_patch(Rectangle(corner, seen, seen, color=colour, linestyle=dash, label=label, **FRAME))
        lines.append(f"{label}: {seen}x{seen} of {side}x{side} pixels")
    figure.legend(loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)
    return show.View(figure, "An image with one frame a depth, each larger than the one before.", "\n".join(lines))
