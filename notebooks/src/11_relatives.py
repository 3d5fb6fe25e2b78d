# %% [markdown] needs="04, 06, 10" minutes=3
# # What came next?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# UNet++ changed one decision of U-Net: which maps a node reads. Others changed other ones, before it and after it: what
# flows along a skip, how maps are joined, from which scales they come, what a node computes, and what happens at the
# border. This lesson builds the two ideas that take a few lines, reads the rest, and compares all of them under one
# recipe.
#
# You will be able to
#
# - name the one decision in which each of five networks differs from UNet++,
# - write an attention gate, and bring maps of any scale to one row,
# - tell a fair comparison of architectures from one in which the baseline lost its norms.
#
# Two cores need two to three minutes; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
from statistics import fmean

import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from course_lib import data, relatives, results, show
from course_lib.checks import check_at_row, check_gate
from course_lib.grid import NestedUNet
from course_lib.lesson import kept, presets
from course_lib.measure import macs, parameters
from course_lib.predict import as_input
from course_lib.predict.setting import Setting
from course_lib.results.compare import holm, paired_interval
from course_lib.train import Recipe, fit

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
EPOCHS = 0  # 0: a third of what the preset says; else 2 or more
SEED = 0

# %%
sizes = presets.sizes(PRESET)
epochs = EPOCHS or max(3, sizes.epochs // 3)
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %% [markdown]
# ## One decision each
#
# | network | what flows | how it is joined | from where | a node is |
# |---|---|---|---|---|
# | UNet++ | the map | concatenated | its own row, and the row below | two convolutions |
# | Attention UNet++ (gates of 2018) | the map **times a gate** | concatenated | the same | the same |
# | UNet 3+ (2020) | the map | concatenated | **all rows** | one convolution of each map, and one of all |
# | RefineNet (2017) | the map, refined | **summed** | its own row, and the row below | **residual units** |
# | dense UNet++ (blocks of 2017) | the map | concatenated | the same | **a DenseNet block** |
# | U-Net of 2015 | **the middle** of the map | concatenated | the same, long skips only | two convolutions, **no padding** |
#
# All of them answer like our grid: `net(image)[-1]` are logits of the image's size. So one loop counts what they cost.
#
# **Predict first.** Which of them works most at equal widths?

# %% tags=["nbval-check-output"]
small = (8, 16, 32, 64, 128)
nets = {"unet++": NestedUNet(widths=small)}
for name, kind in relatives.RELATIVES.items():
    nets[name] = kind(in_channels=3, classes=1, widths=small)
work = {name: macs(net, (64, 64)) for name, net in nets.items()}
for name, net in nets.items():
    print(f"{name:17} {parameters(net):9,} parameters {work[name] / 1e6:6.1f} million MACs")
assert max(work, key=work.get) == "original-unet"

# %% [markdown]
# The U-Net of 2015 does most, although it has no nested nodes. Its convolutions do not pad, so each of them makes the
# map smaller. To get 64x64 pixels out, the image is first continued by its mirror image, to 252x252: 94 % of what it reads
# is mirror image. For the 572x572 pixels of its paper that is another matter. RefineNet has five times the weights: its
# residual units stand in every row, at full width.
#
# ## What flows along a skip?
#
# A skip copies all it has: nuclei, and dirt. A **gate** lets pass what the coarser map asks for. With $f$ the map on the
# skip and $g$ the up-sampled map from below (Oktay and others, 2018):
#
# $$\alpha = \sigma\left(W_\psi\,\mathrm{relu}(W_g\,g + W_f\,f)\right), \qquad \mathrm{out} = \alpha\,f.$$
#
# $\alpha$ has one channel: a pixel passes in all channels or in none.
#
# ### Exercise 1: the gate (8 minutes, easy)
#
# Write `gate`. `W_f`, `W_g` and `W_psi` are layers you can call.
#
# <details><summary>Hint 1</summary>Three lines, in the order of the formula.
# <details><summary>Hint 2</summary><code>torch.sigmoid</code> and <code>F.relu</code>; the product spreads the one
# channel over all channels of f by itself.</details></details>


# %% tags=["exercise"]
def gate(f, g, W_f, W_g, W_psi):
    """f (N, c, h, w), g (N, c_below, h, w) -> what passes of f, (N, c, h, w)."""
    ### BEGIN SOLUTION
    asked = F.relu(W_g(g) + W_f(f))
    alpha = torch.sigmoid(W_psi(asked))
    return alpha * f
    ### END SOLUTION


# %%
check_gate(gate)

# %% [markdown]
# Attention UNet++ puts one on every skip (Li and others, 2020). Yours does what the package's does, and cutting the net
# stays exact: nothing that is cut feeds a gate that stays.

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
attention = relatives.AttentionUNetPlusPlus(widths=sizes.widths, deep_supervision=True).eval()
ours = attention.gate(0, 0, 1)
f, g = torch.rand(1, sizes.widths[0], 8, 8), torch.rand(1, sizes.widths[1], 8, 8)
print(
    "the same as the package's:",
    torch.equal(gate(f, g, ours.W_f, ours.W_g, ours.W_psi), ours(f, g)),
)
published = relatives.AttentionUNetPlusPlus(deep_supervision=True)
gates = sum(isinstance(module, relatives.Gate) for module in published.modules())
extra = parameters(published) - parameters(NestedUNet(deep_supervision=True))
print(f"depth 4: {gates} gates, {extra:,} parameters more than UNet++")
image = torch.rand(1, 3, 32, 32)
assert torch.equal(attention.prune(1)(image)[0], attention(image)[0]) and gates == 20

# %% [markdown]
# **Predict first.** After some training on built-in images: will the gate on the longest skip, from $x^{0,0}$ to the
# last node of row 0, be open on nuclei, or on the background? (`kept(...)` names the file in which a training is kept
# on Colab. Elsewhere it is None, unless `COURSE_RUNS` names a folder.)

# %% tags=["timing"]
splits = data.draw(sizes.images, sizes.size, seed=SEED)
recipe, file = Recipe(seed=SEED), kept("11", "gates", SEED, epochs, sizes.size)
for row in fit(
    attention, splits, epochs=epochs, recipe=recipe, setting=Setting.fast(), checkpoint=file
):
    print(f"epoch {row['epoch']}  validation IoU {row['val_iou']:.3f}")

# %%
seen = {}
last = attention.gate(0, 0, attention.depth)
hook = last.register_forward_hook(
    lambda module, inputs, out: seen.update(alpha=module.alpha(*inputs))
)
with torch.inference_mode():
    attention.cpu()(as_input(splits.val.images[:3].cpu()))
hook.remove()
alpha, truth = seen["alpha"].float(), splits.val.masks[:3].bool().cpu()

# %%
figure, axes = show.canvas(3, rows=2, height=4.2)
for n in range(3):
    axes[n].imshow(show.pixels(splits.val.images[n].cpu()))
    axes[3 + n].imshow(alpha[n, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    axes[n].axis("off")
    axes[3 + n].axis("off")
show.display(
    figure,
    alt="Three images, and below each how far the gate is open, white for all: white on most nuclei, bright or dark, "
    "grey elsewhere.",
)

# %%
print(f"open on nuclei {alpha[truth].mean():.2f}, on background {alpha[~truth].mean():.2f}")
assert alpha.min() >= 0 and alpha.max() <= 1

# %% [markdown]
# White passes. In the stored run this gate is nearly twice as open on nuclei as on the background. That holds for bright
# nuclei and for dark ones. In these images it is nowhere quite shut. But a gate need not look like a mask, and what it
# closes, the convolution behind it could have weighed down as well. Whether it helps is a question for the table below.
#
# ## From which scales?
#
# In UNet 3+ (Huang and others, 2020) every decoder node reads **every** row: encoder maps from above and beside it,
# decoder maps from below, each brought to its size.
#
# ### Exercise 2: at the size of a row (8 minutes, medium)
#
# Write `at_row`: a map of row `k` at the size of row `i`. Going down, take maxima of $2^{i-k}$ by $2^{i-k}$ pixels; going
# up, interpolate bilinearly with corners aligned, as our $U$ does.
#
# <details><summary>Hint 1</summary>Row <code>i</code> is half as large as row <code>i - 1</code>. Three cases: above,
# beside, below.
# <details><summary>Hint 2</summary><code>F.max_pool2d(x, 2 ** (i - k))</code> and <code>F.interpolate(x,
# scale_factor=2 ** (k - i), mode="bilinear", align_corners=True)</code>.</details></details>


# %% tags=["exercise"]
def at_row(x, k, i):
    """A map (N, c, h, w) of row k, at the size of row i."""
    ### BEGIN SOLUTION
    if k < i:
        return F.max_pool2d(x, 2 ** (i - k))
    if k > i:
        return F.interpolate(x, scale_factor=2 ** (k - i), mode="bilinear", align_corners=True)
    return x
    ### END SOLUTION


# %%
check_at_row(at_row)

# %% tags=["nbval-check-output"]
maps = [torch.rand(1, c, 64 >> k, 64 >> k) for k, c in enumerate(small)]
joined = [at_row(x, k, 2) for k, x in enumerate(maps)]
print("at row 2:", [tuple(x.shape[1:]) for x in joined])
with torch.device("meta"):
    for options in (
        {},
        {"deep_supervision": True},
        {"deep_supervision": True, "classification": True},
    ):
        print(f"{parameters(relatives.UNet3Plus(**options)):,} parameters", list(options))
    full = relatives.UNet3Plus()
assert parameters(full) == 26_971_777 and len({x.shape[2:] for x in joined}) == 1

# %% [markdown]
# The three counts are those of the released code: plain, with five heads, and with the module that decides whether an
# image holds anything. Fewer weights than a U-Net of the same widths, because each scale is squeezed to 64 channels
# first. But the squeezed maps stand at full size in row 0: at small widths it does nearly half as much work again as UNet++.
#
# **A trap.** In the released code of UNet 3+ its own decoder has batch norm after every convolution, and the decoders of
# the U-Net and the UNet++ beside it have none. "Deep supervision" of that UNet++ is the mean of four logits before one
# loss, not four losses. So its two baselines lack what the new net has. How much can that be?
#
# **Predict first.** The same U-Net and UNet++ on built-in images, with all norms and without those of the decoder: what
# will it cost? Our `NestedUNet` has every norm; the cell takes them out.


# %%
def without_norms_in_decoder(net):
    for i, j in net.nodes:
        if j > 0:
            net.node(i, j).bn1 = net.node(i, j).bn2 = nn.Identity()
    return net


def trained(wiring, seed, change):
    """Pooled IoU on the validation part after half of the preset's epochs."""
    torch.manual_seed(seed)
    net = change(NestedUNet(widths=sizes.widths, wiring=wiring))
    half = EPOCHS or (sizes.epochs + 1) // 2
    recipe, file = Recipe(seed=seed), kept("11", wiring, change.__name__, seed, half, sizes.size)
    rows = list(
        fit(net, splits, epochs=half, recipe=recipe, setting=Setting.fast(), checkpoint=file)
    )
    return rows[-1]["val_iou"]


# %% tags=["timing"]
lost = {}
for wiring in ("unet", "unet++"):
    for seed in range(SEED, SEED + 3):
        whole, bare = (
            trained(wiring, seed, f) for f in (lambda net: net, without_norms_in_decoder)
        )
        lost.setdefault(wiring, []).append(whole - bare)
        print(f"{wiring:6} seed {seed}: {whole:.3f}, without norms {bare:.3f}")
for wiring, values in lost.items():
    print(f"{wiring:6} lost without norms: {fmean(values):+.3f}")

# %% [markdown]
# In the stored run UNet++ is behind without them with every seed, by 0.055 on average; of the three seeds of U-Net one
# is not. Most differences in the table at the end are smaller than a third of that. It is a demonstration (built-in
# images, few epochs, a learning rate chosen with norms) and does not say what the norms were worth in that paper. It
# says that a baseline needs the same block before a difference can be the wiring's. Our table gives every net the same
# recipe, and all but RefineNet and the U-Net of 2015 norms throughout.
#
# ## Summed or concatenated?
#
# RefineNet (Lin and others, 2017) adds maps where U-Net concatenates them. How different is that?
#
# **Predict first.** Can a convolution of a concatenation do what a sum of two convolutions does?

# %% tags=["nbval-check-output"]
x, y = torch.rand(1, 6, 16, 16), torch.rand(1, 10, 16, 16)
one, two = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(10, 4, 3, padding=1)
both = nn.Conv2d(16, 4, 3, padding=1)
with torch.no_grad():
    both.weight.copy_(torch.cat([one.weight, two.weight], dim=1))
    both.bias.copy_(one.bias + two.bias)
same = torch.allclose(one(x) + two(y), both(torch.cat([x, y], dim=1)), atol=1e-5)
print("sum of two convolutions = one convolution of the concatenation:", same)
assert same

# %% [markdown]
# It is the same function. So the sum is not what sets RefineNet apart. (It convolves the coarse map before it doubles
# it, at a quarter of the work; for a 3x3 convolution the order matters, so that part is not the same.) What does set it
# apart are its residual units, which have no batch norm, and its chained pooling: maxima of 5x5 pixels, one after the
# other, each convolved and added to the map.
#
# ## Dense along a row, or inside a node?
#
# The dense skips of UNet++ come from DenseNet (Huang and others, 2017), where every layer reads all layers before it. There
# it happens inside of a block. With $H_l$ a batch norm, a ReLU and a 3x3 convolution to half of the channels, and $T$ a 1x1
# convolution:
#
# $$x_1 = H_1(x_0),\quad x_2 = H_2([x_0, x_1]),\quad T([x_0, x_1, x_2]).$$
#
# Dense UNet++ has this block in every node. $x_0$ itself goes straight to $T$, so a node can pass on what it was given.

# %% tags=["nbval-check-output"]
block = relatives.DenseBlock(16, 8)
print(block)
with torch.no_grad():
    print(tuple(block(torch.rand(1, 16, 12, 12)).shape))

# %% [markdown]
# ## Borders made up, or not
#
# Padding with zeros invents what lies outside. The U-Net of 2015 computes only where it has seen all it needs.

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    original = relatives.OriginalUNet()
    out = original.valid(torch.empty(1, 1, 572, 572))
print(f"{parameters(original):,} parameters, 572x572 -> {out.shape[2]}x{out.shape[3]}")
assert parameters(original) == 31_030_658 and out.shape[2:] == (388, 388)

# %% [markdown]
# It also weighs pixels: most where two nuclei nearly touch, so that the net learns to part them. The formula commonly
# cited from the paper, with $d_1$ and $d_2$ the distances to the two nearest nuclei. $w_c$ gives nuclei and background
# the same sum, $w_0$ says how much a gap counts, and $\sigma$ how wide it may be:
#
# $$w = w_c + w_0\,\exp\left(-\frac{(d_1 + d_2)^2}{2\sigma^2}\right).$$

# %%
labels = splits.train.labels[:3].cpu()
weights = relatives.border_weights(labels, sigma=2.0)
figure, axes = show.canvas(3, rows=2, height=4.2)
for n in range(3):
    axes[n].imshow(show.pixels(splits.train.images[n].cpu()))
    axes[3 + n].imshow((weights[n] * (labels[n] == 0)).numpy(), cmap="gray")
    axes[n].axis("off")
    axes[3 + n].axis("off")
show.display(figure, alt="Three images, and below each the weights of its background pixels: brightest in the gaps "
             "between neighbours.")  # fmt: skip
assert weights.min() < 1 < weights.max()

# %% [markdown]
# Bright is heavy: the narrow gaps between nuclei. (The weights are shown on the background; $\sigma$ is 2 pixels here,
# because these images are small.)
#
# ## On equal terms
#
# Real nuclei, widths 8 to 128, three seeds, one recipe, from the repository. Each net is compared with UNet++ seed by seed.
#
# UNet 3+ with all heads is scored by its full-size head alone. We must own up to that choice: it was made **after** the
# mean of all five heads had been scored on the same test images, and was far lower. The deepest of those heads is a map of
# 4x4 pixels, which is a reason, but a reason found late. Read that line as a second try.
#
# **Predict first.** Which of the five is ahead of UNet++?

# %%
stored = results.load_results("relatives")
runs = {}
for row in stored["rows"]:
    runs.setdefault(row["net"], []).append(row)
print(stored["about"])
print("Pooled IoU,", stored["measured"]["device"], stored["measured"]["date"])
score = {net: [row["iou_pooled"] for row in rows] for net, rows in runs.items()}


# %%
def against(base, key):
    """Each other net minus `base`, seed by seed: net -> interval, and p corrected for the number of nets."""
    of = {net: [row[key] for row in rows] for net, rows in runs.items()}
    others = [net for net in of if net != base]
    p_values = holm([stats.ttest_rel(of[net], of[base]).pvalue for net in others])
    return {net: (paired_interval(of[net], of[base]), p) for net, p in zip(others, p_values)}


pooled, per_image = (against("unet++", key) for key in ("iou_pooled", "iou_per_image"))
for net, values in score.items():
    line = f"{net:21} {runs[net][0]['macs'] / 1e6:4.0f} million MACs  {fmean(values):.3f}"
    if net in pooled:
        line += "  minus unet++ {}  p {:.3f}".format(*pooled[net])
    print(line)

# %% [markdown]
# Lesson 10 said to choose the score before one looks, and its own choice was the IoU per image. The same runs in that score:

# %%
for net, (interval, p) in per_image.items():
    print(f"{net:21} minus unet++ {interval}  p {p:.3f}")

# %%
figure, (axis,) = show.canvas(height=3.6)
names = list(score)[::-1]
for y, net in enumerate(names):
    axis.plot(score[net], [y] * len(score[net]), "o", color=show.BLUE, markersize=5, alpha=0.8)
    axis.plot(fmean(score[net]), y, "|", color=show.BLACK, markersize=14)
labelled = [f"{net}, {runs[net][0]['macs'] / 1e6:.0f}" for net in names]
axis.set(yticks=range(len(names)), yticklabels=labelled, xlabel="pooled IoU, test part")
axis.set_title("net, million MACs", fontsize=9, loc="left")
show.display(
    figure, alt="Pooled IoU of each net, a dot a seed and a bar at the mean, with its million MACs."
)

# %% [markdown]
# (`p` is corrected for the eight comparisons, as in lesson 10. Images are not drawn anew: it holds for this test part.)
#
# - **Behind**: the U-Net of 2015, by 0.024. It has no norms at all, and it is behind in both scores. RefineNet has none in
#   its decoder; one of its seeds fell far below the other two, so its interval says little.
# - **Level**: the gates. On these images they bring nothing that three seeds could show.
# - **In doubt**: UNet 3+ with one head, by 0.005, at 1.4 times the work of UNet++. Its three differences are nearly equal,
#   which makes the interval narrow, and pooled over pixels it is clear. Per image it is 0.002 and not clear, and with all
#   heads the pooled lead is gone: 0.008 below one head.
# - **Perhaps ahead**: the dense blocks. They are ahead by more, 0.014, and 0.012 per image, with less work and fewer
#   weights. After the correction neither is clear.
# - **And the plain U-Net that does the work of UNet++?** None of the five is clearly ahead of it in either score.

# %% tags=["nbval-check-output"]
clear = {
    key: [net for net, (_, p) in found.items() if p < 0.05]
    for key, found in (("pooled", pooled), ("per image", per_image))
}
print("differ clearly from UNet++ after correction:", clear)
assert clear == {"pooled": ["unet3+", "original-unet"], "per image": ["original-unet"]}
work_of_nested = "unet, work of unet++"
for key in ("iou_pooled", "iou_per_image"):
    ahead = [n for n, (i, _) in against(work_of_nested, key).items() if i.low > 0]
    assert not set(ahead) & set(relatives.RELATIVES)
heads = paired_interval(score["unet3+, all heads"], score["unet3+"])
print(f"UNet 3+, all heads minus one, pooled: {heads}")
assert heads.high < 0

# %%
results.record(
    parameters_of_unet3plus=parameters(full),
    gates=gates,
    open_on_nuclei=float(alpha[truth].mean()),
)

# %% [markdown]
# ## What we found
#
# - Each relative differs from UNet++ in one decision, or in two. A gate is three lines, full-scale skips are one
#   function.
# - A sum of convolutions is a convolution of the concatenation. What a network is known for need not be what matters.
# - Full-scale skips are ahead of UNet++ in one score and not in the other, dense blocks perhaps in both, and no relative is
#   clearly ahead of a plain U-Net that does the same work as UNet++.
#
# ## One honest limit
#
# One recipe for all is fair and may suit none: learning rate and epochs were chosen for the grid. RefineNet has no norm in
# its decoder, and what its paper starts from, a trained ResNet, is missing here. Three seeds rarely settle a small
# difference, and a narrow interval of three can be luck.
#
# What is stored of real nuclei and of several seeds was measured before a mistake was mended: the random changes of light
# drowned dark images. This page's own run has the mended ones. `docs/protocol.md` says what is measured in its place.
#
# ## The next question
#
# All this was measured on nuclei. [Lesson 12](12_your_own_data.ipynb) asks: **does it work on mine?**
