# %% [markdown] needs="06, 07; the interval of 05" minutes=3
# # What may be cut, and why only afterwards?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# After lesson 07 a UNet++ holds one whole answer for every depth. The first needs three nodes of fifteen. This lesson
# cuts the rest away, shows why that changes nothing, measures what it saves, and asks why one should not start with
# the small net in the first place.
#
# You will be able to
#
# - cut a trained net to any level, and prove that its answers stay the same bit for bit,
# - say what cutting saves: weights, work, time and memory are four different numbers,
# - choose the level on validation data, and compare it with a small net trained alone.
#
# Two cores need a little more than two minutes; on a GPU it was not measured yet.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
from statistics import fmean

import torch

from course_lib import data, measure, results, show
from course_lib.checks import check_choose_level, check_prune, expect
from course_lib.grid import NestedUNet
from course_lib.lesson import kept, presets
from course_lib.losses import bce_dice
from course_lib.predict import as_input
from course_lib.predict.setting import Setting
from course_lib.results.compare import paired_interval
from course_lib.show import views, widgets
from course_lib.train import Recipe, evaluate, fit

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
EPOCHS = 0  # 0: as many as the preset says; else 2 or more
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
epochs, depth = EPOCHS or sizes.epochs, len(sizes.widths) - 1
print(f"preset {presets.resolve(PRESET)}: {sizes}")

# %%
splits = data.draw(sizes.images, sizes.size, seed=SEED)
val = splits.val

# %% [markdown]
# ## What does a head need?
#
# Head $j$ reads $x^{0,j}$. That reads its own row on the left, and $x^{1,j-1}$ below; and so on. Follow the arrows
# back, and no node with $i + j$ above the head's level is ever met:
#
# $$x^{i,j} \text{ reads } x^{i,k},\ k < j \text{ (sum smaller)} \quad\text{and}\quad x^{i+1,j-1} \text{ (same sum)}.$$
#
# So level $\ell$ of the net is the triangle $i + j \le \ell$. The journal paper calls it UNet++ L$^\ell$.
#
# **Predict first.** Level 4 has 15 nodes and 9.2 million weights. How many nodes has level 1, and what share of the weights?

# %% tags=["nbval-check-output"]
published = NestedUNet(deep_supervision=True)
cut = [published.prune(level) for level in (1, 2, 3, 4)]
weights, work = [measure.parameters(net) for net in cut], [measure.macs(net) for net in cut]
rows = [
    {
        "level": net.depth,
        "nodes": len(net.nodes),
        "parameters": w,
        "% of them": f"{100 * w / weights[-1]:.1f}",
    }
    | {"MACs 96x96": m, "% of these": f"{100 * m / work[-1]:.1f}"}
    for net, w, m in zip(cut, weights, work)
]
print(results.table(rows))
assert weights[2] < weights[3] / 4 and work[2] > work[3] / 2

# %% [markdown]
# Level 3 has a quarter of the weights and more than half of the work. Lower rows hold the weights, upper rows the
# pixels. A sentence such as "75 % smaller" needs to say smaller in what.
#
# ### Exercise 1: cut (10 minutes, medium)
#
# Write `prune`. The shallower net is a `NestedUNet` with the first `level + 1` widths and otherwise the same config;
# its weights have the same names as in the large one.
#
# <details><summary>Hint 1: the config</summary><code>net.config</code> is a dict with everything that
# <code>NestedUNet(**config)</code> needs. Make a new dict from it with other "widths"; the old one stays as it is.
# <details><summary>Hint 2: the weights</summary><code>net.state_dict()</code> has a name for every weight. The small
# net's <code>state_dict()</code> says which of them it wants.
# <details><summary>Hint 3: loading</summary><code>load_state_dict</code> copies, and complains about a name too many or too
# few.</details></details></details>


# %% tags=["exercise"]
def prune(net, level):
    """The shallower grid of depth `level` with the weights of `net`, which stays as it is."""
    ### BEGIN SOLUTION
    small = NestedUNet(**{**net.config, "widths": net.config["widths"][: level + 1]})
    weights = net.state_dict()
    small.load_state_dict({name: weights[name] for name in small.state_dict()})
    return small.train(net.training)
    ### END SOLUTION


# %%
check_prune(prune)

# %% [markdown]
# ## Does it change anything?
#
# Train one net with all heads, cut it at every level, and compare the heads that stay with what they said in the whole
# net. Not about equal: equal. (`kept(...)` names the file in which a training is kept on Colab. Elsewhere it is None,
# unless `COURSE_RUNS` names a folder.)


# %%
def train(level, seed):
    """A UNet++ of depth `level`, one loss on each of its heads."""
    torch.manual_seed(seed)
    net = NestedUNet(widths=sizes.widths[: level + 1], deep_supervision=True)
    recipe, file = Recipe(seed=seed), kept("08", level, seed, epochs, sizes.size)
    rows = list(
        fit(net, splits, epochs=epochs, recipe=recipe, setting=Setting.fast(), checkpoint=file)
    )
    print(f"level {level}, seed {seed}: validation IoU {rows[-1]['val_iou']:.3f}")
    # Fast training stores channels last. In another layout the same sums are rounded differently.
    return net.cpu().to(memory_format=torch.contiguous_format).eval()


seeds = range(SEED, SEED + sizes.seeds)
whole = {seed: train(depth, seed) for seed in seeds}

# %% tags=["nbval-check-output"]
net, images = whole[SEED], as_input(val.images[:4])
with torch.no_grad():
    before = net(images)
    for level in range(1, depth + 1):
        after = prune(net, level)(images)
        assert len(after) == level and all(torch.equal(a, b) for a, b in zip(after, before))
print("every head of every level: the same logits, bit for bit")

# %% [markdown]
# ## Why not before training?
#
# Forward, nothing flows from the cut part into what stays. Backward it does: $x^{0,0}$ feeds every head, so the loss of
# head 4 sends a gradient to it, and the weights of the first nodes are shaped by questions that only the deep part
# asks. That is easily seen at the very first step.

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
whole_at_birth = NestedUNet(widths=(4, 5, 6, 7, 8), deep_supervision=True)
small_at_birth = prune(whole_at_birth, 1)
batch, truth = as_input(splits.train.images[:8]), splits.train.masks[:8].float()
for net in (whole_at_birth, small_at_birth):
    torch.stack([bce_dice(logits, truth) for logits in net(batch)]).mean().backward()
ours, theirs = (n.node(0, 0).conv1.weight for n in (small_at_birth, whole_at_birth))
print("same weights: ", torch.equal(ours, theirs))
print("same gradient:", torch.equal(ours.grad, theirs.grad))
assert torch.equal(ours, theirs) and not torch.equal(ours.grad, theirs.grad)

# %% [markdown]
# So the two trainings part at the first step. The journal paper calls the one **embedded** training, inside the whole
# net and then cut, and the other **isolated**. It reports embedded as the better one, most of all for level 1 (read
# from its figure, isolated against embedded: 88.9 and 90.4 on Cell, 71.4 and 76.2 on Liver, IoU in %, without
# deviations).
#
# **Predict first.** We do the same with a smaller net and fewer images. Level 1, alone or embedded: which scores
# better, and by how much?

# %%
alone = {(level, seed): train(level, seed) for seed in seeds for level in range(1, depth)}
scores = {"embedded, then cut": {}, "isolated": {}}
for level in range(1, depth + 1):
    name = f"level {level}"
    scores["embedded, then cut"][name] = [
        evaluate(prune(whole[s], level), val, head=level)["iou_pooled"] for s in seeds
    ]
    if level < depth:
        scores["isolated"][name] = [
            evaluate(alone[level, s], val, head=level)["iou_pooled"] for s in seeds
        ]

# %%
figure = show.points(scores, label="pooled IoU, validation", zero=False)
show.display(figure, alt="Pooled IoU of each level, embedded and isolated, a dot a seed.")
for name, values in scores["isolated"].items():
    print(
        f"{name}: embedded - isolated {paired_interval(scores['embedded, then cut'][name], values)}"
    )

# %% [markdown]
# In the stored run level 1 trained alone is ahead by 0.009, against the paper, and its interval leaves out zero. Level 2
# is open. Two seeds on one kind of images are a poor ground for a claim. Five seeds on real nuclei, from the repository,
# at widths 8 to 128:

# %%
inside, outside = (results.load_results(name)["rows"] for name in ("supervision", "pruning"))
stored = results.load_results("pruning")
embedded, isolated = {}, {}
for row in inside:
    if row["wiring"] == "unet++" and row["deep_supervision"]:
        for level in (1, 2, 3, 4):
            embedded.setdefault(level, []).append(row[f"test_iou_L{level}"])
for row in outside:
    isolated.setdefault(row["depth"], []).append(row[f"test_iou_L{row['depth']}"])
print("Pooled IoU, test part,", stored["measured"]["device"], stored["measured"]["date"])
for level, values in isolated.items():
    print(f"level {level}: embedded {fmean(embedded[level]):.3f}, isolated {fmean(values):.3f}, "
          f"difference {paired_interval(embedded[level], values)}")  # fmt: skip
print(f"level 4: {fmean(embedded[4]):.3f}")

# %% tags=["nbval-check-output"]
clear = [n for n, v in isolated.items() if paired_interval(embedded[n], v).excludes_zero]
print("levels at which embedded and isolated differ clearly:", clear)
two_minus_four = paired_interval(embedded[2], embedded[4])
print(f"level 2 minus level 4: {two_minus_four}")
assert clear == [] and two_minus_four.mean > -0.005 and two_minus_four.high < 0

# %% [markdown]
# No difference is clear of zero, and for level 1 the mean even points the other way: alone is 0.006 better. The paper's gain
# of one and a half to five points for level 1 is not in our data. (Its images and its widths are other ones. What its
# figure shows has no deviations, so we cannot say how sure it is.) What embedding does give for certain: all levels come
# from **one** training.
#
# ## What does cutting save?
#
# Four bills: weights (the file), multiplications (the arithmetic), seconds, and the memory that feature maps take while
# the net runs. The first two were counted above. The other two are measured, at the published widths, for one image of 96x96.

# %% tags=["timing"]
image = torch.zeros(1, 3, 96, 96)
published.eval()
cost = {}
for level in (1, 2, 3, 4):
    small = published.prune(level)
    with torch.inference_mode():
        run = lambda: small(image)  # noqa: B023, E731
        cost[level] = {"time": measure.median_ms(run), "memory": measure.peak_memory(run)}
for level, row in cost.items():
    print(
        f"level {level}: {row['time']:6.1f} ms   {row['memory'] / 2**20:5.1f} MiB of feature maps at the peak"
    )

# %% [markdown]
# The paper writes that level 3 saves 32.2 % of the time and 75.6 % of the **memory footprint**. Its own parameter counts
# are 2,204,961 and 9,041,601.
#
# **Predict first.** What is 1 - 2,204,961 / 9,041,601?

# %% tags=["nbval-check-output"]
papers = 1 - 2_204_961 / 9_041_601
ours = 1 - measure.parameters(published.prune(3)) / measure.parameters(published)
print(f"parameters saved at level 3: the paper's net {papers:.1%}, ours {ours:.1%}")
memory = 1 - cost[3]["memory"] / cost[4]["memory"]
expect("share of feature-map memory saved at level 3", memory, 0.2, tol=0.02)
assert papers > 0.75 and memory < ours / 3

# %% [markdown]
# 75.6 % is the share of **parameters**: the weights on disk. Of the feature maps, level 3 still needs four fifths, because
# most of them stand in row 0, at full size. (Our forward keeps every node until the end. One that frees a node after its
# last use would need less at every level.)
#
# Everything on one figure. Left, what is left of each bill. Right, what is left of the score.


# %%
def share(values):
    return [100 * value / values[-1] for value in values]


bills = {
    "weights": share(weights),
    "multiplications": share(work),
    "time": share([row["time"] for row in cost.values()]),
    "feature maps": share([row["memory"] for row in cost.values()]),
}

# %% tags=["timing"]
figure, (left, right) = show.canvas(2)
for (name, values), (colour, dash) in zip(bills.items(), show.LINES):
    left.plot((1, 2, 3, 4), values, "o", color=colour, linestyle=dash, label=name)
left.set(xlabel="level", ylabel="% of level 4", xticks=(1, 2, 3, 4), ylim=(0, 105))
left.legend(frameon=False, fontsize=9)
for values in zip(*embedded.values()):
    right.plot((1, 2, 3, 4), values, "o-", color=show.GREY, markersize=3, linewidth=0.8)
right.plot((1, 2, 3, 4), [fmean(embedded[n]) for n in (1, 2, 3, 4)], "s-", color=show.BLUE)
right.set(xlabel="level", ylabel="pooled IoU, real nuclei", xticks=(1, 2, 3, 4))
show.display(figure, alt="Left: weights, multiplications, time and feature maps of each level in % of "
             "level 4. Right: IoU of each level on real nuclei, grey a seed, blue the mean.")  # fmt: skip

# %% [markdown]
# On these images level 2 does 30 % of the work and gives up 0.002, a difference that is clear and small. Level 1 gives up
# 0.016. The weights fall fastest, the feature maps slowest.
#
# ## Which level?
#
# Look before you choose. In a running notebook the next cell shows the mistakes of every level at any threshold, and the
# milliseconds of the net cut to it. The figure after it is one image of it in print. Orange pixels are invented, blue
# ones missed. The columns are the thresholds 0.1, 0.5 and 0.9, and the lines below give their IoU.

# %% tags=["timing"]
widgets.prediction_explorer(whole[SEED], val.images[:12], masks=val.masks[:12])

# %%
view = views.Predictions(whole[SEED], val.images[:12], val.masks[:12]).heads_and_thresholds(1)
show.display(view.figure, alt=view.alt)
print(view.text)

# %% [markdown]
# A low threshold invents, a high one misses, and that holds for every level. What a picture cannot say is which level
# to choose.
#
# Not the one that looks best on the test part: a choice is a kind of training, and what was used to choose cannot
# judge any more. The validation part decides; the test part is scored once, with the level that was chosen.
#
# ### Exercise 2: the smallest that is good enough (5 minutes, easy)
#
# Write `choose_level`: it returns the smallest level whose score is at most `tolerance` below the best. `scores` maps
# each level to its validation score.
#
# <details><summary>Hint 1</summary>First the best score. Then the levels that come close enough to it.
# <details><summary>Hint 2</summary>The smallest of several levels is their <code>min</code>.</details></details>


# %% tags=["exercise"]
def choose_level(scores, tolerance):
    """{level: validation score} -> the smallest level at most `tolerance` below the best."""
    ### BEGIN SOLUTION
    best = max(scores.values())
    return min(level for level, score in scores.items() if score >= best - tolerance)
    ### END SOLUTION


# %%
check_choose_level(choose_level)

# %%
TOLERANCE = 0.01
on_val = {
    level: evaluate(prune(whole[SEED], level), val, head=level)["iou_pooled"]
    for level in range(1, depth + 1)
}
chosen = choose_level(on_val, TOLERANCE)
final = prune(whole[SEED], chosen)
on_test = evaluate(final, splits.test, head=chosen)["iou_pooled"]
print({level: round(score, 3) for level, score in on_val.items()})
print(f"level {chosen} is chosen; on the test part it scores {on_test:.3f}")
assert max(on_val.values()) - on_val[chosen] <= TOLERANCE

# %%
results.record(
    chosen_level=chosen,
    test_iou=on_test,
    memory_saved_at_level_3=memory,
    parameters_saved_at_level_3=ours,
)

# %% [markdown]
# ## What we found
#
# - Level $\ell$ is the triangle $i + j \le \ell$. Nothing outside feeds it, so cutting leaves its logits bit for bit.
# - Backward the outside does feed it: a level trained alone is another net. Which one scores better we could not tell on real nuclei.
# - Weights, work, time and memory shrink at different rates. "75.6 % memory" is weights.
#
# ## One honest limit
#
# Times are those of one processor and one image size, in plain fp32; lesson 09 has those of a GPU. Scores are
# those of narrow nets.
#
# What is stored of real nuclei and of several seeds was measured before a mistake was mended: the random changes of light
# drowned dark images. This page's own run has the mended ones. `docs/protocol.md` says what is measured in its place.
#
# ## The next question
#
# The whole net is the slow part of this course. [Lesson 09](09_fast_on_a_gpu.ipynb) asks: **where does the time go?**
