# %% [markdown] needs="01, 06" minutes=1
# # Does it work on mine?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# A folder of images and masks that nobody prepared for us: thin dark lines, cells that all touch, images larger than the
# net has seen, and the mistakes that every such folder has. This lesson goes from the folder to a table of counted cells,
# and says at each step how much is lost there.
#
# You will be able to
#
# - have a folder examined, read what is wrong with it, and have mended what a program can mend,
# - choose between resizing and tiles, and join tiles without a seam,
# - turn probability maps into counted objects, train on several classes, and do all of it from the command line.
#
# Two cores need about a minute; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
import json
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

# %%
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from course_lib import data, measure, results, show
from course_lib.checks import check_average_precision, check_blend, expect
from course_lib.data import mask_doctor, membranes, pixels
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.lesson import presets
from course_lib.predict import Setting, apply, predict, probabilities
from course_lib.predict.export import export_onnx, model_card
from course_lib.predict.instances import instance_scores, separate
from course_lib.train import Recipe, evaluate, fit
from course_lib.train.checkpoint import save_model

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
EPOCHS = 0  # 0: half of what the preset says
SEED = 0

# %%
sizes = presets.sizes(PRESET)
epochs = EPOCHS or sizes.epochs // 2
size, widths = sizes.size, sizes.widths[:4]
work = Path(tempfile.mkdtemp())  # all files of this lesson
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %% [markdown]
# ## What does somebody's folder hold?
#
# `images/` and `masks/` with equal names; a mask says which pixels belong to which object. Ours is drawn by a program, so
# that everyone has it: tissue whose cells all touch, with thin dark membranes between them. On the command line:
#
#     python -m course_lib draw tissue

# %%
count = max(6, sizes.images // 25)
tissue = membranes.write_folder(work / "tissue", count=count, size=256, seed=SEED)
files = sorted(path.relative_to(work).as_posix() for path in tissue.rglob("*.png"))
print(len(files), "files:", *files[:2], "...", *files[-2:])
image, labels = (np.array(Image.open(work / name)) for name in (files[0], files[count]))
print("image", image.shape, image.dtype, " mask", labels.shape, labels.dtype, "0 to", labels.max())

# %%
figure, (left, right) = show.canvas(2, height=3.0)
left.imshow(image, cmap="gray")
right.imshow(np.where(labels > 0, 1 + labels % 7, 0), cmap="cividis")
left.set_title("image", fontsize=9)
right.set_title("mask: a number for each cell", fontsize=9)
for axis in (left, right):
    axis.set(xticks=[], yticks=[])
show.display(figure, alt="Tissue: light cells, thin dark membranes; beside it the numbered cells.")

# %% [markdown]
# Nuclei were islands. Here the object is nearly everything, and what tells cells apart is a line of three pixels. That is
# another task for the same net.
#
# ## What is wrong with it?
#
# Real folders come from several people and programs. We spoil a copy in nine ways that are common.
#
# **Predict first.** How many of the nine can a program mend without knowing the images?

# %%
spoiled = membranes.write_folder(work / "spoiled", count=12, size=256, seed=SEED)
mask_of = [spoiled / f"masks/tissue{n:03d}.png" for n in range(12)]
image_of = [spoiled / f"images/tissue{n:03d}.png" for n in range(12)]
colours = np.random.default_rng(SEED).integers(40, 255, (300, 3), dtype=np.uint8)
changes = {
    1: lambda labels: np.where(labels[..., None] > 0, colours[labels], 0),  # in colour
    2: lambda labels: labels[::2, ::2],  # exported at half the size
    3: lambda labels: (255 * (labels > 0)).astype(np.uint8),  # 0 and 255
    4: lambda labels: 0 * labels,  # nothing drawn
    10: lambda labels: labels[:200],  # cropped
}
for n, change in changes.items():
    Image.fromarray(change(np.array(Image.open(mask_of[n])))).save(mask_of[n])

# %% tags=["nbval-check-output"]
mask_of[5].rename(spoiled / "masks/tissue005_mask.png")  # named by another program
mask_of[6].unlink()  # lost
shutil.copy(image_of[7], image_of[8])  # one image twice, with two masks
image_of[9].write_bytes(b"not a picture")
try:
    data.load(spoiled, progress=False)
except UserError as problem:
    print(str(problem).partition("spoiled: ")[2])

# %% [markdown]
# Loading stops at the first fault. To find them one by one takes a run for each, and two would never be found: an empty
# mask and an image that is there twice are loaded without a word. The **mask doctor** looks at every file first. On the
# command line: `python -m course_lib masks spoiled`.

# %% tags=["nbval-check-output"]
findings = mask_doctor.examine(spoiled)
faults = [finding._asdict() for finding in findings[:-1]]
print(results.table(faults, ["file", "problem", "mendable"]))
print(findings[-1].detail)

# %% tags=["nbval-check-output"]
for finding in findings:
    if finding.problem in ("same image", "other size"):
        print(f"{finding.file} {finding.detail}\n")
assert len(faults) == 8 and sum(fault["mendable"] for fault in faults) == 4

# %% [markdown]
# Eight of nine are named; the ninth, 0 and 255, is no fault: its pieces are numbered. Four can be mended, three need a
# person. The empty mask is only a note: it may be right, so its file counts as fine. ("bright" is the look of the
# images: grey on a light ground.) But read the details: of two equal images one is kept, and a person must look whose
# mask is right. A mask of half the size is enlarged, and lines that were lost in it stay lost. And no program knows
# what a missing mask showed, which part of an image a cropped one covers, or whether an empty one is right.
#
# `mend` writes a copy without what needs a person, keeps the empty mask, and leaves the folder as it is (`--mend DIR`):

# %% tags=["nbval-check-output"]
mended = mask_doctor.mend(spoiled, work / "mended")
for finding in mended[:-1]:
    print(f"{finding.file:26} {finding.detail.partition(':')[0]}")
again = mask_doctor.examine(work / "mended")
print(again[-1].detail)
assert not any(finding.mendable for finding in again)

# %% [markdown]
# ## Does a cell survive the resizing?
#
# Until now every image was resized to the size of the net. A membrane of three pixels in 256 is less than one in 64.
#
# To count what survives we need to know which found cell is which true one. For each pair we take the IoU, pixels in common
# over pixels in either:


# %%
def iou_table(found, true):
    """Two images of labels (H, W) -> the IoU of every found with every true object, (found, true)."""
    rows, columns = found.max() + 1, true.max() + 1
    pairs = np.bincount((found * columns + true).ravel(), minlength=rows * columns)
    pairs = pairs.reshape(rows, columns)  # pixels that have this label and that one
    both = pairs[1:, 1:]
    either = pairs.sum(1)[1:, None] + pairs.sum(0)[1:] - both
    return torch.from_numpy(both / either)


# %% [markdown]
# **Predict first.** Take the true masks, with no net at all, resize them and enlarge them again. How many of the cells
# does `separate`, the package's counter, still find (IoU above 0.5) after 64 pixels? After 96? (`scale` tells it how
# many times the map was enlarged; more of it below.)

# %%
whole = [
    np.array(Image.open(path)).astype(np.int32) for path in sorted((tissue / "masks").iterdir())
]
true = sum(labels.max() for labels in whole)
print(true, "cells")

# %%
survived = {}
for side in (64, 96, 256):
    numbers = hits = 0
    for labels in whole:
        small = pixels.resize_labels(labels, side)
        mask = torch.from_numpy(small > 0)[None, None].float()
        enlarged = F.interpolate(mask, labels.shape, mode="bilinear")[0, 0].numpy()
        numbers += len(np.unique(small)) - 1
        hits += int((iou_table(separate(enlarged, scale=256 / side), labels) > 0.5).sum())
    survived[side] = hits / true
    print(
        f"{side:3} pixels: {numbers} of {true} numbers are left, {hits} cells found: {survived[side]:.0%}"
    )

# %%
assert survived[64] < 0.8 < 0.9 < survived[96] < survived[256]

# %% [markdown]
# At 64 pixels nearly every cell still has its number, but the lines between them are not there any more, and a third of the
# cells is not found again. Such masks show a net cells that have grown together. At 96 one in twenty is
# lost, and without resizing one in a hundred.
#
# So we do not resize. We cut every image into **tiles** at its own resolution. All tiles of an image stay in one part, or the
# test part would know the neighbourhoods of the training part.

# %%
splits = data.load(tissue, size, tiles=True, progress=False)
print("tiles in train, val, test:", *(len(part.ids) for part in splits))
parents = [{id.rpartition("@")[0] or id for id in part.ids} for part in splits]
print("images in train, val, test:", *map(len, parents))
assert not parents[0] & parents[1] and not parents[0] & parents[2]

# %% tags=["timing"]
torch.manual_seed(SEED)
net = NestedUNet(widths=widths, wiring="unet++", deep_supervision=True)
setting = Setting.fast()
recipe, file = Recipe(seed=SEED), work / "fit.pt"
for row in fit(net, splits, epochs=epochs, recipe=recipe, setting=setting, checkpoint=file):
    print(
        f"epoch {row['epoch']:2}  loss {row['loss']:.3f}  val IoU {row['val_iou']:.3f}  {row['seconds']:.1f} s"
    )

# %% [markdown]
# With `checkpoint` every epoch is written to a file. Interrupt the cell and run it again: it goes on behind the last
# whole epoch, as `train --out` does on the command line. (This file lies in a temporary folder. On Colab a disconnect
# loses it, with a mounted Drive too: then run the lesson from the top.)
#
# The IoU is high. But cells fill most of the image:

# %%
nothing_seen = splits.val.masks.float().mean().item()  # the IoU of a mask that is cell everywhere
print(f"IoU of a mask without any membrane: {nothing_seen:.2f}")
assert nothing_seen > 0.7

# %% [markdown]
# A mask without a single membrane would have that much, and hold one cell. So hold your praise until we count.
#
# ## How do tiles become one image?
#
# Now an image of 512x512. The net has seen tiles alone. At the rim of a tile it does not know what lies beyond,
# and guesses. So tiles overlap, and near its rim the weight of each is lower. With $p_k$ the map of tile $k$ and $w_k$ its
# weights, which fall towards its rim:
#
# $$p(x) = \frac{\sum_k w_k(x)\,p_k(x)}{\sum_k w_k(x)}.$$
#
# ### Exercise 1: joining tiles (8 minutes, easy)
#
# Write `blend`, along one direction: every tile has all rows, and some columns.
#
# <details><summary>Hint 1</summary>Two running sums over the columns: of weight times tile, and of the weights.
# <details><summary>Hint 2</summary>The joined map ends where the last tile does: <code>starts[-1] + len(weights)</code>.
# <details><summary>Hint 3</summary><code>values[:, start : start + len(weights)] += weights * tile</code>, and the same for
# the weights; divide at the end.</details></details></details>


# %% tags=["exercise"]
def blend(tiles, starts, weights):
    """Tiles (H, T), the column where each begins, and weights (T,) -> the joined map (H, W)."""
    ### BEGIN SOLUTION
    width = starts[-1] + len(weights)
    values, total = torch.zeros(len(tiles[0]), width), torch.zeros(width)
    for tile, start in zip(tiles, starts):
        values[:, start : start + len(weights)] += weights * tile
        total[start : start + len(weights)] += weights
    return values / total
    ### END SOLUTION


# %%
check_blend(blend)

# %% [markdown]
# `predict` does the same in both directions. What does it change? We have one thing to compare with: 512 pixels still fit
# into one pass, which has no tiles.
#
# **Predict first.** Without overlap, where is the map wrong? And how much overlap will it take?

# %%
drawn, truth = (part[0] for part in membranes.draw_membranes(1, 512, seed=SEED + 99))
large = torch.from_numpy(drawn)[None].repeat(3, 1, 1)  # grey as three channels
one_pass = predict(net, large, tile=512, overlap=0)[0]
cuts = torch.arange(size, 512, size)  # where tiles meet if they do not overlap
apart, at_the_cuts = {}, {}  # by overlap
for overlap in (0, size // 4, size // 2):
    tiled = predict(net, large, tile=size, overlap=overlap)[0]
    apart[overlap] = (tiled - one_pass).abs()
    beside = torch.cat([apart[overlap][:, cuts - 1], apart[overlap][:, cuts]], dim=1)
    at_the_cuts[overlap] = beside.mean().item()
    print(
        f"overlap {overlap:2}: at the cuts {beside.mean():.4f}, everywhere {apart[overlap].mean():.4f}"
    )

# %%
assert at_the_cuts[size // 4] < at_the_cuts[0] / 2
figure, axes = show.canvas(2, height=3.2)
for axis, overlap in zip(axes, (0, size // 4)):
    axis.imshow(apart[overlap][:256, :256], cmap="magma", vmin=0, vmax=0.3)
    axis.set(xticks=[], yticks=[], title=f"overlap {overlap}")
show.display(figure, alt="Difference to one pass: a grid of lines without overlap, none with it.")

# %% [markdown]
# Bright is a probability off by 0.3 or more. Without overlap the tiles' borders stand in the map as a grid; with a quarter of a
# tile in common the cuts are no worse than the rest. What is left is spread over the image: a tile knows less than the
# whole. The package takes tiles of 512 with 64 in common. `docs/own_data.md` has their seams, and `benchmarks/README.md` the
# memory that an image of 10,000 x 10,000 takes.
#
# ## How many cells?
#
# A mask of touching cells is not yet a number. `separate` takes the pixels above 0.5, measures how far each is from the
# background, and lets every peak of that distance be one cell; a **watershed** from the peaks draws the borders. How good
# is the result? A pair whose IoU is above a threshold is a hit (tp); found cells without a partner are too many (fp), true
# ones without a partner are missing (fn). The score of the 2018 Data Science Bowl, from which our nuclei come, is at one
# threshold
#
# $$\mathrm{AP} = \frac{tp}{tp + fp + fn}.$$
#
# It is called average precision there. (In the detection of objects that name means the area under a curve.)
#
# ### Exercise 2: average precision (8 minutes, medium)
#
# Write `average_precision` from the table of IoUs, a row for each found and a column for each true cell. Above 0.5 a cell
# has at most one partner, so nothing has to be matched.
#
# <details><summary>Hint 1</summary>How many entries are above the threshold?
# <details><summary>Hint 2</summary>fp is the number of rows minus tp, fn the number of columns minus tp.
# <details><summary>Hint 3</summary>So the denominator is rows + columns - tp.</details></details></details>


# %% tags=["exercise"]
def average_precision(table, threshold):
    """IoU of every found with every true cell, (found, true) -> tp / (tp + fp + fn) at the threshold."""
    ### BEGIN SOLUTION
    tp = int((table > threshold).sum())
    found, true = table.shape
    return tp / (found + true - tp)
    ### END SOLUTION


# %%
check_average_precision(average_precision)

# %% [markdown]
# `separate` was made for nuclei: two peaks may be 3 pixels apart. Its `scale` multiplies that.
#
# **Predict first.** Cells here are 28 pixels apart. Which scale counts better, 1 or 2? And does the true mask give 1.00?

# %%
whole_image = {"net": one_pass.numpy(), "true mask": (truth > 0).astype(float)}
for (name, mask), scale in product(whole_image.items(), (1, 2)):
    found = separate(mask, scale=scale)
    table = iou_table(found, truth)
    scores = ", ".join(f"AP {average_precision(table, t):.2f} at {t}" for t in (0.5, 0.75))
    print(f"{name:9} scale {scale}: {found.max()} found, {truth.max()} true, {scores}")
cells = separate(one_pass.numpy(), scale=2)

# %% [markdown]
# At scale 1 more cells come out than there are, also from the true mask: cells are cut in two. With peaks twice as far apart
# most of that is gone. The true mask is the bound for a way to count, and it is below 1.00: some cells are still cut, and
# slivers at the rim are too small. What the net loses beyond that is its own. (We chose the scale on this very image, so
# these are no scores to report.)

# %%
picture = apply.outlined(large.permute(1, 2, 0).numpy(), cells)
figure, (axis,) = show.canvas(height=4.2)
axis.imshow(picture[:256, :256])
axis.set(xticks=[], yticks=[])
show.display(figure, alt="A part of the image with the border of every found cell in orange.")
rows = apply.objects(cells)
print(results.table(rows[:3]), "\n...", len(rows), "rows")

# %% [markdown]
# Look at the picture before you believe a count. And the test part, which no choice has touched? It consists of tiles, so a
# cell on a border counts once in each tile, as pieces. They are counted at scale 1, as the command line does without
# `--scale`:

# %%
score = evaluate(net, splits.test, setting=setting)
score |= instance_scores(
    probabilities(net, splits.test.images, setting=setting), splits.test.labels
)
for name in ("iou_pooled", "ap50", "ap75", "nuclei_found", "nuclei_true"):
    print(
        f"{name:13} {score[name]:.3f}"
        if isinstance(score[name], float)
        else f"{name:13} {score[name]}"
    )
if presets.resolve(PRESET) != "smoke":
    assert score["iou_pooled"] > score["ap50"] > 0.6

# %% [markdown]
# In the stored run the IoU is 0.98 and the AP 0.85 at 0.5: 361 cells are found where 347 are. Scale 2 was chosen on one
# image; how it counts in the test part was not measured.
#
# ## And two kinds of things?
#
# So far a pixel was cell or not. A net can answer several such questions at once: one output for each **class**, one mask
# for each class, and the loss is the mean over them. Each output has its own sigmoid, so a pixel may belong to two classes,
# or to none. (Masks of such pixels need a folder for each class.) Where a pixel is one thing, a class is a number. Here 1 is the membrane and 2 the cell:

# %% tags=["nbval-check-output"]
named = work / "classes"
shutil.copytree(tissue / "images", named / "images")
(named / "masks").mkdir()
for path in sorted((tissue / "masks").iterdir()):
    numbers = np.where(np.array(Image.open(path)) > 0, 2, 1).astype(np.uint8)
    Image.fromarray(numbers).save(named / "masks" / path.name)
try:
    data.load(named, size, progress=False)
except UserError as problem:
    print(str(problem).partition("masks/")[2])

# %% [markdown]
# Good that it asks. Read as numbers of objects, this folder would be all object and no background, and a net that says
# "object" everywhere would score 1.00. What numbers mean only you know, so you name them. On the command line: `--classes membrane cell`.
#
# **Predict first.** The net sees both classes in every tile. Which of the two will have the higher IoU, and by how much?

# %% tags=["timing"]
both = data.load(named, size, classes=("membrane", "cell"), tiles=True, progress=False)
print("masks", tuple(both.train.masks.shape), both.train.classes)
assert (both.train.masks.sum(1) == 1).all()  # here every pixel is one of the two
torch.manual_seed(SEED)
two = NestedUNet(classes=2, widths=widths, wiring="unet++", deep_supervision=True)
*_, row = fit(two, both, epochs=epochs, recipe=recipe, setting=setting)
print(f"val IoU, the mean of both: {row['val_iou']:.3f}")
for name, scores in evaluate(two, both.val, setting=setting)["classes"].items():
    print(f"{name:9} IoU {scores['iou_pooled']:.3f}")

# %%
part = large[:, :128, :128]
found = predict(two, part, setting=setting).numpy() > 0.5
figure, (axis,) = show.canvas(height=3.0)
axis.imshow(apply.overlaid(part.permute(1, 2, 0).numpy(), found, both.val.classes))
axis.set(xticks=[], yticks=[])
show.display(
    figure, alt="Tissue: orange over the membranes, blue over the cells; their names below."
)

# %% [markdown]
# One net, the same pixels, nearly the same mistakes: a border that is off by one pixel costs a cell of hundreds of pixels little,
# and a line of three pixels much. That is why we did not trust the high IoU. A score belongs to what it scores.
#
# The same goes for **channels**. Microscopes often store two to five, one for each dye. A folder of such tifs is loaded with
# its channels, and a net takes as many, `in_channels=2`. To look at them is another matter: the course shows two channels in green and
# magenta.
#
# ## And without a notebook?
#
# All of it is one command each. We save the net with what it was trained on, and ask the command line for the same scores.

# %%
facts = {"data": "tissue", "size": size, "tiles": True, "seed": SEED}
save_model(net, work / "model.pt", **facts)


def command(line):
    """Run `python -m course_lib LINE` in the lesson's folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "course_lib", *line.split()],
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# %% tags=["nbval-check-output"]
told = json.loads(command("evaluate --model model.pt --data tissue --instances"))["metrics"]
for name in ("iou_pooled", "ap50", "ap75"):
    expect(f"{name}, command line minus lesson", told[name] - score[name], 0, tol=1e-6)

# %%
Image.fromarray(drawn).save(work / "large.png")
print(command("predict --model model.pt large.png --out found --instances").strip())
print(*sorted(path.name for path in (work / "found").iterdir()), sep="\n")
counts, nuclei = (
    (work / "found" / name).read_text().splitlines() for name in ("counts.csv", "nuclei.csv")
)
print(*counts, *nuclei[:3], "...", sep="\n")
by_default = separate(predict(net, large, setting=setting)[0].numpy())  # at scale 1
assert counts[1].split(",")[1] == str(by_default.max()) and len(nuclei) == 1 + by_default.max()

# %% [markdown]
# The columns say nuclei, whatever your objects are. To give the net to a program without PyTorch there is **ONNX**. The
# file is written only after onnxruntime has computed the same from it, to 0.0001 of a probability, and a model card goes
# beside it: what it was trained on, how good it was, where its limits are.

# %%
try:
    path = export_onnx(net, work / "model.onnx", facts=facts)
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.1f} MB for {measure.parameters(net):,} parameters"
    )
except UserError as problem:  # the packages of the extra `export` are not here
    print(problem)
card = model_card(net, facts, {"val": evaluate(net, splits.val), "test": score})
print(card.partition("## The ONNX file")[0].strip())

# %%
shutil.rmtree(work)  # to repeat a step after this, run the lesson from the top
results.record(
    cells_found_after_resizing=survived[64],
    iou_pooled=score["iou_pooled"],
    ap50=score["ap50"],
    seam_without_overlap=at_the_cuts[0],
    seam_with_overlap=at_the_cuts[size // 4],
)

# %% [markdown]
# ## What we found
#
# - Examine the folder first. A program mends names, sizes and colours; what a mask means stays with a person.
# - Resize a mask and look what is left, before any training. Lines of few pixels do not survive, and tiles keep them. (A net
#   trained on resized images was not compared here.)
# - Tiles that overlap by a quarter leave no visible seam. A blended tile still knows less than the whole image.
# - Counting is another task than painting pixels: a high IoU can stand beside an AP far below it, and the counter has a
#   scale of its own to choose.
#
# ## One honest limit
#
# This tissue is drawn, its masks are perfect, and training and test images come from one program. Your images are none of
# that: masks of two people differ, and the next microscope is another one. The only score that tells about your images is
# measured on images of yours that nothing was chosen on.
#
# ## The next question
#
# It is yours. Take a folder of your own, at least three images with masks, and start with
#
#     python -m course_lib masks FOLDER --size 96
#
# Back at [lesson 00](00_start_here.ipynb) the net found nuclei in a minute, and we asked what it is made of. Now you have
# built every part of it, measured which parts earn their cost, and know how to ask the same of the next paper.
