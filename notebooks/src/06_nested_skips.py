# %% [markdown] needs="04; for its last section the interval of 05" minutes=1
# # Must we choose one depth?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# Lesson 05 ended without a best depth: it depends on the images. One could train a U-Net of every depth and keep the
# best. But look at what they would have in common: they all begin with the same halvings. This lesson puts all depths
# into one net, finds what is wrong with the first attempt, and arrives at UNet++.
#
# You will be able to
#
# - write U-Net, U-Net^e, UNet+ and UNet++ as one grid with four wirings,
# - find out which node depends on which, by changing one and watching the others,
# - say which nodes a loss at the last head leaves without any gradient.
#
# Two cores need less than a minute; one H100 needs 53 s for the larger sizes of the GPU, beside twelve other lessons.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
import copy

import torch
from torch import nn

from course_lib import data, measure, results, show
from course_lib.checks import check_nested_unet, check_skips
from course_lib.grid import SKIPS, NestedUNet, VGGBlock
from course_lib.lesson import presets
from course_lib.predict import as_input
from course_lib.results.compare import paired_interval
from course_lib.show import views, widgets
from course_lib.train import Recipe, fit

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %%
splits = data.draw(sizes.images, sizes.size, seed=SEED)
train = splits.train

# %% [markdown]
# ## What do U-Nets of all depths have in common?
#
# A U-Net of depth $L$ is the encoder $x^{0,0}, \ldots, x^{L,0}$ and one decoder, the diagonal of nodes with
# $i + j = L$. The encoder of a shallow one is the top of the encoder of a deep one. So draw all four over each other:
# one encoder, four decoders. The journal paper calls this ensemble U-Net^e (UNet++, 2020).
#
# **Predict first.** Four separate U-Nets of depths 1 to 4 have 10.4 million weights together, at the published widths.
# How many does U-Net^e have?

# %%
figure = show.grid(NestedUNet(wiring="unet-e", deep_supervision=True), title="U-Net^e")
show.display(
    figure,
    alt="U-Net^e: one encoder down the left, four diagonals up to the top row, each ending in a head. "
    "All skip connections start in the encoder.",
)

# %% tags=["nbval-check-output"]
widths = (32, 64, 128, 256, 512)
alone = [
    measure.parameters(NestedUNet(widths=widths[: depth + 1], wiring="unet"))
    for depth in (1, 2, 3, 4)
]
shared = measure.parameters(NestedUNet(wiring="unet-e", deep_supervision=True))
print(f"four U-Nets: {' + '.join(f'{n:,}' for n in alone)} = {sum(alone):,} weights")
print(f"U-Net^e:     {shared:,} weights")
assert shared < sum(alone)

# %% [markdown]
# Sharing saves the encoders of the smaller nets. It saves little, because nearly all weights sit in the lowest rows,
# and those belong to the deepest net alone. The gain is another one: a single training, and all depths at hand.

# %% [markdown]
# ## What does the grid look like as a formula?
#
# Every node $x^{i,j}$ with $j > 0$ reads the node below it on its diagonal, up-sampled, and some nodes of its own row:
#
# $$x^{i,j} = H\big([\,x^{i,k} \text{ for } k \in \mathrm{SKIPS}(j),\;\; U(x^{i+1,j-1})\,]\big)$$
#
# In U-Net^e that is the encoder alone, $k = 0$: **long** skips. Two nodes beside each other in a row never meet, and so
# the decoders learn nothing from each other. UNet+ connects each node to its left neighbour instead: **short** skips.
# UNet++ keeps both: every node reads **all** nodes on its left. ($H$ is the block of lesson 02, $U$ doubles the size,
# the bracket puts channels side by side, as in lesson 04.)
#
# ### Exercise 1: one function, four networks (5 minutes, easy)
#
# Write `skips`, from the name of a wiring and a column j > 0 to the list of columns k that $x^{i,j}$ reads, left to
# right. U-Net reads what U-Net^e reads; it only has fewer nodes.
#
# <details><summary>Hint 1</summary>The columns left of j are 0, 1, ..., j - 1. Each wiring takes some of them.
# <details><summary>Hint 2</summary>Long: the first one. Short: the last one. Dense: all of them.
# <details><summary>Hint 3</summary><code>list(range(j))</code> has the dense ones; the others are one slice of
# it.</details></details></details>


# %% tags=["exercise"]
def skips(wiring, j):
    """Columns k of the row that x^{i,j} reads, j > 0, for "unet", "unet-e", "unet+" and "unet++"."""
    ### BEGIN SOLUTION
    left = list(range(j))
    return {"unet": left[:1], "unet-e": left[:1], "unet+": left[-1:], "unet++": left}[wiring]
    ### END SOLUTION


# %%
check_skips(skips)

# %% tags=["nbval-check-output"]
for wiring in SKIPS:
    print(f"{wiring:7}", [skips(wiring, j) for j in (1, 2, 3, 4)])

# %% [markdown]
# The official Keras code has UNet+ and UNet++ as two files of 175 lines that differ in this one expression. U-Net and
# U-Net^e differ in which nodes there are, not in what a node reads.

# %%
for wiring, title in (("unet+", "UNet+: short skips"), ("unet++", "UNet++: all skips")):
    figure = show.grid(NestedUNet(wiring=wiring), title=title)
    which = "to its left neighbour only" if wiring == "unet+" else "to all nodes on its left"
    show.display(figure, alt=f"{title}: a triangle of 15 nodes, each connected {which}.")

# %% [markdown]
# ### Exercise 2: UNet++ (25 minutes, hard)
#
# Write it for any depth: image in, a list of logits out, one for each $x^{0,j}$ with $j = 1 \ldots L$, shallowest first. Row i has
# `widths[i]` channels. $H$ is `VGGBlock(c_in, c_out)`, $D$ is `nn.MaxPool2d(2)`, $U$ is
# `nn.UpsamplingBilinear2d(scale_factor=2)`, which aligns corners. Concatenate in the order of the formula. `nn.ModuleDict`
# wants names: `f"{i}{j}"` is one. A head is a 1x1 convolution.
#
# <details><summary>Hint 1: the order</summary>Column after column, each from its top down. When x^{i,j} is due,
# x^{i+1,j-1} and the nodes on its left are there. One block for each (i, j), one head for each column above 0.
# <details><summary>Hint 2: channels</summary>For j = 0: those of the row above, or of the image. For j > 0: j times the
# width of its own row, and once that of the row below.
# <details><summary>Hint 3: forward</summary>Keep all nodes in a dict <code>x[i, j]</code>, and end with
# <code>[head(x[0, j]) for ...]</code>.</details></details></details>


# %% tags=["exercise"]
class UNetPlusPlus(nn.Module):
    def __init__(self, in_channels, classes, widths):
        super().__init__()
        ### BEGIN SOLUTION
        self.D, self.U = nn.MaxPool2d(2), nn.UpsamplingBilinear2d(scale_factor=2)
        self.grid = [(i, j) for j in range(len(widths)) for i in range(len(widths) - j)]
        c = (in_channels, *widths)  # row i has c[i + 1] channels; from above it gets c[i]
        c_in = {(i, j): j * c[i + 1] + c[i + 2] if j else c[i] for i, j in self.grid}
        self.H = nn.ModuleDict({f"{i}{j}": VGGBlock(n, widths[i]) for (i, j), n in c_in.items()})
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], classes, 1) for _ in widths[1:])
        ### END SOLUTION

    def forward(self, image):
        ### BEGIN SOLUTION
        x = {}
        for i, j in self.grid:
            rest = self.U(x[i + 1, j - 1]) if j > 0 else self.D(x[i - 1, 0]) if i > 0 else image
            x[i, j] = self.H[f"{i}{j}"](torch.cat([*(x[i, k] for k in range(j)), rest], dim=1))
        return [head(x[0, j]) for j, head in enumerate(self.heads, start=1)]
        ### END SOLUTION


# %%
check_nested_unet(UNetPlusPlus)

# %% tags=["nbval-check-output"]
mine = UNetPlusPlus(3, 1, (32, 64, 128, 256, 512))
print(f"{measure.parameters(mine):,} weights, {len(mine(torch.zeros(1, 3, 32, 32)))} heads")
print(f"{measure.parameters(NestedUNet(deep_supervision=True)):,} in course_lib's grid")

# %% [markdown]
# Nine million, against the 7.9 million of U-Net. Weights are the smaller part of the bill. The added nodes sit in the
# upper rows, at full and half size, where a convolution is applied to many pixels.
#
# **Predict first.** UNet++ has 17 % more weights than U-Net. How much more does it compute?

# %% tags=["nbval-check-output"]
rows = []
for wiring in SKIPS:
    net = NestedUNet(wiring=wiring)
    rows.append({"wiring": wiring, "nodes": len(net.nodes), "skips": sum(len(net.skips[j]) for _, j in net.nodes if j)}
                | {"parameters": measure.parameters(net), "MACs 96x96": measure.macs(net)})  # fmt: skip
print(results.table(rows))
unet, nested = rows[0], rows[-1]
print(f"UNet++ / U-Net: {nested['parameters'] / unet['parameters']:.2f} of the parameters")
print(f"UNet++ / U-Net: {nested['MACs 96x96'] / unet['MACs 96x96']:.2f} of the multiplications")
assert rows[1]["parameters"] == rows[2]["parameters"] < nested["parameters"]

# %% [markdown]
# 1.17 and 2.47. A fair comparison with U-Net has to pay for both. A U-Net widened to the same weights (about width 35) does
# less than half of the work; one of the same work (width 50) has twice the weights. Lesson 10 trains them both.
#
# In a running notebook the next cell has controls. Change the wiring, the depth and the width, cut the net, and point
# at a node for its inputs and its bill. The figure after it holds the four wirings beside each other.
#
# **Predict first.** At depth 4, which node of UNet++ has the most parameters? Which one does the most work?

# %%
widgets.grid_explorer()

# %%
view = views.four_wirings()
show.display(view.figure, alt=view.alt)

# %% tags=["nbval-check-output"]
bill = measure.node_costs(NestedUNet())
for key in ("parameters", "macs"):
    i, j = max(bill, key=lambda node: bill[node][key])
    total = sum(costs[key] for costs in bill.values())
    print(f"most {key}: x{i},{j} with {bill[i, j][key]:,}, {bill[i, j][key] / total:.0%}")
print(f"x4,0 does {bill[4, 0]['macs'] / total:.1%} of the work")

# %% [markdown]
# The lowest node holds more than a third of all weights and does little with them. The last node of the top row holds
# few, and applies them to every pixel: it reads four skips, and works at full size.
#
# ## Which node depends on which?
#
# The figure says what we meant to build. Whether the code does it can be tested from outside, without reading it: add
# a little to the output of one node, and look which other nodes change. A hook does the adding.


# %%
def outputs_of_nodes(net, image, disturbed=None):
    """x^{i,j} of every node, with 1 added to one of them where `disturbed` names it."""
    found, hooks = {}, []
    for node in net.nodes:

        def keep(block, inputs, output, node=node):
            found[node] = output + 1 if node == disturbed else output
            return found[node]

        hooks.append(net.node(*node).register_forward_hook(keep))
    net(image)
    for hook in hooks:
        hook.remove()
    return found


# %%
@torch.no_grad()
def reached_from(net, node, image):
    """The nodes whose output changes when that of `node` does."""
    before, after = outputs_of_nodes(net, image), outputs_of_nodes(net, image, disturbed=node)
    return [n for n in net.nodes if n != node and not torch.equal(before[n], after[n])]


def tiny(wiring, **options):
    torch.manual_seed(SEED)
    return NestedUNet(widths=(4, 5, 6, 7, 8), wiring=wiring, **options).eval()


image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

# %% [markdown]
# **Predict first.** Disturb $x^{1,1}$, the first node right of the encoder in row 1. Which nodes change in U-Net^e?
# Which in UNet+? And does UNet++ add any?

# %% tags=["nbval-check-output"]
reached = {
    wiring: reached_from(tiny(wiring), (1, 1), image) for wiring in ("unet-e", "unet+", "unet++")
}
for wiring, nodes in reached.items():
    print(f"{wiring:7}", " ".join(f"x{i},{j}" for i, j in nodes))

# %%
net = tiny("unet-e", deep_supervision=True)
changed = {node: float(node in reached["unet-e"] or node == (1, 1)) for node in net.nodes}
figure = show.grid(net, title="U-Net^e: x1,1 was disturbed", values=changed, label="1: changed")
show.display(
    figure, alt="U-Net^e with x1,1 disturbed: only x0,2 changes, every other node is dashed."
)

# %% [markdown]
# In U-Net^e the change runs up one diagonal and out of its head: the decoders are strangers. In UNet+ it reaches every
# node to the right in rows 0 and 1. UNet++ reaches the same nodes. The difference between the two is not who depends on
# whom, but how directly: in UNet++ $x^{1,3}$ sees $x^{1,1}$ itself, in UNet+ only what $x^{1,2}$ made of it.

# %%
assert reached["unet-e"] == [(0, 2)]
assert reached["unet+"] == reached["unet++"] == [(0, 2), (1, 2), (0, 3), (1, 3), (0, 4)]

# %% [markdown]
# ## Which nodes learn nothing?
#
# Now train with one loss at the last head, as a U-Net is trained. A gradient flows against the arrows. A node from
# which no path of arrows leads to that head gets none: not little, but exactly nothing.
#
# **Predict first.** How many of the 15 nodes of U-Net^e get no gradient? And of UNet+ and UNet++?

# %% tags=["nbval-check-output"]
images, masks = as_input(train.images[:8]), train.masks[:8].float()
gradients = {}
for wiring in ("unet-e", "unet+", "unet++"):
    gradients[wiring] = measure.node_gradients(tiny(wiring).train(), images, masks)
    silent = [f"x{i},{j}" for (i, j), size in gradients[wiring].items() if size == 0]
    print(f"{wiring:7} {len(silent)} of 15 nodes without gradient: {' '.join(silent)}".rstrip(" :"))

# %%
readings = {
    "unet-e": "the six inner nodes are dashed, exactly zero.",
    "unet++": "every node has some, the two ends of the top row most.",
}
for wiring, reading in readings.items():
    scaled = {node: 1000 * size for node, size in gradients[wiring].items()}
    name = show.NAMES[wiring]
    figure = show.grid(tiny(wiring), title=f"{name}, one loss at the last head",
                       values=scaled, label="gradient, 1e-3")  # fmt: skip
    show.display(figure, alt=f"Gradient reaching each node of {name}: {reading}")

# %% [markdown]
# In U-Net^e six nodes, three whole decoders, get nothing. UNet+ and UNet++ have an arrow from every node towards the last head,
# so none is left out. That is what the short skips are for. The numbers are root mean squares over the weights of a
# node's first convolution, in a net that has not learned anything yet; compare them within a picture, not between two.
#
# No gradient means no learning. That can be checked the hard way: train, and compare the weights.

# %%
torch.manual_seed(SEED)
ensemble = NestedUNet(widths=sizes.widths, wiring="unet-e")
before = copy.deepcopy(ensemble.state_dict())
for row in fit(ensemble, splits, epochs=2, recipe=Recipe(seed=SEED)):
    print(f"epoch {row['epoch']}  loss {row['loss']:.3f}")


# %%
def unchanged(net, before, node):
    name = "conv{}_{}.conv1.weight".format(*node)
    return torch.equal(net.state_dict()[name].cpu(), before[name])


inner = [(i, j) for i, j in ensemble.nodes if j > 0 and i + j < ensemble.depth]
assert all(unchanged(ensemble, before, node) for node in inner)
assert not any(unchanged(ensemble, before, node) for node in set(ensemble.nodes) - set(inner))
print("after two epochs the inner nodes hold the weights they were born with, bit for bit")

# %% [markdown]
# ## Does it score better than U-Net?
#
# That needs real images, several seeds and more time than a lesson has. The table comes from the repository: 565 real
# images (the archive that was at hand; the published one has 670), widths 8 to 128, five seeds, the test part. "+ all
# heads" means deep supervision: a loss at every head (lesson 07). Each wiring is compared with U-Net seed by seed; the
# interval is the one of lesson 05.

# %%
stored = results.load_results("supervision")
scores = {}
for row in stored["rows"]:
    supervised = " + all heads" if row["deep_supervision"] else ""
    scores.setdefault(row["wiring"] + supervised, []).append(row["iou_pooled"])
print(stored["about"])
print("Pooled IoU,", stored["measured"]["device"], stored["measured"]["date"])
for name, values in scores.items():
    difference = "" if name == "unet" else f"  minus unet {paired_interval(values, scores['unet'])}"
    print(f"{name:19} {sum(values) / len(values):.3f}{difference}")

# %% [markdown]
# Not one interval is clear of zero. On these images, at these widths and with this recipe, five seeds cannot tell any
# wiring from U-Net, although every other net does at least twice the work. The journal paper reports 92.4 for UNet++ and 90.6
# for U-Net on nuclei of the same origin (20 runs, other sizes, other scores). We do not see that gain here.

# %% tags=["nbval-check-output"]
clear = [name for name in scores if paired_interval(scores[name], scores["unet"]).excludes_zero]
print("seeds:", len(scores["unet"]), " wirings that differ clearly from U-Net:", clear)
assert clear == []

# %% [markdown]
# And on images that anyone can draw again? The same question on two looks of the built-in images, drawn anew for each of
# five seeds, with one more baseline: a plain U-Net widened until it does the work of UNet++.

# %%
drawn = results.load_results("wirings")
looks = {}
for row in drawn["rows"]:
    looks.setdefault(row["kind"], {}).setdefault(row["net"], []).append(row["iou_pooled"])
names = ("unet, work of unet++", "unet-e, all heads", "unet+", "unet++", "unet++, all heads")
for kind, nets in looks.items():
    print(f"{kind}: unet {sum(nets['unet']) / len(nets['unet']):.3f}")
    for name in names:
        print(f"  {name:20} minus unet {paired_interval(nets[name], nets['unet'])}")

# %% tags=["nbval-check-output"]
for kind, nets in looks.items():
    equal_work = paired_interval(nets["unet++"], nets["unet, work of unet++"])
    ahead = paired_interval(nets["unet++"], nets["unet"])
    print(f"{kind}: UNet++ minus U-Net {ahead}, minus U-Net of its work {equal_work}")
    assert ahead.low > 0 and not equal_work.excludes_zero

# %% [markdown]
# Here UNet++ is clear of U-Net on both looks, by 0.008 and 0.012. But the plain U-Net that does as much work gains 0.008
# and 0.011, and UNet++ minus that one is 0.000 on both. Where dense skips help, width bought with the same work helps as
# much. Lesson 10 asks the same of real nuclei, with every test image.

# %%
results.record(
    parameters_unetpp=nested["parameters"],
    work_over_unet=nested["MACs 96x96"] / unet["MACs 96x96"],
    nodes_without_gradient=len(inner),
)

# %% [markdown]
# ## What we found
#
# - U-Nets of all depths fit into one grid. Which columns of its row a node reads makes U-Net^e, UNet+ or UNet++.
# - The grid costs 17 % more weights than U-Net, and two and a half times the work.
# - With one loss at the end, U-Net^e leaves six of fifteen nodes without gradient. Short skips give every node a path.
#
# ## One honest limit
#
# A path for the gradient is not yet a good gradient, and a node that learns is not yet a node that helps. The scores
# of real nuclei above compare nets of unequal cost.
#
# What is stored of real nuclei and of several seeds was measured before a mistake was mended: the random changes of light
# drowned dark images. This page's own run has the mended ones. `docs/protocol.md` says what is measured in its place.
#
# ## The next question
#
# UNet+ and UNet++ let the gradient into the middle by a detour through the last column. U-Net^e needs another way, and
# perhaps all of them do. [Lesson 07](07_deep_supervision.ipynb) asks: **how do gradients reach the middle?**
