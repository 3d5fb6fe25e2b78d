# %% [markdown] needs="04" minutes=3
# # How deep should it be?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# Lesson 04 built U-Net with a depth that we took for granted. The original net halves four times (U-Net, 2015), and most
# copies do the same. Is four right? This lesson trains U-Nets of every depth on two kinds of images. To say which one is
# better it needs more than two numbers, so it also builds the tool that all later comparisons use.
#
# You will be able to
#
# - say how far a U-Net of each depth can see, what it costs, and how deep an image allows you to go,
# - turn a few paired runs into a difference with an interval, and know when it says nothing,
# - judge a published table of means and deviations.
#
# Two cores need a little more than three minutes; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
from itertools import pairwise
from statistics import fmean, median, stdev

import numpy as np
import torch
from scipy import stats
from skimage.measure import regionprops

from course_lib import data, measure, results, show
from course_lib.checks import check_deepest, check_paired_interval
from course_lib.grid import NestedUNet
from course_lib.lesson import kept, presets
from course_lib.predict import Setting
from course_lib.results.compare import interval_from_table
from course_lib.show import views, widgets
from course_lib.train import Recipe, evaluate, fit

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
EPOCHS = 0  # 0: as many as the preset says; else 2 or more
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
epochs = EPOCHS or sizes.epochs
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %% [markdown]
# ## What does one more halving buy?
#
# Below each halving a convolution reaches twice as far, so the receptive field about doubles. The price: each level has
# four times the weights of the one above (twice the channels, in and out), and the same work (a quarter of the pixels).
#
# **Predict first.** Depth 1 sees 20 pixels. How many does depth 4 see, and how many times the weights does it have?

# %% tags=["nbval-check-output"]
widths = (32, 64, 128, 256, 512)
nets = [NestedUNet(widths=widths[: depth + 1], wiring="unet") for depth in (1, 2, 3, 4)]
rows = []
for net in nets:
    narrow = NestedUNet(widths=(2,) * (net.depth + 1), wiring="unet")  # sees as far, and is quick
    rows.append({"depth": net.depth, "sees pixels": measure.receptive_field(narrow, side=256)[0]}
                | {"parameters": measure.parameters(net), "MACs 96x96": measure.macs(net)})  # fmt: skip
print(results.table(rows))

# %%
sees = [row["sees pixels"] for row in rows]
weights, work = ([row[key] for row in rows] for key in ("parameters", "MACs 96x96"))
assert all(2 < b / a < 3 for a, b in pairwise(sees))
assert all(4 < b / a < 5 for a, b in pairwise(weights))
assert len({b - a for a, b in pairwise(work)}) == 1  # every level adds the same work

# %% [markdown]
# Seventy-six times the weights for three and a half times the work. Depth is cheap to compute and dear to store.
#
# ## How deep can it be?
#
# A 2x2 pooling drops the last row or column of an odd side. On the way up the doubled map is then smaller than its
# skip, and cannot be joined to it. So both sides must be even before each halving.
#
# ### Exercise 1: the deepest net an image allows (5 minutes, easy)
#
# Write `deepest`, from the height and the width of an image to how often both can be halved without a remainder.
#
# <details><summary>Hint 1</summary>Halve both sides for as long as both are even, and count.
# <details><summary>Hint 2</summary><code>n % 2 == 0</code> says that n is even; <code>n // 2</code> is half of
# it.</details></details>


# %% tags=["exercise"]
def deepest(height, width):
    """How often an image of height x width pixels can be halved without a remainder."""
    ### BEGIN SOLUTION
    depth = 0
    while height % 2 == 0 and width % 2 == 0:
        height, width, depth = height // 2, width // 2, depth + 1
    return depth
    ### END SOLUTION


# %%
check_deepest(deepest)

# %% tags=["nbval-check-output"]
for side in (96, 100, 256, 257):
    print(f"{side} x {side}: depth {deepest(side, side)} at most")

# %% [markdown]
# 100 allows two halvings only, and 257 none. `course_lib.predict` therefore pads every image before it enters a net. That
# one can go deep does not mean that one should.
#
# ## Two kinds of images
#
# The built-in images come in kinds. Here are the two extremes: many small sharp nuclei, and a few large blurred ones
# in stained tissue.

# %%
kinds = ("small-sharp", "large-blurred")
splits = {kind: data.draw(sizes.images, sizes.size, seed=SEED, look=kind) for kind in kinds}
for kind in kinds:
    figure = show.overlay(splits[kind].val.images[:4], splits[kind].val.masks[:4])
    show.display(figure, alt=f"Four {kind} images with the outlines of their nuclei.")


# %%
def diameters(split):
    """Of all nuclei, in pixels: that of the circle of the same area."""
    regions = [region for labels in split.labels.numpy() for region in regionprops(labels)]
    return [region.equivalent_diameter_area for region in regions]


middle = {kind: median(diameters(splits[kind].train)) for kind in kinds}
for kind in kinds:
    print(f"{kind}: half of the nuclei are wider than {middle[kind]:.1f} pixels")
assert middle["large-blurred"] > 2 * middle["small-sharp"]

# %% [markdown]
# How much of such an image does a net see? In a running notebook the next cell has controls: move the point, change the
# depth, choose a node. The figure after it says the same in print, for the last node and three depths.

# %%
image = splits["large-blurred"].val.images[0]
widgets.receptive_field_explorer(image)

# %%
view = views.depths_view(image)
show.display(view.figure, alt=view.alt)
print(view.text)

# %% [markdown]
# In the stored run depth 1 sees a part of one nucleus and a little around it, depth 2 most of the image, and depth 3
# all of it. Near the border a frame is cut off, because there is nothing more to see.
#
# **Predict first.** For each kind: which depth will score best? What does a net lose that is too shallow, and what one
# that is too deep? Write it down before you go on.
#
# ## When is a difference a difference?
#
# Train the same net with another seed, and the score changes. A difference between two depths means something only
# beside that. Three decisions make it readable.
#
# 1. **Pairs.** Both nets of a pair share the images, their order and their augmentation. What they share cancels in the difference.
# 2. **Mean and spread** of the $n$ differences $d$: the mean $\bar d$, and the standard deviation $s$.
# 3. **Interval.** $\bar d \pm t\,s/\sqrt{n}$, with Student's $t$ for $n - 1$ degrees of freedom. Of such intervals, 95 in
#    100 hold the true difference.
#
# If the interval holds zero, the runs cannot tell the two nets apart. That is not the same as "there is no difference".

# %% tags=["nbval-check-output"]
for n in (2, 3, 5, 10, 30):
    t = stats.t.ppf(0.975, n - 1)
    print(f"{n:2} runs: t = {t:.2f}, t / sqrt(n) = {t / n**0.5:.2f}")

# %% [markdown]
# From two runs to five the interval shrinks sevenfold, from five to thirty by another three. That is why this course asks
# for five seeds before it says "better".
#
# ### Exercise 2: the interval (10 minutes, medium)
#
# Write `paired_interval`, from two lists of scores, one of each net for every seed, to three numbers: the mean of a -
# b, the lower end and the upper end of its 95 % interval.
#
# <details><summary>Hint 1</summary>Subtract first, pair by pair: <code>np.subtract(a, b)</code>.
# <details><summary>Hint 2</summary>numpy's <code>std</code> divides by n. The deviation of a sample divides by n - 1:
# <code>ddof=1</code>.
# <details><summary>Hint 3</summary>95 % inside leaves 2.5 % at each end: <code>stats.t.ppf(0.975, n -
# 1)</code>.</details></details></details>


# %% tags=["exercise"]
def paired_interval(a, b):
    """Scores of two nets, one of each for every seed -> mean of a - b, and the ends of its 95 % interval."""
    ### BEGIN SOLUTION
    d, n = np.subtract(a, b), len(a)
    reach = stats.t.ppf(0.975, n - 1) * d.std(ddof=1) / n**0.5
    return d.mean(), d.mean() - reach, d.mean() + reach
    ### END SOLUTION


# %%
check_paired_interval(paired_interval)

# %% [markdown]
# ## Which depth is best?
#
# Every depth on both kinds, each with the seeds of the preset.


# %%
def score(kind, depth, seed):
    """Pooled IoU on the validation part of a U-Net of this depth."""
    torch.manual_seed(seed)
    net, images = NestedUNet(widths=sizes.widths[: depth + 1], wiring="unet"), splits[kind]
    recipe, file = Recipe(seed=seed), kept("05", kind, depth, seed, epochs, sizes.size)
    list(fit(net, images, epochs=epochs, recipe=recipe, setting=Setting.fast(), checkpoint=file))
    found = evaluate(net, images.val, setting=Setting.fast())["iou_pooled"]
    print(f"{kind:13} depth {depth}, seed {seed}: IoU {found:.3f}")
    return found


depths, seeds = range(1, len(sizes.widths)), range(SEED, SEED + sizes.seeds)
live = {
    kind: {f"depth {d}": [score(kind, d, seed) for seed in seeds] for d in depths} for kind in kinds
}

# %%
figure = show.points(live, label="pooled IoU, validation", zero=False)
show.display(figure, alt="Pooled IoU by depth for both kinds of images, a dot a seed.")
for kind, found in live.items():
    for shallow, deep in pairwise(found):
        mean, low, high = paired_interval(found[deep], found[shallow])
        print(f"{kind:13} {deep} - {shallow}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")

# %% [markdown]
# In the stored run one step is clear of zero even with two seeds: the second halving on large blurred nuclei. All other
# intervals are wider than anything we would call a difference, because with two seeds $t$ is 12.7. More runs do not fit
# into a lesson. So here is the same experiment with five seeds and depths 1 to 4 (L1 to L4). A fifth net, L1 wide, has
# depth 1 and the work of L4. The drawn images are new for every seed. Real nuclei (bbbc038), the same for every seed,
# are a third kind. (`kept(...)`, in the cell above, names the file in which a training is kept on Colab. Elsewhere it
# is None, unless `COURSE_RUNS` names a folder.)

# %%
stored = results.load_results("depth")
runs = {}
for row in stored["rows"]:
    runs.setdefault(row["kind"], {}).setdefault(row["net"], []).append(row["iou_pooled"])
print(stored["about"], "Pooled IoU.")
print("Measured on", stored["measured"]["device"], stored["measured"]["date"])
for kind, found in runs.items():
    line = "  ".join(
        f"{net} {fmean(values):.3f} ± {stdev(values):.3f}" for net, values in found.items()
    )
    print(f"{kind:13} {line}")

# %%
figure, axes = show.canvas(len(runs), height=3.4)
for axis, (kind, found) in zip(axes, runs.items()):
    levels = np.array([found[f"L{depth}"] for depth in (1, 2, 3, 4)])
    axis.plot((1, 2, 3, 4), levels, color=show.GREY, marker="o", markersize=3, linewidth=0.7)
    axis.plot((1, 2, 3, 4), levels.mean(1), color=show.BLUE, marker="s")
    axis.set(title=kind, xlabel="depth", xticks=(1, 2, 3, 4))
figure.axes[0].set_ylabel("pooled IoU, test part")
show.display(
    figure,
    alt="Pooled IoU against depth for three kinds of images: large-blurred rises steeply from depth 1 to 2, the others hardly. Grey a seed, blue the mean.",
)

# %%
for kind, found in runs.items():
    for shallow, deep in (("L1", "L2"), ("L2", "L3"), ("L3", "L4"), ("L1", "L1 wide")):
        mean, low, high = paired_interval(found[deep], found[shallow])
        verdict = "clear" if low > 0 or high < 0 else "not clear"
        print(f"{kind:13} {deep:7} - {shallow}: {mean:+.3f} ({low:+.3f} to {high:+.3f})  {verdict}")

# %% [markdown]
# A grey line is one seed, the blue line is their mean. Mind the scales: the panels do not share one.
#
# - **Large and blurred**: the second halving brings 0.066. We think the reason is the view: depth 1 sees 20 pixels,
#   hardly more than one nucleus is wide, and the rim of that view counts little (lesson 02). After it nothing is clear.
#   Width does not replace depth here: L1 wide costs what L4 costs and stays 0.04 below it.
# - **Small and sharp**: 0.006 for the second halving, nothing after it. Width does more than depth: L1 wide has the
#   best mean, and is clear of depth 1 and of depth 4.
# - **Real nuclei**: as for small and sharp. The second halving is just clear, L1 wide beats L4, and deeper brings nothing clear.
#
# So there is no best depth. It depends on the images, and even on what else one could pay for with the same work.

# %% tags=["nbval-check-output"]
gain = {kind: paired_interval(found["L2"], found["L1"])[0] for kind, found in runs.items()}
wide = {kind: paired_interval(found["L1 wide"], found["L4"]) for kind, found in runs.items()}
print("seeds:", {kind: len(found["L1"]) for kind, found in runs.items()})
for kind, (_, low, high) in wide.items():
    print(f"{kind}: {'L1 wide' if low > 0 else 'L4' if high < 0 else 'neither'} is clearly better")
assert gain["large-blurred"] > 5 * max(gain["small-sharp"], gain["bbbc038"])

# %% [markdown]
# ## What do the authors of UNet++ report?
#
# The journal paper has the same experiment on three data sets: IoU in %, mean and standard deviation, 20 runs each
# (UNet++, 2020). Its runs cannot be paired, because it prints no single ones, but an interval of the difference can be
# computed from what it does print: for $n$ runs of each net, $\sqrt{(s_a^2 + s_b^2)/n}$ takes the place of $s/\sqrt{n}$
# (Welch, 1947). `interval_from_table` does it.

# %%
paper = {  # U-Net of depth 1, 2, 3, 4
    "EM": [(86.83, 0.43), (87.59, 0.34), (88.16, 0.29), (88.30, 0.24)],
    "Cell": [(88.58, 1.68), (89.39, 1.64), (90.14, 1.57), (88.73, 1.64)],
    "Brain tumor": [(86.90, 2.25), (88.71, 1.45), (89.62, 1.41), (89.21, 1.55)],
}
for name, depths_of in paper.items():
    line = "  ".join(
        f"L{d} {mean:.2f} ± {sd:.2f}" for d, (mean, sd) in enumerate(depths_of, start=1)
    )
    print(f"{name:11} {line}")

# %% [markdown]
# **Predict first.** On Cell and on Brain tumor, L3 is above L4. In which of the two is the difference clear of zero?

# %% tags=["nbval-check-output"]
for name, depths_of in paper.items():
    for deep in (2, 3, 4):
        difference = interval_from_table(depths_of[deep - 1], depths_of[deep - 2], runs=20)
        verdict = "clear" if difference.excludes_zero else "not clear"
        print(f"{name:11} L{deep} - L{deep - 1}: {difference}  {verdict}")

# %% [markdown]
# On EM depth 3 clearly beats depth 2. On Brain tumor the two are not told apart. On neither does depth 4 bring anything
# clear. On Cell the deepest net is clearly the worse one. "Deeper is not always better" stands on that one line.
#
# And it stands unsteadily. Nine intervals were looked at. Of nine that hide no difference, one or more leaves out zero in
# more than a third of all tables. Lesson 10 corrects for that: the p-value of the Cell line is 0.008 by itself and 0.051
# among nine.

# %%
l4_minus_l3 = {
    name: interval_from_table(found[3], found[2], runs=20) for name, found in paper.items()
}
assert [name for name, d in l4_minus_l3.items() if d.excludes_zero] == ["Cell"]
assert l4_minus_l3["Cell"].mean < 0

# %%
best = {kind: max(found, key=lambda net: fmean(found[net])) for kind, found in live.items()}
print("best mean of this run:", best)
results.record(**{f"best_{kind.replace('-', '_')}": name for kind, name in best.items()})

# %% [markdown]
# ## What we found
#
# - A halving doubles the view, costs little work and many weights. It pays where one object fills the view, and hardly
#   where many fit into it.
# - A difference needs pairs, several seeds and an interval. Two seeds show only what is huge; five show more.
# - The best depth depends on the images. In the paper's table depth 4 is nowhere clearly better than depth 3. That it is
#   worse on Cell does not survive a correction for nine comparisons.
#
# ## One honest limit
#
# Widths 8 to 128, 15 epochs, one recipe for all depths. A deep net may want longer training than a shallow one, and here
# it did not get it.
#
# What is stored of real nuclei and of several seeds was measured before a mistake was mended: the random changes of light
# drowned dark images. This page's own run has the mended ones. `docs/protocol.md` says what is measured in its place.
#
# ## The next question
#
# If the best depth is not known before, one could train them all. Or build a net that has them all inside.
# [Lesson 06](06_nested_skips.ipynb) asks: **must we choose one depth?**
