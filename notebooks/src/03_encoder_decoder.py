# %% [markdown] needs="02" minutes=2
# # What is lost on the way down?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# Lesson 02 ended with a bill: at full size a block adds four pixels to what a node sees and always costs the same.
# Halving the image is the cheap way to see far. But a mask is wanted at full size, so what goes down must come up
# again. This lesson does both, first by hand, then in a net, and measures what does not come back.
#
# You will be able to
#
# - say what max pooling keeps, and name two images that it cannot tell apart,
# - enlarge an image by bilinear interpolation, and say what `align_corners` decides,
# - build an encoder-decoder without skips, and measure what halving does to its borders.
#
# Two cores need about a minute and a half; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
from fractions import Fraction
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from course_lib import data, measure, results, show
from course_lib.checks import check_encoder_decoder, check_upsample_row, expect
from course_lib.grid import VGGBlock
from course_lib.lesson import presets
from course_lib.metrics import boundary_iou, count, iou
from course_lib.predict import probabilities
from course_lib.predict.baseline import otsu_masks
from course_lib.predict.setting import Setting
from course_lib.train import Recipe, fit

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
EPOCHS = 0  # 0: as many as the preset says; else 2 or more
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
epochs = EPOCHS or sizes.epochs
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %% [markdown]
# ## What does a halving buy?
#
# A block is two 3x3 convolutions: at its own size it sees 5x5 pixels, and each further block adds 4. Now put a 2x2
# pooling between the blocks, and count from the bottom up. The lowest block sees 5 pixels of its row. They cover 10
# pixels of the row above, and the block there adds 4; and so on. With $i$ halvings a node at the bottom sees $r_i$
# pixels,
#
# $$r_0 = 5, \qquad r_i = 2\, r_{i-1} + 4 .$$
#
# **Predict first.** Four blocks at full size see 17 pixels. How many do four blocks with three halvings between them
# see?


# %%
def encoder(widths, halve):
    """A block a width, from 3 channels on; with `halve`, a pooling before all but the first."""
    layers = []
    for n, (a, b) in enumerate(pairwise((3, *widths))):
        layers += [nn.MaxPool2d(2)] * (halve and n > 0) + [VGGBlock(a, b)]
    back = nn.Upsample(scale_factor=2 ** (len(widths) - 1) if halve else 1)  # full size again
    return nn.Sequential(*layers, back)


# %% tags=["nbval-check-output"]
r = 5
for n in range(1, 5):
    flat, halved = (
        measure.receptive_field(encoder([4] * n, halve), side=128)[0] for halve in (False, True)
    )
    print(f"{n} blocks see {flat:2d} pixels at full size, {halved:2d} with halvings between them")
    assert halved == r, "the formula and the measured gradient agree"
    r = 2 * r + 4

# %% [markdown]
# And the price? One convolution with $c$ channels in and out costs $9\,c^2$ multiplications a pixel. A halving leaves
# a quarter of the pixels. So the channels can be doubled for nothing:
#
# $$9\,(2c)^2 \cdot \frac{HW}{4} = 9\,c^2 \cdot HW .$$
#
# That fits widths of 32, 64, 128 and so on. What does grow is the number of weights: about four times a row, as
# lesson 02 counted.

# %% [markdown]
# ## What does max pooling forget?
#
# It keeps the largest of every four values,
#
# $$y_{a,b} = \max(x_{2a,2b},\; x_{2a,2b+1},\; x_{2a+1,2b},\; x_{2a+1,2b+1}),$$
#
# and with it the answer to "was there something bright?". It forgets which of the four it was, and what the other
# three were. So there must be different images with the same result. Here are two.

# %%
one = torch.tensor([[9, 1, 0, 2], [3, 4, 2, 5], [1, 7, 6, 0], [2, 0, 1, 3]]).float()
other = torch.tensor([[0, 9, 5, 5], [0, 0, 5, 5], [0, 0, 0, 0], [7, 0, 0, 6]]).float()


def down(x):
    """(H, W) -> (H/2, W/2)"""
    return F.max_pool2d(x[None, None], 2)[0, 0]


assert torch.equal(down(one), down(other)) and not torch.equal(one, other)


# %%
def numbers(pictures):
    """Small images side by side, every value written into its pixel; a title each."""
    figure, axes = show.canvas(len(pictures), width=2 * len(pictures), height=2.4)
    for axis, (title, x) in zip(axes, pictures.items()):
        axis.imshow(x, cmap="Blues", vmin=-0.2 * x.max(), vmax=1.6 * x.max())
        for (row, column), value in zip(
            torch.cartesian_prod(*map(torch.arange, x.shape)), x.flatten()
        ):
            axis.text(column, row, f"{value:.3g}", ha="center", va="center")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    return figure


figure = numbers({"one image": one, "another": other, "both, pooled": down(one)})
show.display(figure, alt="Two different 4x4 images of numbers and the 2x2 result that they share.")

# %% [markdown]
# How much position is left after several halvings? Put one bright pixel into an 8x8 image: there are 64 places for it.
#
# **Predict first.** After one, two, three poolings, how many of the 64 images can still be told apart?

# %% tags=["nbval-check-output"]
images = list(torch.eye(64).reshape(64, 8, 8))  # image n is bright at place n
for poolings in range(4):
    images = [down(x) for x in images] if poolings > 0 else images
    different = {tuple(x.flatten().tolist()) for x in images}
    print(f"after {poolings} poolings: {len(different)} different images")
    assert len(different) == 64 // 4**poolings

# %% [markdown]
# Each pooling divides by four. That can be a gain: a small shift often changes nothing further down. For a mask it is
# a loss. A border has to be right to the pixel, and after three poolings a lone pixel may have been anywhere in a
# square of 8x8.

# %% [markdown]
# ## How does one come up again?
#
# Doubling a row of $n$ values to $2n$ means inventing values in between. Linear interpolation gives output $k$ a
# position $s_k$ in the row, and takes the mean of the two neighbours there, the nearer one weighing more. With $f$ the
# fraction of $s_k$ and $l$ its whole part,
#
# $$y_k = (1 - f)\, x_l + f\, x_{l+1}.$$

# %% [markdown]
# Two conventions exist for the positions:
#
# $$s_k = k\,\frac{n-1}{2n-1} \;\;(\text{corners aligned}), \qquad
# s_k = \frac{2k-1}{4} \;\;(\text{not aligned}).$$
#
# The first, `align_corners=True`, lays the outermost values on each other and spreads the rest evenly. The second,
# `align_corners=False`, cuts every pixel into two halves and reads at their middles; beyond the ends it holds the
# outermost value.
#
# **Predict first.** The row 0, 3 becomes four values. Which four, under each convention?

# %% tags=["nbval-check-output"]
ramp = torch.tensor([[0.0, 3.0], [6.0, 9.0]])


def up(x, align_corners):
    """(H, W) -> (2H, 2W), bilinear."""
    return F.interpolate(
        x[None, None], scale_factor=2, mode="bilinear", align_corners=align_corners
    )[0, 0]


corners, centres = up(ramp, True), up(ramp, False)
print("align_corners=True ", [round(v, 4) for v in corners[0].tolist()])
print("align_corners=False", [round(v, 4) for v in centres[0].tolist()])

# %%
assert torch.allclose(corners[0], torch.tensor([0.0, 1.0, 2.0, 3.0]))
assert torch.allclose(centres[0], torch.tensor([0.0, 0.75, 2.25, 3.0]))
figure = numbers({"2x2": ramp, "align_corners=True": corners, "align_corners=False": centres})
show.display(
    figure,
    alt="A 2x2 ramp and its two 4x4 enlargements: even steps, and steps that flatten outside.",
)

# %% [markdown]
# Both keep the four corner values. The first makes even steps of 1, so a ramp stays a ramp. The second makes steps of
# 0.75, 1.5 and 0.75: in the middle it keeps the slope of a doubled image, half of 3, and at the ends it has nothing
# to read.

# %% [markdown]
# ### Exercise 1: double a row (10 minutes, easy)
#
# Write `upsample_row` for `align_corners=True`, without `F.interpolate`. A loop is fine.
#
# <details><summary>Hint 1: the position</summary>Output 0 reads position 0, output 2n - 1 reads position n - 1, and
# the steps between them are equal.
# <details><summary>Hint 2: the neighbours</summary>The left one is the whole part of the position. The last output has
# no right neighbour; its weight is 0 there, but an index must exist: <code>min</code> or <code>clamp</code> helps.
# <details><summary>Hint 3: all at once</summary>
# <code>position = torch.arange(2 * n) * (n - 1) / (2 * n - 1)</code></details></details></details>


# %% tags=["exercise"]
def upsample_row(row):
    """A 1-D tensor of n >= 2 numbers -> 2n numbers, linear, the outermost ones kept."""
    ### BEGIN SOLUTION
    n = len(row)
    position = torch.arange(2 * n) * (n - 1) / (2 * n - 1)
    left = position.long()
    right = (left + 1).clamp(max=n - 1)
    fraction = position - left
    return (1 - fraction) * row[left] + fraction * row[right]
    ### END SOLUTION


# %%
check_upsample_row(upsample_row)

# %% [markdown]
# "Bilinear" is this twice: first every row, then every column of the result. That is all `F.interpolate` does here.

# %% tags=["nbval-check-output"]
x = torch.rand(3, 5)
rows = torch.stack([upsample_row(row) for row in x])  # (3, 10)
both = torch.stack([upsample_row(column) for column in rows.T]).T  # (6, 10)
print(tuple(x.shape), "->", tuple(rows.shape), "->", tuple(both.shape))
expect("largest difference to F.interpolate", (both - up(x, True)).abs().max().item(), 0, tol=1e-5)

# %% [markdown]
# ## Does the convention move a mask?
#
# A pooled pixel stands for two pixels and so belongs to the middle between them: position $2p + 1/2$ for pixel $p$.
# With `align_corners=True` it lands at $p\,(2n-1)/(n-1)$ instead. The difference runs from $-1/2$ at the left end to
# $+1/2$ at the right end: the image is stretched a little, outwards.

# %% tags=["nbval-check-output"]
n = 8
for p in (0, 3, 4, 7):
    moved = Fraction(p * (2 * n - 1), n - 1) - (2 * p + Fraction(1, 2))
    print(f"value {p} of {n} is moved by {moved} pixels")
ends = [Fraction(p * (2 * n - 1), n - 1) - (2 * p + Fraction(1, 2)) for p in (0, n - 1)]
assert ends == [Fraction(-1, 2), Fraction(1, 2)]

# %% [markdown]
# Half a pixel, at the rim of the image alone, seems nothing. But each doubling adds its own half, in pixels of its
# own size: $1/2 + 1 + 2 = 3.5$ pixels of the full image after three. We think a trained net can learn to correct it,
# for convolutions can move things, and zero padding tells them where the rim is. An interpolation alone cannot.
#
# The widely used PyTorch code of UNet++ has `align_corners=True`, and so has this course, so that its published
# weights keep their meaning.

# %% [markdown]
# ## How much of the truth survives?
#
# Before any net, a simple test. Take the **true** mask, shrink it to $1/2^k$ of its side in one step, enlarge it again in one
# step, and score the result against the truth. The only mistake is the way down and up. Two versions:
#
# - *yes or no*: a small pixel remembers whether at least half of its square is nucleus,
# - *share*: it remembers how much of its square is, and is enlarged by bilinear interpolation.
#
# **Predict first.** Nuclei here are a few pixels wide. What IoU is left after three halvings, in a test that has seen
# the truth?

# %%
splits = data.draw(sizes.images, sizes.size, seed=SEED)
val = splits.val
masks = val.masks.float()


def score(found):
    pooled = iou(count(found, val.masks).pooled()).item()
    return {"IoU": pooled, "boundary": boundary_iou(found, val.masks).mean().item()}


otsu = score(otsu_masks(val))
print(f"baseline, Otsu: IoU {otsu['IoU']:.3f}, boundary IoU {otsu['boundary']:.3f}")

# %%
restored, lines = {}, []
for k in (1, 2, 3):
    share = F.avg_pool2d(masks, 2**k)
    yes = F.interpolate((share >= 0.5).float(), scale_factor=2**k) > 0.5
    smooth = F.interpolate(share, scale_factor=2**k, mode="bilinear", align_corners=False) > 0.5
    restored |= {("yes or no", k): score(yes), ("share", k): score(smooth)}
    if k == 3:
        figure = show.overlay(val.images[:4], val.masks[:4], smooth[:4], names=("true", "restored"))
for (kind, k), found in restored.items():
    lines.append({"halvings": k, "remembered": kind} | found)
print(results.table(sorted(lines, key=lambda line: line["halvings"])))

# %%
show.display(
    figure,
    alt="True outlines and, in orange, what three halvings leave: a few blobs, in one image nothing.",
)
for kind in ("yes or no", "share"):
    falling = [restored[kind, k]["boundary"] for k in (1, 2, 3)]
    assert falling == sorted(falling, reverse=True), "each halving costs borders"
assert restored["share", 3]["boundary"] < restored["share", 3]["IoU"]

# %% [markdown]
# The orange line is what the share version restores of the true mask after three halvings. In the stored run an IoU of
# about one half is left, less than Otsu's, although nobody made a mistake in recognising anything. Small nuclei vanish
# as a whole; of larger ones and of groups a blob remains. The boundary IoU is the lower of the two: what survives is
# the inside of a nucleus, not its rim.

# %% [markdown]
# ## Is that a limit for nets?
#
# No. One number a pixel remembers little, but a net has many channels. Sixty-four channels can hold all 64 values of
# an 8x8 square, each in its own place. Then nothing is lost at all.

# %% tags=["nbval-check-output"]
packed = F.pixel_unshuffle(val.masks, 8)  # (N, 64, H/8, W/8)
print("channels", packed.shape[1], "for squares of 8x8")
print("unpacked, the mask is the same:", torch.equal(F.pixel_shuffle(packed, 8), val.masks))
assert torch.equal(F.pixel_shuffle(packed, 8), val.masks)

# %% [markdown]
# So channels *can* carry position. Whether a trained net *does* is a question for a measurement.

# %% [markdown]
# ### Exercise 2: an encoder-decoder (20 minutes, medium)
#
# Write `EncoderDecoder`. $x^{i,0}$ is the encoder's node in row $i$, behind $i$ halvings; $x^{0,0} = H(\text{image})$.
# $x^{i,j}$ is the decoder's node in row $i$, behind $j$ doublings:
#
# $$x^{i,0} = H(D(x^{i-1,0})), \qquad x^{i,j} = H(U(x^{i+1,j-1})), \quad i + j = L.$$
#
# $H$ is `VGGBlock`, $D$ is `F.max_pool2d(x, 2)`, $U$ is
# `F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)`, and $L$ is the depth. Row i has `widths[i]`
# channels. Build the encoder blocks first, then the decoder blocks from the lowest up, then the head, a 1x1
# convolution; return logits at the size of the image. With one width there is no halving.
#
# <details><summary>Hint 1: which blocks</summary>Down: a block for each width, from the one before, the first from
# <code>in_channels</code>. Up: a block for each step from <code>widths[i + 1]</code> to <code>widths[i]</code>.
# <details><summary>Hint 2: pairs</summary><code>pairwise((3, 8, 16))</code> gives (3, 8) and (8, 16);
# <code>widths[::-1]</code> is the way up. Keep blocks in an <code>nn.ModuleList</code>.
# <details><summary>Hint 3: the order</summary>Down: pool, then block, but no pooling before the first. Up: double, then
# block. Then the head, and nothing behind it.</details></details></details>


# %% tags=["exercise"]
class EncoderDecoder(nn.Module):
    def __init__(self, in_channels, classes, widths):
        super().__init__()
        ### BEGIN SOLUTION
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)
        ### END SOLUTION

    def forward(self, image):
        """Image (N, in_channels, H, W) -> logits (N, classes, H, W)."""
        ### BEGIN SOLUTION
        x = image
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i > 0 else x)
        for block in self.up:
            x = block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        return self.head(x)
        ### END SOLUTION


# %%
check_encoder_decoder(EncoderDecoder)

# %% [markdown]
# ## Does depth help or hurt?
#
# Depth 0 is one block at full size. Each further depth adds a row: one halving more, one doubling more, and more
# weights than all rows above it together.

# %% tags=["nbval-check-output"]
published, weights = (32, 64, 128, 256, 512), []
for depth in range(5):
    weights.append(measure.parameters(EncoderDecoder(3, 1, published[: depth + 1])))
    print(f"depth {depth}: {weights[-1]:,} weights")
assert all(larger > 2 * smaller for smaller, larger in pairwise(weights))

# %% [markdown]
# `Setting.fast()` in the next cell picks the number format and the memory layout that are fast on this machine. It
# changes the time, and how numbers are rounded.
#
# **Predict first.** A deeper net sees further and has more weights. It also has to send everything through a smaller
# image. Which depth will have the best IoU? Which the best borders?


# %%
def train(depth, seed):
    """The masks that an encoder-decoder of this depth predicts for the validation images."""
    torch.manual_seed(seed)
    net = EncoderDecoder(3, 1, sizes.widths[: depth + 1])
    for _ in fit(net, splits, epochs=epochs, recipe=Recipe(seed=seed), setting=Setting.fast()):
        pass
    return probabilities(net, val.images) > 0.5


seeds, deepest = range(SEED, SEED + sizes.seeds), len(sizes.widths) - 1
found = {}
for depth in range(deepest + 1):
    for seed in seeds:
        found[depth, seed] = train(depth, seed)
        print(f"depth {depth}, seed {seed}: IoU {score(found[depth, seed])['IoU']:.3f}")

# %%
scores = {run: score(masks) for run, masks in found.items()}
dots = {
    title: {f"depth {d}": [scores[d, seed][key] for seed in seeds] for d in range(deepest + 1)}
    for title, key in (("IoU, pooled", "IoU"), ("boundary IoU", "boundary"))
}
figure = show.points(dots, label="score, validation", zero=False)
figure.axes[0].axhline(otsu["IoU"], color=show.BLUE, linestyle="dotted")
figure.axes[0].axhline(otsu["boundary"], color=show.RED, linestyle="dotted")
show.display(figure, alt="IoU and boundary IoU by depth, a dot a seed; dotted lines are Otsu's.")


# %%
def mean(depth, key):
    return sum(scores[depth, seed][key] for seed in seeds) / len(seeds)


lines = [
    {"depth": d, "IoU": mean(d, "IoU"), "boundary": mean(d, "boundary")} for d in range(deepest + 1)
]
print(results.table([{"depth": "Otsu"} | otsu, *lines]))
unlike = "not so here: read the dots, not our text"
assert mean(deepest, "boundary") < mean(1, "boundary"), unlike
assert mean(deepest, "boundary") < otsu["boundary"], unlike

# %% [markdown]
# The dotted lines are Otsu's. In the stored run the first halving helps: IoU and boundary IoU rise. Each one after it
# costs. The deepest net has the most weights, sees the most, and has the worst borders of all, worse than Otsu's
# threshold, which understands nothing, yet works at full size.
#
# Compare it with the test that had seen the truth. In the stored run the net of depth 3 has better borders than three
# halvings left of the true mask, in either version. So its channels do carry position, as packing said they could.
# They carry it incompletely.

# %% [markdown]
# ## Where are the mistakes?
#
# A blurred border is a guess so far. To test it, sort the pixels by their distance from the true border: 1 touches
# it, on either side, 2 is one further, and so on. Growing the mask and its complement by max pooling finds them.

# %%
FAR = 6  # this far or further


def distance(masks):
    """Masks (N, 1, H, W) -> distance to the nearest pixel of the other kind, 1 to FAR (chessboard)."""
    t, d = masks.float(), torch.full(masks.shape, FAR)
    for k in range(FAR - 1, 0, -1):
        largest = F.max_pool2d(t, 2 * k + 1, stride=1, padding=k)
        smallest = -F.max_pool2d(-t, 2 * k + 1, stride=1, padding=k)
        d[largest != smallest] = k  # both kinds within k pixels
    return d


# %% tags=["nbval-check-output"]
row = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).reshape(1, 1, 1, 14)
print("mask    ", row.flatten().tolist())
print("distance", distance(row).flatten().tolist())

# %% [markdown]
# **Predict first.** Draw the share of wrong pixels against the distance for a shallow net and for a deep one. Where is
# the deep one worse? Is there a place where it is better?

# %%
away, wrong = distance(val.masks), {}
for d in range(1, deepest + 1):
    mistakes = torch.stack([found[d, seed] != val.masks.bool() for seed in seeds]).float().mean(0)
    wrong[d] = [mistakes[away == k].mean().item() for k in range(1, FAR + 1)]
for d, values in wrong.items():
    print(f"depth {d}: wrong", ", ".join(f"{value:.1%}" for value in values))

# %%
figure, (axis,) = show.canvas(height=3.4)
for d, (colour, dash) in zip(wrong, show.LINES):
    axis.plot(range(1, FAR + 1), wrong[d], color=colour, linestyle=dash, label=f"depth {d}")
axis.set(
    xlabel="distance from the true border, pixels (6: or more)", ylabel="share of pixels wrong"
)
axis.legend(frameon=False)
show.display(
    figure, alt="Share of wrong pixels by distance from the border: high beside it, low away."
)

# %%
assert wrong[deepest][0] > 3 * wrong[deepest][-1], "not so here: read the lines, not our text"

# %% [markdown]
# It is the border. Beside it the deep net is wrong most often. In the stored run it is the other way round from four
# pixels on: there the deep net, which sees more, makes fewer mistakes than the shallow one. So depth answers
# **what** is there better, and **where** it ends worse. One would like to have both.
#
# Here are four ordinary images. Sorted by their score at the largest depth they stand in the middle. The upper row is
# depth 1, the lower row the largest depth.

# %%
deep = found[deepest, SEED]
middle = iou(count(deep, val.masks)).argsort()[len(deep) // 2 - 2 :][:4].repeat(2)
both = torch.cat([found[1, SEED][middle[:4]], deep[middle[:4]]])
titles = [f"depth {d}" for d in (1, deepest) for _ in range(4)]
figure = show.error_map(val.images[middle], val.masks[middle], both, titles=titles)
show.display(
    figure,
    alt="Error maps. Depth 1: thin rims, a patch at the image edge. Largest depth: wide rims, filled gaps.",
)

# %% [markdown]
# In the stored run depth 3 fills the gaps between neighbours, cuts off what sticks out and misses some nuclei as a
# whole. Depth 1 follows the outlines closely, but takes a strip at the lower edge of the first image for nuclei,
# which the deep net does not.

# %% [markdown]
# ## Could a net learn to halve and to double?
#
# Both steps here are fixed. A convolution with stride 2 can replace the pooling, and a **transposed convolution** the
# interpolation: each input pixel stamps the kernel, times its value, onto the output; the next stamp goes two pixels
# further. The Keras code published with UNet++ (2018) doubles by 2x2 transposed convolutions; the widely used PyTorch
# code interpolates.
#
# **Predict first.** Stamp a 3x3 kernel of ones at every second pixel, on a constant image of ones. Is the result even?


# %%
def stamp(kernel, size=5):
    """Doubles a constant image of ones by a transposed convolution; the middle 4x4 of the result."""
    k = len(kernel)
    ones = torch.ones(1, 1, size, size)
    out = F.conv_transpose2d(ones, kernel[None, None], stride=2, padding=(k - 1) // 2)[0, 0]
    return out[3:7, 3:7]


generator = torch.Generator().manual_seed(SEED)
some = torch.randint(1, 10, (2, 2), generator=generator).float()
stamped = {f"{k}x{k} of ones": stamp(torch.ones(k, k)) for k in (2, 3, 4)}
figure = numbers(stamped | {"2x2, unequal": stamp(some)})
show.display(
    figure,
    alt="A constant image doubled by 2x2, 3x3 and 4x4 kernels of ones and a 2x2 kernel of unequal values.",
)

# %% tags=["nbval-check-output"]
for name, picture in stamped.items():
    print(f"kernel {name}: values {sorted(set(picture.flatten().int().tolist()))}")
assert set(stamped["3x3 of ones"].flatten().tolist()) == {1, 2, 4}

# %% [markdown]
# A 3x3 kernel with stride 2 overlaps itself unevenly: some pixels get one stamp, some two, some four. This is the
# **checkerboard** (Odena, Dumoulin and Olah, *Deconvolution and Checkerboard Artifacts*, 2016). A size that is a
# multiple of the stride overlaps evenly. That helps, but promises nothing: with 2x2 each stamp stands alone, and a
# kernel of unequal weights is printed as a pattern, again and again.
#
# **Predict first.** At the published widths, which decoder has more weights: interpolation and a block from
# $2c$ to $c$ channels, or a transposed convolution from $2c$ to $c$ and a block from $c$ to $c$?

# %% tags=["nbval-check-output"]
for c in (256, 128, 64, 32):
    fixed = measure.parameters(VGGBlock(2 * c, c))
    stamps = nn.ConvTranspose2d(2 * c, c, kernel_size=2, stride=2)
    learned = measure.parameters(stamps) + measure.parameters(VGGBlock(c, c))
    print(f"{2 * c} to {c}: {fixed:,} interpolated, {learned:,} transposed")
    assert fixed - learned == c * c - c

# %% [markdown]
# The learned doubling has fewer weights, for it narrows the channels before the block reads them. And halving? Max
# pooling has no weights; a 2x2 convolution with stride 2 has $4c^2 + c$. Which variant scores better we did not
# measure here. Neither brings back what the small image does not hold.

# %% tags=["nbval-check-output"]
print([f"{measure.parameters(nn.Conv2d(c, c, kernel_size=2, stride=2)):,}" for c in (32, 64, 128)])

# %%
results.record(
    otsu_iou=otsu["IoU"],
    val_iou_shallow=mean(1, "IoU"),
    val_iou_deep=mean(deepest, "IoU"),
    boundary_shallow=mean(1, "boundary"),
    boundary_deep=mean(deepest, "boundary"),
    boundary_of_the_truth_halved_thrice=restored["share", 3]["boundary"],
)

# %% [markdown]
# ## What we found
#
# - A halving doubles what a block adds to the view, and pays for twice the channels. It forgets which of four pixels
#   it was.
# - Interpolation fills in, it does not bring back. `align_corners` decides where pixels lie, half a pixel a doubling
#   at the rim.
# - Without skips, in the stored run, the deepest net made more mistakes beside borders than the net of depth 1, and
#   fewer from four pixels on. Channels carry some of the position, not all.
#
# ## One honest limit
#
# Depth changes two things at once: the smallest size and the number of weights. The built-in nuclei are a few pixels
# wide, so most of each one is rim; in images with larger nuclei the same blur costs less. And two seeds show a
# direction, not its exact size.
#
# ## The next question
#
# The detail was there on the way down: every encoder block saw it before the pooling. [Lesson 04](04_unet.ipynb)
# hands it over and asks: **what do skip connections carry?**
