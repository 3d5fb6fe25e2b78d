# %% [markdown] needs="02, 03" minutes=3
# # What do skip connections carry?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# Lesson 03 went down and came up again, and lost the borders on the way. U-Net's answer is one line of code: at
# every size, hand the decoder what the encoder saw at that size. This lesson builds U-Net, trains it with a loop
# you can read in one breath, and then takes the connections away one by one to see what they carried.
#
# You will be able to
#
# - write U-Net of any depth in fifteen lines,
# - write a training step, and say what happens when a line of it is missing,
# - find out what a part of a net is good for: cut it after training, train without it, and compare.
#
# Two cores need a little more than three minutes; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
from itertools import islice, pairwise, product

import torch
import torch.nn.functional as F
from torch import nn

from course_lib import data, measure, results, show
from course_lib.checks import check_training_step, check_unet, expect
from course_lib.grid import NestedUNet, VGGBlock
from course_lib.lesson import kept, presets
from course_lib.losses import bce_dice
from course_lib.metrics import boundary_iou, count, iou
from course_lib.predict import Setting, probabilities, torch_device
from course_lib.predict.baseline import otsu_masks
from course_lib.show import views, widgets
from course_lib.show.views.losses import LOSSES, disk
from course_lib.train import Recipe, batches, evaluate, fit, make_optimiser, one_cycle

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
DATA = "auto"  # or "synthetic", "bbbc038", a folder
EPOCHS = 0  # 0: as many as the preset says; else 2 or more
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
epochs, device = EPOCHS or sizes.epochs, torch_device("auto")
name = data.best_at_hand() if DATA == "auto" else DATA
print(f"preset {presets.resolve(PRESET)}: {sizes}")
print(f"images: {name}")

# %% [markdown]
# The images are real nuclei (BBBC038, the 2018 Data Science Bowl) where their archive is on this machine, and
# the built-in ones elsewhere. The line above says which. Nothing is downloaded behind your back: `make data`, or
# `python -m course_lib data bbbc038`, fetches the archive. The outputs stored here were made with the built-in images.

# %%
if name == "synthetic":
    splits = data.draw(sizes.images, sizes.size, seed=SEED)
else:
    splits = data.load(name, sizes.size)
val = splits.val
otsu_iou = iou(count(otsu_masks(val), val.masks).pooled()).item()
figure = show.overlay(
    val.images[:4], val.masks[:4], titles=[f"{n} nuclei" for n in val.labels[:4].amax((1, 2))]
)
show.display(figure, alt="Four images with true outlines; titles count the nuclei.")
print(f"baseline, one Otsu threshold an image: pooled IoU {otsu_iou:.3f}")

# %% [markdown]
# ## What is a skip connection?
#
# The encoder makes features $x^{i,0}$, one row $i$ for each halving $D$. The decoder goes back up: it doubles
# ($U$) what comes from below, **and reads the encoder's features of its own row beside it**:
#
# $$x^{0,0} = H(\text{image}), \qquad x^{i,0} = H(D(x^{i-1,0})), \qquad
# x^{i,j} = H([\,x^{i,0},\; U(x^{i+1,j-1})\,]), \quad i + j = L.$$
#
# $H$ is the block of lesson 02, two convolutions with batch norm and ReLU. The bracket puts channels side by side;
# nothing is added up. $L$ is the depth. The grey arrows of the figure are the skip connections.
#
# U-Net is by Ronneberger, Fischer and Brox (MICCAI 2015). Theirs has no batch norm, pads nothing, and doubles by
# transposed convolutions; what is here is the form that the widely used code of UNet++ compares with.

# %%
figure = show.grid(NestedUNet(wiring="unet"), title="U-Net, depth 4")
show.display(figure, alt="U-Net: five encoder nodes down the left, four decoder nodes up.")

# %% [markdown]
# ### Exercise 1: U-Net (20 minutes, medium)
#
# (Whoever wrote `EncoderDecoder` in lesson 03 copies it: the way down and the head stay, the way up changes.)
#
# Write it: from images (N, in_channels, H, W) to logits (N, classes, H, W). Row i has `widths[i]` channels. Build the
# encoder blocks first (`down`), then the decoder blocks from the lowest up (`up`), then the head, a 1x1 convolution.
# `pairwise((3, 8, 16))` gives (3, 8) and (8, 16), which is handy for channels. Halve with `F.max_pool2d(x, 2)`, double
# with `F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)`.
#
# <details><summary>Hint 1: which blocks</summary>The encoder has a block for each width, from the one before. The
# decoder has one less; its input holds the channels of its own row and of the row below.
# <details><summary>Hint 2: how to remember</summary>Append every encoder output to a list. The last one is where
# the way up begins; the others are the skips, read from the back.
# <details><summary>Hint 3: the line of the decoder</summary>
# <code>x = block(torch.cat([skip, up(x)], dim=1))</code></details></details></details>


# %% tags=["exercise"]
class UNet(nn.Module):
    def __init__(self, in_channels, classes, widths):
        super().__init__()
        ### BEGIN SOLUTION
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a + b, b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)
        ### END SOLUTION

    def forward(self, image):
        ### BEGIN SOLUTION
        x, skips = image, []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i > 0 else x)  # x^{i,0}
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1]):
            up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([skip, up], dim=1))  # x^{i,j}
        return self.head(x)
        ### END SOLUTION


# %%
check_unet(UNet)

# %% [markdown]
# The check looked at more than shapes: that the skips carry something, that gradients flow back through them, that
# the image is halved often enough. At the published widths it has as many weights as the course's own net.

# %% tags=["nbval-check-output"]
ours = measure.parameters(UNet(3, 1, (32, 64, 128, 256, 512)))
print(f"{ours:,} weights")
print(
    f"{measure.parameters(NestedUNet(wiring='unet')):,} in course_lib's grid with the wiring 'unet'"
)
assert ours == measure.parameters(NestedUNet(wiring="unet"))

# %% [markdown]
# ## What is one step of training?
#
# The loss says how wrong the logits are. With $p$ the probabilities and $y$ the mask it is
#
# $$\ell = -\frac{1}{2}\,\mathrm{mean}\big[\,y \log p + (1 - y) \log (1 - p)\,\big]
# \;+\; 1 - \frac{2 \sum y p}{\sum y + \sum p}.$$
#
# The first part, half the **binary cross entropy**, punishes each pixel by itself. The second is one minus the **soft
# Dice**: lesson 01's Dice of an image, with probabilities in place of yes and no, so that it has a gradient. `bce_dice`
# takes the mean over the images, and adds 1 above and below the fraction for empty ones. A step asks for the gradient
# of the loss and moves every weight a little against it.
#
# Why two parts? Take a true disk and a predicted one beside it. In a running notebook the next cell lets you move, grow
# and blur the predicted disk. The figure after it shows in print where three losses push: BCE, Dice, and the Lovász
# hinge, which another line of work uses in their place (Berman, Triki and Blaschko, 2018).
#
# **Predict first.** Some pixels are wrong and the net is sure of them. Which loss pushes those hardest?

# %%
widgets.loss_playground()

# %%
view = views.gradients_of_losses()
show.display(view.figure, alt=view.alt)
print(view.text)

# %% tags=["nbval-check-output"]
true, logits = (disk() > 0).float(), disk(shift=6).requires_grad_()
pixel = (0, 0, 24, 13)  # inside the true disk, 4.5 pixels outside the predicted one
share = {}
for name in ("BCE", "Dice"):
    gradient = torch.autograd.grad(LOSSES[name](logits, true), logits)[0].abs()
    share[name] = (gradient[pixel] / gradient.max()).item()
    print(
        f"{name}: a missed pixel with p = {logits[pixel].sigmoid():.2f} gets {share[name]:.0%} of the strongest push"
    )
assert share["BCE"] > 0.9 and share["Dice"] < 0.1

# %% [markdown]
# BCE pushes every wrong pixel, the surest ones hardest. Dice pushes the rim of what was predicted, where $p$ is neither
# 0 nor 1, and hardly a pixel that is wrong and sure of it: the sigmoid is flat there. The Lovász hinge, too, pushes
# wrong pixels of which the net is sure. We think that is a good reason to train with both.
#
# ### Exercise 2: the step (10 minutes, easy)
#
# Write `train_step`: it takes one step with the loss `bce_dice` and gives back the loss before the step.
#
# <details><summary>Hint 1: the order</summary>Forward, loss, forget old gradients, backward, step.
# <details><summary>Hint 2: the value</summary>The loss is a tensor that remembers how it was made.
# <code>.item()</code> gives the bare number.</details></details>


# %% tags=["exercise"]
def train_step(net, optimiser, images, masks):
    """One step on images (N, 3, H, W) and masks (N, 1, H, W); returns the loss as a number."""
    ### BEGIN SOLUTION
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
    ### END SOLUTION


# %%
check_training_step(train_step)

# %% [markdown]
# Without `zero_grad` the gradients of earlier steps add up. Without `backward` there is no gradient, and without
# `step` no weight moves. Without `.item()` every stored loss keeps the record of how it was computed, and the memory in
# use grows with every step.

# %% [markdown]
# ## What is a training?
#
# A loop around that step. `batches` shuffles, flips, turns and shifts the images with a generator of ours, so the
# same seed gives the same batches, and brings each image to mean 0 and standard deviation 1. `one_cycle` lets the
# learning rate rise and fall.

# %%
recipe = Recipe(batch_size=min(8, len(splits.train.ids)), seed=SEED)
part = splits.train._replace(
    images=splits.train.images.to(device), masks=splits.train.masks.to(device)
)
steps = epochs * (len(part.ids) // recipe.batch_size)
torch.manual_seed(SEED)
net = UNet(3, 1, sizes.widths).to(device)
optimiser = make_optimiser(net, recipe)  # AdamW
schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step / steps))

# %%
generator, losses = torch.Generator().manual_seed(SEED), []
net.train()
for _ in range(epochs):
    losses.append([])
    for images, masks in batches(part, recipe.batch_size, generator):
        losses[-1].append(train_step(net, optimiser, images, masks))
        schedule.step()
by_hand = [sum(epoch) / len(epoch) for epoch in losses]
print(f"loss of the first epoch {by_hand[0]:.3f}, of the last {by_hand[-1]:.3f}")
assert by_hand[-1] < by_hand[0]

# %% [markdown]
# `fit`, which earlier lessons called, is this loop with a validation score, a checkpoint and a clock. That it is the
# same loop is not a promise: started from the same weights it must give the same losses.

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
again = UNet(3, 1, sizes.widths)
rows = list(islice(fit(again, splits, epochs=epochs, recipe=recipe), 2))
tolerance = 1e-5 if device.type == "cpu" else 0.02  # a GPU adds up in another order each time
expect("by hand minus fit, epoch 1", by_hand[0] - rows[0]["loss"], 0, tol=tolerance)
expect("by hand minus fit, epoch 2", by_hand[1] - rows[1]["loss"], 0, tol=tolerance)

# %% [markdown]
# ## Is it better than a threshold?
#
# **Predict first.** Otsu's score stands at the top. How far will U-Net get, and in which images will it fail?

# %%
scores = evaluate(net, val)
both = {"Otsu": otsu_iou, "U-Net": scores["iou_pooled"]}
print(results.table([{"method": name, "pooled IoU": value} for name, value in both.items()]))
assert scores["iou_pooled"] > otsu_iou, "U-Net is below the threshold here: train longer (EPOCHS)"

# %% [markdown]
# In the stored run that is more than the UNet++ of lesson 00 reached, on the same images. One seed each decides
# nothing; lesson 10 compares them.

# %%
predicted = probabilities(net, val.images) > 0.5
each = iou(count(predicted, val.masks))
worst = each.argsort()[:4]
titles = [f"IoU {each[n]:.2f}" for n in worst]
figure = show.error_map(val.images[worst], val.masks[worst], predicted[worst], titles=titles)
show.display(figure, alt="Error maps of the four worst images of U-Net.")

# %% [markdown]
# The pooled score hides these four. In the stored run their mistakes are no matter of a pixel at the border: whole
# patches of background are called nuclei, and whole nuclei are missed. Three of the four have a bright ground, and the
# patches lie where it is darker than elsewhere.
#
# ## What does each skip carry?
#
# Two different questions are easily mixed up.
#
# 1. What does this **trained** net rely on? Cut one skip, change nothing else, and score again.
# 2. What could a net do **without** it? Cut the skip first, then train from the same start.
#
# A cut skip carries zeros. A **hook** does it from outside: it is a function that PyTorch calls before a block runs.
# This one sets the first channels of the block's input, which are the skip, to zero. `NestedUNet` with the wiring
# `"unet"` is the net of exercise 1.


# %%
def cut(net, i):
    """Let the skip connection of row i carry zeros. Returns the hook; its `remove` restores it."""

    def zeros_for_the_skip(block, inputs):
        skip, up = inputs[0].split([net.config["widths"][i], net.config["widths"][i + 1]], dim=1)
        return torch.cat([torch.zeros_like(skip), up], dim=1)

    return net.node(i, net.depth - i).register_forward_pre_hook(zeros_for_the_skip)


# %% tags=["nbval-check-output"]
small = NestedUNet(widths=(4, 6, 10), wiring="unet").eval()
image = torch.rand(1, 3, 16, 24)
before = small(image)[-1]
hook = cut(small, 0)
print("a cut skip changes the logits:", not torch.equal(small(image)[-1], before))
hook.remove()
print("restored, they are as before:", torch.equal(small(image)[-1], before))


# %%
def train(without, seed):
    """A U-Net trained from the start of `seed`, the skips of the rows in `without` cut."""
    torch.manual_seed(seed)
    net = NestedUNet(widths=sizes.widths, wiring="unet")
    for i in without:
        cut(net, i)
    recipe, file = Recipe(seed=seed), kept("04", "without", *without, seed, epochs, sizes.size)
    list(fit(net, splits, epochs=epochs, recipe=recipe, setting=Setting.fast(), checkpoint=file))
    return net


def score(net):
    found = probabilities(net, val.images) > 0.5
    pooled = iou(count(found, val.masks).pooled()).item()
    return {"IoU": pooled, "boundary": boundary_iou(found, val.masks).mean().item()}


# %% [markdown]
# **Predict first.** Row 0 is at full size and has few channels; the lowest skip has many, at a fraction of the size.
# Which cut hurts a trained net most? Which damage can training repair?
#
# Pooled IoU says how much is found. Boundary IoU compares the rims alone, two pixels wide: it sees the borders. First
# question: cut after training. (`kept(...)` names the file in which a training is kept on Colab. Elsewhere it is None,
# unless `COURSE_RUNS` names a folder.)

# %%
seeds, depth = range(SEED, SEED + sizes.seeds), len(sizes.widths) - 1
whole = {seed: train([], seed) for seed in seeds}
full = {seed: score(net) for seed, net in whole.items()}
print("whole net, boundary IoU", [round(full[seed]["boundary"], 3) for seed in seeds])
cut_after = {}
for i in range(depth):
    for seed, net in whole.items():
        hook = cut(net, i)
        cut_after[f"row {i}", seed] = score(net)
        hook.remove()
assert all(score(whole[seed]) == full[seed] for seed in seeds), "the hooks are gone"

# %% [markdown]
# Second question: cut, then train. Every variant starts from the same weights and sees the same batches as the whole
# net of its seed, so their scores are compared in pairs.

# %%
variants = {f"row {i}": [i] for i in range(depth)} | {"all rows": list(range(depth))}
trained = {}
for name, without in variants.items():
    for seed in seeds:
        trained[name, seed] = score(train(without, seed))
        print(f"without {name}, seed {seed}: boundary IoU {trained[name, seed]['boundary']:.3f}")


# %%
def lost(found, name, key):
    """What a cut costs, a number a seed: positive is worse."""
    return [full[seed][key] - found[name, seed][key] for seed in seeds]


after = {name: lost(cut_after, name, "boundary") for name in variants if name != "all rows"}
never = {name: lost(trained, name, "boundary") for name in variants}
figure = show.points(
    {"cut after training": after, "trained without": never}, label="boundary IoU lost"
)
show.display(figure, alt="Boundary IoU lost for each skip, a dot a seed.")

# %%
mean = {"IoU": {}, "boundary": {}}
for key, name in product(mean, variants):
    mean[key][name] = sum(lost(trained, name, key)) / len(seeds)
lines = [{"skip cut": name} | {f"{key} lost": mean[key][name] for key in mean} for name in variants]
print(results.table(lines))

# %% [markdown]
# Read the dots before the mean. With so few seeds, a difference smaller than the distance between two dots of one
# column is noise, and we do not interpret it. Three things stand out from it.
#
# - A trained net relies on what it was given. Cut afterwards, its most costly skip costs far more than it costs a
#   net that learned to live without it. "What breaks when I switch it off" is not "what is it needed for".
# - Without any skip, training cannot make the borders good: in the stored run boundary IoU falls to 0.46 and 0.40,
#   about where lesson 03's encoder-decoder of depth 3 was (0.40).
# - With one skip missing, the others step in. In the stored run training repairs the cut of row 1, where row 0 is still
#   there, but only a part of the cut of row 0.
#
# Row 2 costs too little to read. Whether row 0 or row 1 costs more when it is cut after training, these seeds do not
# settle.

# %%
cut_mean = {name: sum(values) / len(seeds) for name, values in after.items()}
never_mean = {name: mean["boundary"][name] for name in after}
for title, costs in (("cut after training", cut_mean), ("trained without", never_mean)):
    most = max(costs, key=costs.get)
    print(f"{title}, mean over seeds: {most} costs most, {costs[most]:.3f} boundary IoU")
assert max(cut_mean.values()) > max(never_mean.values()), "not so here: read the dots, not our text"
assert mean["boundary"]["all rows"] > 0, "not so here: read the dots, not our text"

# %% [markdown]
# What flows along the skips can be looked at. Every node of the whole net, with one image in it: in a running notebook,
# the next cell shows any channel of any node. The figure after it is the mean of the channels in print.

# %%
image = val.images[0]
widgets.feature_explorer(whole[SEED], image)

# %%
view = views.Features(whole[SEED], image).view()
show.display(view.figure, alt=view.alt)

# %% [markdown]
# Row 0 holds lines as thin as the image has them. Two halvings further down a nucleus is a handful of squares, and no
# doubling brings the lines back. That is what the skip of row 0 is for.
#
# ## And on real nuclei?
#
# The table is stored in the repository with the command that makes it again, the device and the date: widths 16 to
# 256, and a row for each net and seed.

# %% tags=["nbval-ignore-output"]
stored = results.load_results("first_real")
columns = ["net", "seed", "iou_pooled", "iou_per_image", "boundary_iou_per_image"]
print(results.table(stored["rows"], columns))
print(stored["about"], stored["rows"][0]["images"], "test images.")
print("Measured on", stored["measured"]["device"], stored["measured"]["date"])

# %% [markdown]
# U-Net and UNet++ lie close together here. Whether the small distance means anything takes more seeds, a paired test
# and baselines of equal cost. That is lesson 10, and until then we claim nothing.

# %% tags=["nbval-check-output"]
by_net = {}
for row in stored["rows"]:
    by_net.setdefault(row["net"].split()[0], []).append(row["iou_pooled"])
assert min(by_net["unet"]) > max(by_net["otsu"]) + 0.06
print("every U-Net is at least 0.06 above Otsu on real nuclei")

# %%
results.record(
    val_iou=scores["iou_pooled"],
    otsu_iou=otsu_iou,
    boundary_lost_without_skips=mean["boundary"]["all rows"],
)

# %% [markdown]
# ## What we found
#
# - U-Net is an encoder, a decoder, and one concatenation a row. Training it is a loop around one step.
# - A skip carries position: what was where before the halving. Without any, the rims are worse after training too.
#   The one at full size is the one that the others could not fully replace here.
# - What a trained net relies on and what a net needs are two questions with two experiments.
#
# ## One honest limit
#
# A cut skip leaves a decoder block with as many weights and less to read, so "without" also means "a little smaller".
# The built-in images have sharper truth than any real annotation, which makes borders easy to score.
#
# ## The next question
#
# We took a depth for granted. [Lesson 05](05_how_deep.ipynb) asks: **how deep should it be?**
