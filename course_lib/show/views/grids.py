"""The grid with its costs, for any wiring, depth and width."""

import torch

from course_lib import measure, show
from course_lib.grid import SKIPS, NestedUNet
from course_lib.show import diagram
from course_lib.show.diagram import NAMES, Node
from course_lib.show.views.view import View, check_node, spots

NUMBERS = {"parameters": "parameters", "MACs": "macs", "receptive field": "sees"}  # as written -> key of `_facts`


def design(wiring: str, depth: int, *, width: int = 32, deep_supervision: bool = True, level: int = 0) -> NestedUNet:
    """A net without weights (on the device "meta"), for counting: row i has width * 2**i channels.

    `level` prunes it; 0 leaves it whole.

    Raises:
        UserError: what `NestedUNet` or `prune` refuses.
    """
    with torch.device("meta"):
        widths = [width * 2**i for i in range(depth + 1)]
        net = NestedUNet(widths=widths, wiring=wiring, deep_supervision=deep_supervision)
    return net.prune(level) if level else net


def grid_view(net: NestedUNet, node: Node, *, number: str = "MACs") -> View:
    """The grid with `number` ("parameters", "MACs" or "receptive field") at every node, and the inputs of one node.

    Counted for an image of 96x96; the receptive field is that of the middle pixel and stops at 256.

    Raises:
        UserError: no such node in this net.
    """
    check_node(net, node)
    facts = _facts(net)
    values = {n: fact[NUMBERS[number]] for n, fact in facts.items()}
    unit = 1e6 if number == "MACs" else 1e3 if number == "parameters" else 1
    label = {"MACs": "million MACs", "parameters": "thousand parameters"}.get(number, "pixels seen, one way")
    name, depth = NAMES[net.config["wiring"]], net.depth
    figure = diagram.grid(net, title=f"{name}, depth {depth}", values={n: v / unit for n, v in values.items()},
                          label=label, chosen=node)  # fmt: skip
    macs = (
        sum(fact["macs"] for fact in facts.values())
        + len(net.heads) * net.config["classes"] * net.config["widths"][0] * 96 * 96
    )
    total = f"{measure.parameters(net):,} parameters, {macs / 1e9:.2f} billion MACs for 96x96 pixels"
    heads = f"heads on columns {', '.join(str(j) for j in net.heads.values())}"
    about = {n: f"{diagram.formula(net, n)}\n{_sentence(fact)}" for n, fact in facts.items()}
    alt = f"{name} of depth {depth}: {len(net.nodes)} nodes, each with its {number}; {diagram.formula(net, node)}."
    return View(figure, alt, f"{name}, depth {depth}: {total}; {heads}\n{about[node]}", spots(figure, about))


def four_wirings(width: int = 32, depth: int = 4) -> View:
    """The four wirings side by side with what they cost: the grid explorer in print."""
    figure, axes = show.canvas(2, rows=2, height=6.4)
    lines = []
    for axis, wiring in zip(axes, SKIPS, strict=True):
        net = design(wiring, depth, width=width, deep_supervision=False)
        diagram.draw(axis, net, small=True)
        cost = f"{measure.parameters(net) / 1e6:.2f} million parameters\n{measure.macs(net) / 1e9:.2f} billion MACs"
        axis.set_title(f"{NAMES[wiring]}\n{cost}", fontsize=10)
        lines.append(f"{NAMES[wiring]}: {len(net.nodes)} nodes, {cost}".replace("\n", ", "))
    alt = "Four grids of the same depth: U-Net has the outer nodes alone, the others fill the triangle."
    return View(figure, alt, "\n".join(lines))


def _facts(net: NestedUNet) -> dict[Node, dict[str, int]]:
    reach = measure.receptive_fields(net)
    costs = measure.node_costs(net)
    return {node: costs[node] | {"sees": last - first + 1} for node, (first, last) in reach.items()}


def _sentence(fact: dict[str, int]) -> str:
    return (
        f"{fact['parameters']:,} parameters, {fact['macs'] / 1e6:.1f} million MACs, "
        f"sees {fact['sees']}x{fact['sees']} pixels"
    )
