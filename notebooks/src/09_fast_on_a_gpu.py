# %% [markdown] needs="06, 08" minutes=1
# # Where does the time go?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})
#
# One H100 multiplies 212 trillion times a second and adds as often, if it is fed large matrices. (That is with products
# rounded to TF32, as PyTorch's fp32 convolutions do on such a card.) A plain training step of UNet++ gets 4 % of it. In
# this lesson you find out where the rest goes. You draw a step on a time line, hold every layer against two limits of
# the machine, and then pull one lever at a time. At the end a net is trained in seconds that took the popular recipe
# minutes.
#
# You will be able to
#
# - read the clock on a device that runs ahead of Python, and read a profile,
# - say of a layer whether arithmetic, memory or the calls themselves hold it up,
# - choose number format, memory layout, folding and recording, and check that the answer stays the same.
#
# Everything here runs on a CPU as well, and tells the story of the machine it runs on. What needs a GPU was measured on
# the card that is named (batches of 64 and 256 on a second one of its kind).
# Two cores need half a minute; one H100 needs 28 s for the larger sizes of the GPU, beside twelve other lessons.

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
import inspect
import statistics
import time
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

# %%
from course_lib import data, measure, results, show
from course_lib.checks import check_fold, check_median_seconds, expect
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.lesson import presets
from course_lib.losses import bce_dice, deep_supervision
from course_lib.predict import Setting, as_input, folded, torch_device
from course_lib.predict.recorded import Recorded
from course_lib.results import race
from course_lib.train import augment

# %% tags=["parameters"]
PRESET = "auto"  # or "smoke", "laptop", "gpu"
SEED = 0

# %% tags=["timing"]
sizes = presets.sizes(PRESET)
device = torch_device("auto")
print(f"preset {presets.resolve(PRESET)}: {sizes}")
print("device:", torch.cuda.get_device_name() if device.type == "cuda" else "CPU")

# %% [markdown]
# ## What is there to do?
#
# A 3x3 convolution of $c_{in}$ to $c_{out}$ channels multiplies $9\,c_{in}\,c_{out}$ times at every pixel. All else, the
# norms, the ReLUs, the doubling, is a few operations a value. So we count multiplications (MACs), row by row.
#
# **Predict first.** Row 0 has 32 channels and every pixel, row 4 has 512 channels and a 256th of them. Which row of
# UNet++ works most?

# %% tags=["nbval-check-output"]
published = NestedUNet(deep_supervision=True)
rows, weights = Counter(), Counter()
for (i, _), cost in measure.node_costs(published).items():
    rows[i] += cost["macs"]
    weights[i] += cost["parameters"]
for i in rows:
    print(
        f"row {i}: {rows[i] / rows.total():4.0%} of the work, {weights[i] / weights.total():4.0%} of the weights"
    )
assert rows[0] > rows.total() / 3 and weights[4] > weights.total() / 3

# %%
figure, (axis,) = show.canvas(height=2.6)
for shift, (name, counted), colour in zip(
    (-0.2, 0.2), (("work", rows), ("weights", weights)), (show.BLUE, show.ORANGE)
):
    share = [100 * counted[i] / counted.total() for i in rows]
    axis.bar([i + shift for i in rows], share, width=0.4, color=colour, label=name)
axis.set(xticks=list(rows), xlabel="row of the grid", ylabel="share, %")
axis.legend(frameon=False)
show.display(figure, alt="Work falls from row 0 to row 4, weights rise from row 0 to row 4.")

# %% [markdown]
# Row 0 has two fifths of the work and a fiftieth of the weights. That is the price of the dense skips: the last node
# of the top row reads 192 channels at full size.
#
# Backward takes about twice the work of forward, once for the gradient of the weights and once for that of the input.
# So a training step does about three times the MACs of inference, and every MAC is two floating point operations
# (FLOPs), a product and a sum.


# %%
def finish():
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# %% [markdown]
# ## How does one read the clock?
#
# A GPU works while Python runs ahead: a call returns when the work is **handed over**, not when it is done. And first
# runs are slow, because memory is fetched and kernels are chosen. So: warm up, wait, read, run, wait, read, and take
# the median, because something else on the machine will disturb some run.
#
# ### Exercise 1: the median of a run (10 minutes, medium)
#
# Write `median_seconds`. `run()` hands over the work, `finish()` waits for it, `clock()` gives the time in seconds.
# Make `warm_up` runs that do not count and `repeats` that do. The check brings a device that runs ahead.
#
# <details><summary>Hint 1</summary>Time every run by itself; a list of seconds has a median, one sum has not.
# <details><summary>Hint 2</summary>Wait twice: before the clock is read first, and before it is read again.
# <details><summary>Hint 3</summary>Run <code>warm_up + repeats</code> times, and leave out the first
# <code>warm_up</code> of the list.</details></details></details>


# %% tags=["exercise"]
def median_seconds(run, finish, clock, repeats, warm_up):
    """The median seconds of `repeats` runs, after `warm_up` runs that do not count."""
    ### BEGIN SOLUTION
    seconds = []
    for _ in range(warm_up + repeats):
        finish()
        start = clock()
        run()
        finish()
        seconds.append(clock() - start)
    return statistics.median(seconds[warm_up:])
    ### END SOLUTION


# %%
check_median_seconds(median_seconds)

# %% [markdown]
# ## How far are we from what the machine can do?
#
# A machine has two limits. It can multiply so many numbers a second, and it can fetch so many bytes a second from its
# memory. We measure both with what suits them best: a large matrix product or a convolution of many channels, whichever
# is faster, and a copy.
#
# **Predict first.** A training step of UNet++ at the preset's widths and image size: which share of the machine's FLOPs
# a second will it reach?


# %%
def seconds_of(run, repeats=5):
    return median_seconds(run, finish, time.perf_counter, repeats, 2)


torch.manual_seed(SEED)
splits = data.draw(100, sizes.size, seed=SEED)
images = as_input(splits.train.images[:16]).to(device)
masks = splits.train.masks[:16].float().to(device)
net = NestedUNet(widths=sizes.widths, deep_supervision=True)

# %% tags=["timing"]
side, count = (8192, 2**28) if device.type == "cuda" else (1024, 2**25)
torch.backends.cuda.matmul.allow_tf32 = True  # as PyTorch's convolutions do
square, values = torch.rand(side, side, device=device), torch.rand(count, device=device)
copied = torch.empty_like(values)
wide, x = nn.Conv2d(256, 256, 3).to(device), torch.rand(16, 256, 34, 34, device=device)
by_product = 2 * side**3 / seconds_of(lambda: square @ square)
with torch.inference_mode():
    by_convolution = 2 * 16 * 32**2 * 9 * 256**2 / seconds_of(lambda: wide(x))
peak = max(by_product, by_convolution)
bandwidth = 2 * 4 * count / seconds_of(lambda: copied.copy_(values))  # read and written, 4 bytes
print(f"arithmetic: {peak / 1e9:,.0f} billion FLOPs a second")
print(f"memory: {bandwidth / 1e9:,.0f} billion bytes a second")


# %%
def stepper(net, setting):
    """A function that takes one training step of `net` in `setting`."""
    model = setting.place(net.train())
    optimiser, loss_of = torch.optim.AdamW(net.parameters(), lr=1e-3), deep_supervision(bce_dice)

    def step():
        with record_function("forward"):
            loss = loss_of(setting.forward(model, images), masks)
        with record_function("backward"):
            optimiser.zero_grad()
            loss.backward()
        with record_function("optimiser"):
            optimiser.step()

    return step


# %% tags=["timing"]
step = stepper(net, Setting())
taken = seconds_of(step)
flops = 3 * 2 * len(images) * measure.macs(net, tuple(images.shape[2:]))
print(
    f"{flops / 1e9:.1f} billion FLOPs in {1000 * taken:.0f} ms: {flops / taken / peak:.0%} of the peak"
)

# %% [markdown]
# The line above is of this machine. Whatever it says, some of the time goes elsewhere, and the next picture shows where.
#
# ## What does a step look like?
#
# The profiler writes down every operation, when it began and how long it took. (On a GPU an operation is one or more
# **kernels**, programs that are started one by one. They are not the windows of weights of lesson 02.) We sort them by
# what they are there for and draw them on a time line, one row for each kind.
#
# **Predict first.** Convolutions are nearly all of the FLOPs. Which share of the time do they take?

# %% tags=["timing"]
cuda = device.type == "cuda"
with profile(activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])) as seen:
    step()
    finish()
phases = ("forward", "backward", "optimiser")
wanted = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
events = [event for event in seen.events() if event.device_type == wanted]
begin = min(event.time_range.start for event in events)
starts = {e.name: (e.time_range.start - begin) / 1000 for e in events if e.name in phases}
print(f"{len(events):,} events in one step")

# %%
timeline, spent = {}, Counter()
for event in events:
    at = (event.time_range.start - begin) / 1000
    own = (event.device_time_total if cuda else event.self_cpu_time_total) / 1000
    if own > (0 if cuda else 0.005) and not event.name.startswith((*phases, "Optimizer")):
        last = not cuda and at >= starts["optimiser"]
        kind = "optimiser" if last else measure.kind_of(event.name)
        timeline.setdefault(kind, []).append([at, own])
        spent[kind] += own


# %%
ORDER = ["else", "optimiser", "up-sampling", "norm", "convolution"]


def draw_timeline(axis, spans, starts):
    """One row a kind, one bar an operation; `spans` is kind -> [[begin, length]] in milliseconds."""
    for row, kind in enumerate(ORDER):
        colour = show.BLUE if kind == "convolution" else show.ORANGE
        axis.broken_barh(spans.get(kind, []), (row - 0.4, 0.8), color=colour)
    for name, begin in starts.items():
        axis.axvline(begin, color=show.GREY, linewidth=0.8)
        axis.text(begin, 4.7, name, color=show.GREY, fontsize=9)
    axis.set(yticks=range(5), yticklabels=ORDER, xlabel="milliseconds", ylim=(-0.6, 5.4))


# %% tags=["timing"]
figure, (axis,) = show.canvas(height=2.6)
draw_timeline(axis, timeline, starts)
show.display(figure, alt="Time line of one training step on this machine, one row a kind.")
for kind, milliseconds in spent.most_common():
    print(f"{milliseconds / spent.total():5.1%}  {kind}")

# %% [markdown]
# Read it from left to right: forward, then backward, then the optimiser. On a CPU one operation begins where the last one
# ends, and convolutions fill most of the line. Everything in orange computes little. It moves every value through memory
# once more, and a lever that helps arithmetic alone leaves it as it is.
#
# On a GPU the same picture would show gaps. There Python hands over one operation after the other, and where it is slower
# than the device, the device waits.

# %%
day = results.load_results("gpu_day")


def on_gpu(stage):
    """The rows of one stage of the day on a rented GPU; none where it was not measured."""
    return [row for row in day["rows"] if row["stage"] == stage]


print("Measured on", day["measured"]["device"], day["measured"]["date"])
cases = list(dict.fromkeys(row["case"] for row in on_gpu("timeline")))
for case in cases:
    figure, (axis,) = show.canvas(height=2.4)
    spans = {row["kernel"]: row["when"] for row in on_gpu("timeline") if row["case"] == case}
    draw_timeline(axis, spans, {case: 0})
    show.display(figure, alt=f"Time line of one step on a GPU: {case}.")
if not cases:
    print("The time line of a GPU is not measured yet.")

# %% [markdown]
# What was measured there is the sum. The kernels of a step are all that the GPU does; what they do not fill is waiting.

# %% tags=["nbval-check-output"]
whole = {row["case"]: row["ms"] for row in on_gpu("step")}
for row in on_gpu("profile"):
    if row["kernel"] == "all":
        share = row["ms"] / whole[row["case"]]
        print(
            f"{row['case']:27} step {whole[row['case']]:4.1f} ms, kernels {row['ms']:4.1f}: {share:.0%} busy"
        )
    elif "upsample" in row["kernel"]:
        way = "backward" if "backward" in row["kernel"] else "forward"
        print(f"{'':27} {row['ms']:.1f} ms of it in {row['calls']:.0f} up-samplings {way}")

# %% [markdown]
# In plain fp32 the H100 is busy nearly all the time, and more than a third of it goes into up-sampling. In half precision
# with channels last its kernels need 8.9 ms, and the step still takes 25.4: the GPU waits for Python. These are two
# different troubles, and each has a lever of its own.
#
# ## What holds a layer up?
#
# Divide a layer's FLOPs by the bytes it must move. If the quotient is small, the memory is the limit, however many
# units there are to multiply. If it is large, arithmetic is. The border lies where both take equally long, at
#
# $$\frac{\text{FLOPs a second}}{\text{bytes a second}}.$$
#
# Drawn with logarithms this is a roof: it rises with the bandwidth and then runs level (Williams, Waterman and
# Patterson, 2009). We time every convolution of the net and see how near it comes.
#
# **Predict first.** Whose convolutions are nearer to the level part, those of row 0 or those of the deepest row?

# %%
costs = measure.convolution_costs(net, tuple(images.shape))
layers = [name for name in costs if name.startswith("conv")]  # conv0_0.conv1 ..., without heads


@torch.inference_mode()
def layer_seconds(name):
    conv, row = net.get_submodule(name), int(name[4])
    shape = len(images), conv.in_channels, *(side >> row for side in images.shape[2:])
    x = torch.rand(shape, device=device)
    return seconds_of(lambda: conv(x))


# %%
def draw_roof(axis, peak, bandwidth, points):
    """`points` is row of the grid -> [(FLOPs a byte, FLOPs a second)]."""
    reach = np.geomspace(1, 2000, 100)
    axis.plot(reach, np.minimum(peak, bandwidth * reach) / 1e9, color=show.BLACK)
    for row, marker in zip(points, "osD^v"):
        colour = show.BLUE if row < 2 else show.ORANGE
        x, y = np.array(points[row]).T
        axis.plot(x, y / 1e9, marker, color=colour, markersize=5, label=f"row {row}")
    axis.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="billion FLOPs a second")
    axis.legend(frameon=False, fontsize=8)


# %% tags=["timing"]
points = {}
for name in layers:
    flop, moved = costs[name]
    points.setdefault(int(name[4]), []).append((flop / moved, flop / layer_seconds(name)))
figure, (axis,) = show.canvas(height=3.4)
draw_roof(axis, peak, bandwidth, points)
show.display(figure, alt="Every convolution under the roof of this machine.")

# %% [markdown]
# From row 0 downwards the points move to the right. With more channels every value that is fetched is used more often.
# (Up to a point: in row 4 of the published net the weights are most of the bytes.) On a CPU nearly everything is to the
# right of the corner, so arithmetic is the limit, and what falls short of it does so for other reasons. A point above
# the slope has its numbers in the processor's cache, and one above the level part multiplies better than what we took
# for the peak.
#
# A GPU multiplies so fast that its corner lies much further to the right. On which side do the published net's
# convolutions fall, with 16 images of 96x96 in half precision? That is arithmetic, and no GPU is needed for it.

# %% tags=["nbval-check-output"]
tops = {row["case"].split()[-1]: row for row in on_gpu("peaks")}
gpu_peak, gpu_bandwidth = tops["bf16"]["FLOP/s"], tops["copy"]["bytes/s"]
border = gpu_peak / gpu_bandwidth
gpu_costs = measure.convolution_costs(published, (16, 3, 96, 96), number=2)
print(f"border of the H100: {border:.0f} FLOPs a byte")
for i in range(5):
    reach = [a / b for name, (a, b) in gpu_costs.items() if name.startswith(f"conv{i}_")]
    print(
        f"row {i}: {min(reach):4.0f} to {max(reach):4.0f}, {sum(r < border for r in reach)} of {len(reach)} below it"
    )
below = [b * border > a for name, (a, b) in gpu_costs.items() if name.startswith("conv0_")]
assert all(below)

# %% tags=["nbval-check-output"]
least = sum(
    measure.roofline_seconds(*each, peak=gpu_peak, bandwidth=gpu_bandwidth)
    for each in gpu_costs.values()
)
print(f"all convolutions of a step, at the roof: {3000 * least:.2f} ms")

# %%
gpu_points = {}
for row in on_gpu("convolution"):
    if row["case"].startswith("conv"):
        reached = row["of peak"] * gpu_peak
        gpu_points.setdefault(int(row["case"][4]), []).append((row["FLOP a byte"], reached))
if gpu_points:
    figure, (axis,) = show.canvas(height=3.4)
    draw_roof(axis, gpu_peak, gpu_bandwidth, gpu_points)
    show.display(figure, alt="Every convolution under the roof of the GPU.")
else:
    print("The single convolutions of a GPU are not measured yet.")

# %% [markdown]
# All of row 0 lies below the border, and row 0 is two fifths of the work. So, layer by layer through the memory, a training
# step of this net cannot reach the rate of a large matrix product. Still, its convolutions could come down to 0.7 ms, and
# the step takes 25.
#
# There are four ways to be slow. Here is one measured example of each:

# %% tags=["nbval-check-output"]
ms = {row["case"]: row["ms"] for stage in ("peaks", "upsampling", "batch") for row in on_gpu(stage)}
best = "bf16, channels last, fused, search"
print(f"arithmetic: a matrix product of 8192 x 8192 in bf16, {ms['matrix product bf16']:.2f} ms")
print(f"memory: a copy of 1 GiB, {ms['copy']:.2f} ms")
print(f"calls: a step of one image, {ms[best + ', batch 1']:.0f} ms by hand, ", end="")
print(f"{ms[best + ', recorded, batch 1']:.1f} ms recorded")
print(
    f"too few threads: 512 channels from 6 to 12 pixels, {ms['512 channels, 6 to 12, NCHW']:.2f} ms, ",
    end="",
)
print(f"with channels last {ms['512 channels, 6 to 12, channels last']:.2f} ms")

# %% [markdown]
# The last one is ours. In the usual memory layout PyTorch's up-sampling kernel starts one thread for each pixel, and that
# thread walks through all images and channels. Twelve by twelve pixels keep 144 threads busy, on a card with places for
# more than two hundred thousand. With channels last the channels are shared out among threads.
#
# ## One lever at a time
#
# - **Channels last** stores the channels of a pixel side by side, which suits the kernels.
# - **Half precision** (bf16, or fp16 on older GPUs) halves the bytes, and can double the rate at which units multiply.
#   Weights, the norms' statistics and losses stay in fp32. PyTorch casts what a convolution reads on the fly, which is
#   called **autocast**.
#
# All settings take turns, so that a busy moment hits each of them. The cell after it checks that no probability of the
# untrained net moves by more than 0.02.

# %%
low = Setting.fast().precision
settings = {
    "plain fp32": Setting(),
    "channels last": Setting(channels_last=True),
    low if low != "fp32" else "fp32 again": Setting(precision=low),
    f"channels last, {low}": Setting(precision=low, channels_last=True),
}


def fresh():
    torch.manual_seed(SEED)
    return NestedUNet(widths=sizes.widths, deep_supervision=True)


# %% tags=["timing"]
steps = {name: stepper(fresh(), setting) for name, setting in settings.items()}
turns = {name: [] for name in steps}
for _ in range(7):
    for name, run in steps.items():
        finish()
        start = time.perf_counter()
        run()
        finish()
        turns[name].append(time.perf_counter() - start)
plain = statistics.median(turns["plain fp32"][2:])
for name, seconds in turns.items():
    middle = statistics.median(seconds[2:])
    print(f"{name:20} {1000 * middle:6.0f} ms a step, {plain / middle:.2f} times as fast")


# %%
@torch.inference_mode()
def probability_map(net, setting):
    model = setting.place(net.eval())
    return setting.forward(model, images)[-1].float().sigmoid()


exact = probability_map(fresh(), settings["plain fp32"])
for name, setting in settings.items():
    moved = (probability_map(fresh(), setting) - exact).abs().max().item()
    expect(f"{name}: largest change of a probability", moved, 0, tol=0.02)

# %% [markdown]
# And at the published widths, with 16 images of 96x96. Three more levers come in: **fused** is the optimiser in one kernel,
# **search** lets cuDNN, NVIDIA's library of convolutions, try its algorithms first, and **recorded** hands all kernels of
# a step over in one call. That last one has a section of its own below.

# %%
speed = results.load_results("speed")


def on_cpu(stage):
    return [row for row in speed["rows"] if row["stage"] == stage]


figure, axes = show.canvas(2, width=8, height=2.8)
for axis, measured, title in zip(axes, (on_cpu("step"), on_gpu("step")), ("two cores", "one H100")):
    bars = {row["case"]: row["ms"] for row in measured if not row["case"].startswith("fp16")}
    bars = {
        name: ms for name, ms in bars.items() if "search" not in name or name.startswith("channels")
    }
    colours = [show.ORANGE if "recorded" in name else show.BLUE for name in bars]
    axis.barh(list(bars), list(bars.values()), color=colours)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set(xlabel="ms a step", title=title)
show.display(figure, alt="Milliseconds of a training step with one lever after the other.")

# %% tags=["nbval-check-output"]
for stored, steps_of in ((speed, on_cpu("step")), (day, on_gpu("step"))):
    print("Measured on", stored["measured"]["device"], stored["measured"]["date"])
    print(results.table(steps_of, ["case", "ms", "min", "max", "times as fast", "of peak"]))

# %% [markdown]
# `ms` is the median of five blocks, `min` and `max` are the fastest and the slowest of them. `of peak` is held against what
# a matrix product reaches in the same number format, so the same milliseconds are a smaller share in bf16. (In fp32 it is
# above 1 where this processor's convolutions beat its matrix product.)
#
# On the CPU every lever helps, and half precision most: together 2.6 times. On the H100, by hand, channels last helps a
# little: 21.7 ms. Half precision adds casts, which are more calls, and gains nothing. Recorded, both pay: 9.2 ms, 2.9
# times as fast as plain fp32. In plain fp32 recording gains next to nothing, for there nobody waited.
#
# And the score? The race at the end has two entrants that differ in number format and layout alone, with twenty seeds
# each.
#
# ## What are the classic mistakes?
#
# - **No wait before the clock.** On the device in exercise 1's check a run takes 1.001 s, and handing it over 0.001 s.
#   Without the wait only that is timed.
# - **`.item()` in the loop** makes Python wait for the device after every step, so nothing runs ahead any more. Keep the
#   losses as tensors and read them once an epoch, as `fit` does. On a CPU nothing runs ahead, and it costs nothing.
# - **A copy to the device in the loop** waits as well, where it comes from ordinary memory. `fit` draws the random changes
#   of an epoch first and takes them to the GPU together.
# - **A loader that starves the GPU.** Changing images one by one in Python costs time for every image; whole batches of
#   tensors cost it once. That one can be measured here.

# %% tags=["timing"]
batch, truth = splits.train.images[:16].float() / 255, splits.train.masks[:16].float()
drawn = augment.draw(16, torch.Generator().manual_seed(SEED))


def one_by_one():
    for n in range(16):
        one = slice(n, n + 1)
        augment.apply(batch[one], truth[one], drawn.part(one))


single, whole = seconds_of(one_by_one), seconds_of(lambda: augment.apply(batch, truth, drawn))
print(f"16 images one by one {1000 * single:.1f} ms, as a batch {1000 * whole:.1f} ms")

# %%
parts = [
    augment.apply(batch[n : n + 1], truth[n : n + 1], drawn.part(slice(n, n + 1)))[0]
    for n in range(16)
]
together = augment.apply(batch, truth, drawn)[0]
expect("one by one minus batch", (torch.cat(parts) - together).abs().max().item(), 0, tol=1e-5)

# %% [markdown]
# ## What is left for inference?
#
# In evaluation batch norm is a fixed scale and shift of each channel. The convolution before it can carry both:
#
# $$w' = w\,\frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}}, \qquad
# b' = (b - \mu)\,\frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} + \beta.$$
#
# ### Exercise 2: fold the norm away (8 minutes, medium)
#
# Write `fold`, from a convolution and the norm behind it to the weight and the bias of one convolution that does both.
#
# <details><summary>Hint 1</summary>$\gamma$ is <code>norm.weight</code>, $\beta$ is <code>norm.bias</code>, $\mu$ and
# $\sigma^2$ are <code>norm.running_mean</code> and <code>norm.running_var</code>.
# <details><summary>Hint 2</summary>The scale has one value for each output channel, the first index of the weight:
# <code>scale[:, None, None, None]</code>.</details></details>


# %% tags=["exercise"]
def fold(conv, norm):
    """Conv2d and BatchNorm2d behind it -> (weight, bias) of one convolution, as in evaluation."""
    ### BEGIN SOLUTION
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = conv.weight * scale[:, None, None, None]
    return weight, (conv.bias - norm.running_mean) * scale + norm.bias
    ### END SOLUTION


# %%
check_fold(fold)

# %% tags=["nbval-check-output"]
block = NestedUNet(widths=(8, 16)).node(0, 0).eval()
weight, bias = fold(block.conv1, block.bn1)
x = torch.rand(1, 3, 16, 16)
both = block.bn1(block.conv1(x))
one = nn.functional.conv2d(x, weight, bias, padding=1)
print("convolution and norm, folded into one:", torch.allclose(both, one, atol=1e-5))
norms = sum(isinstance(module, nn.BatchNorm2d) for module in published.modules())
left = sum(isinstance(module, nn.BatchNorm2d) for module in folded(published).modules())
print(f"norms in UNet++: {norms}, after folding: {left}")
assert torch.allclose(both, one, atol=1e-5) and left == 0

# %%
with torch.inference_mode():
    before, after = net.eval()(images)[-1], folded(net)(images)[-1]
expect("largest change of a logit by folding", (before - after).abs().max().item(), 0, tol=0.01)

# %% [markdown]
# And the last lever is lesson 08's: cut what the chosen head does not need. Does time fall as the work does?

# %% tags=["timing"]
fast, whole_net = settings[f"channels last, {low}"], fresh().eval()
times, shares = {}, {}
for level in range(1, whole_net.depth + 1):
    small = fast.place(folded(whole_net.prune(level)))
    with torch.inference_mode():
        times[level] = seconds_of(lambda: fast.forward(small, images))  # noqa: B023
    shares[level] = measure.macs(whole_net.prune(level)) / measure.macs(whole_net)
for level, seconds in times.items():
    print(
        f"level {level}: {shares[level]:4.0%} of the work, {seconds / times[whole_net.depth]:4.0%} of the time"
    )

# %% [markdown]
# A small level can take more than its share, because a call has a cost of its own, however little it does. It can take
# less where its numbers fit into the cache. The benchmark has the published widths, on the CPU and on the H100. There
# "norms folded" with bf16 also means that the folded copy was cast once, when it was made. By autocast alone every weight
# is cast again in every call.

# %% tags=["nbval-check-output"]
columns = ["case", "ms", "times as fast"]
for measured in (on_cpu("inference"), on_gpu("inference")):
    print(results.table([row for row in measured if row["batch"] == 16], columns))
for measured in (on_cpu("pruning"), on_gpu("pruning")):
    for row in measured:
        part, limit = (row[key] / measured[0][key] for key in ("ms", "roofline ms"))
        print(
            f"{row['case']}: {row['ms']:6.2f} ms, {part:4.0%} of the time, {limit:4.0%} at the roof"
        )

# %% [markdown]
# On the CPU cutting pays for itself: level 1 does 12 % of the work in 13 % of the time. On the H100 it takes 20 % of the
# time. Its layers lie in rows 0 and 1, where memory is mostly the limit, and even at the roof its convolutions would need
# 16 % of the whole net's time. Channels last alone makes inference 4 times as fast there; with half precision, folded
# norms and a recording it is 6.6 times.
#
# ## How does one hand over a thousand kernels at once?
#
# The H100's trouble with small batches is Python, and the lever is to ask Python only once. PyTorch can **record** what a
# step starts, as a CUDA graph, and start all of it again in one call. The course has that in a class of one screen, and
# `Setting(record=True)` uses it, in training and in inference. This is its heart:

# %% tags=["nbval-check-output"]
print(inspect.getsource(Recorded.__call__))

# %% [markdown]
# Line by line:
#
# 1. The first three calls are real steps, done by hand (on a stream of their own: the default one cannot be recorded).
#    In them cuDNN chooses its kernels, and the optimiser makes its moments. What is made during a recording would be made
#    anew in every replay.
# 2. A graph knows **places**, no numbers. So the inputs get places of their own, and every later batch is copied there.
# 3. Inside `torch.cuda.graph` the step runs through Python once more. No kernel starts; each is written down.
# 4. `replay` starts them all. Weights, moments and the loss change where they lie, and the answer is found where the
#    recording left it.
#
# From this follow the rules. Shapes stay as they are. Nothing inside may look at a number, so no `.item()` and no `if` on
# a loss. And the learning rate, which changes in every step, has to be a tensor on the GPU: a plain number would be
# written down once and stay.

# %% tags=["nbval-check-output"]
proofs = [row for row in on_gpu("proof") if row["deterministic"]]
print(results.table(proofs, ["case", "equal"]))
batched = [row for row in on_gpu("batch") if row["case"].startswith("bf16")]
print(
    results.table(
        sorted(batched, key=lambda row: row["batch"]),
        ["case", "ms", "ms an image", "of peak", "of roofline"],
    )
)

# %% tags=["timing"]
try:
    recorded = Setting(record=True, fold=True, channels_last=True)
    model = recorded.for_inference(fresh())
    with torch.inference_mode():
        seconds = seconds_of(lambda: recorded.forward(model, images))
    print(f"inference here, recorded: {1000 * seconds:.2f} ms")
except UserError as refusal:
    print(refusal)

# %% [markdown]
# Twenty recorded steps leave the weights of twenty steps by hand, bit for bit, where kernels add in a fixed order. And
# recording pays where calls are what one waits for: with one image a step is 8 times as fast, with 16 three times, and
# with 256 it makes no difference. There the kernels themselves take the time, and the step is at a tenth of its roof.
# (`of roofline` counts the convolutions alone. What the norms, the sums of gradients and the casts take at that size was
# not profiled.) Kernels that do several operations at once are what torch.compile makes; on this card that was not
# measured yet.
#
# On a CPU there is nothing to record: a call returns when its work is done, and Python never runs ahead.
#
# ## The race
#
# All of this serves one number: how long until the net is as good as the usual recipe makes it? The recipe is the one
# of the most widely used PyTorch code for UNet++: 100 epochs of SGD at a learning rate that starts at 0.001 and falls
# along a cosine, batches of 16, plain fp32, every image changed by itself in a loader process. The mean score of its
# last epoch on our validation part is **the mark**. The rules are those of a speedrun:
#
# - Net, images, split and score are fixed. Recipe and epochs of an entrant were chosen with other seeds than it runs with.
# - It is scored after its *last* epoch, with twenty seeds. It passes if its mean is above the mark and Welch's test finds
#   p < 0.01, one-sided.
# - The clock starts with the data on the device and leaves the validation out, for all alike.
#
# **Predict first.** Each entrant keeps what the one before it changed. Which change will gain most?

# %%
raced, clock = results.load_results("race"), results.load_results("race_clock")
print(raced["about"])
print(clock["about"])
print("Measured on", clock["measured"]["device"], clock["measured"]["date"])
for row in raced["rows"]:
    if row["seed"] == 0:
        print(f"{row['entrant']:15} {row['changed']}")

# %% tags=["nbval-check-output"]
lines = race.standings(raced["rows"], clock["rows"])
short = [line | {"p": "-" if line["p"] is None else f"{line['p']:.0e}"} for line in lines]
print(results.table(short))
assert all(line["passed"] == "yes" for line in lines[1:])
assert [line["entrant"] for line in lines if not line["record"]] == ["all heads"]

# %%
figure, (axis,) = show.canvas(height=3.6)
above = axis.get_xaxis_transform()
for line in lines:
    own = race.scores_of(raced["rows"], line["entrant"])
    axis.plot([line["seconds"]] * len(own), own, ".", color=show.GREY, markersize=4)
    colour, height = (show.BLUE, 1.01) if line["record"] else (show.ORANGE, 0.04)
    axis.plot(line["seconds"], line["IoU"], "D", color=colour)
    axis.text(line["seconds"], height, line["entrant"], rotation=40, fontsize=8, transform=above)
axis.axhline(lines[0]["IoU"], color=show.BLACK, linewidth=0.8)
axis.set(xscale="log", xlabel="seconds", ylabel="validation IoU, pooled")
show.display(figure, alt="Validation IoU after the last epoch against seconds, each seed a dot.")

# %% [markdown]
# All seven entrants pass, and six of them are faster than all before. From the slowest to the fastest:
#
# - **The optimiser with its schedule.** AdamW with one cycle (the learning rate rises, then falls to zero) needs 15 epochs
#   instead of 100 and is 8 times as fast. Optimiser, learning rate and schedule changed together, so which of them does
#   it is open.
# - **Number format and memory layout** make it 12 times. The score stays: 0.766 before, 0.767 after.
# - **What is shown.** All entrants so far see images whose brightness and contrast was changed at random, channel by
#   channel. Most of these images are dark, and such a change turns parts of many of them black. Left as they are, six
#   epochs reach 0.781, and it is 31 times as fast.
# - **Small images first.** At half the side a step has a quarter of the pixels, and a net learns the coarse things there as
#   well: 47 times. Smaller batches, and so more steps per epoch, make it 72 times. Four epochs of which none is at full
#   size make it 93 times, and that is the record. (Two of its twenty seeds end below the mark; the rule is about the mean.)
# - **All heads** end higher with the same epochs, at 0.788, and cost a little more time. So they hold no record. Whether
#   they would pass with fewer epochs was not tried.
#
# Be careful with the third point. Those random changes were this course's and not the recipe's own (it has some of another
# kind). So the gain tells about our changes. Run once without them, with one seed, the popular recipe itself ends as high
# as the record does, and only *small first* and *all heads* have a higher mean. A fair mark would lie there. The race found
# a mistake of ours: since then brightness is changed in proportion to what an image shows, and dark images stay what they
# are. All other lessons train so. The race itself was not run again yet; its rows are those of the old changes.
#
# And the mark is low. The popular recipe ends at 0.745 here, and Otsu's threshold, which learns nothing, has 0.715 on the
# same images. Epochs and rates were chosen on this validation part, if with other seeds. So these are times to a mark, and
# no scores to report.

# %% tags=["nbval-check-output"]
try:
    there = results.load_results("race_gpu"), results.load_results("race_clock_gpu")
    print(results.table(race.standings(*(stored["rows"] for stored in there))))
except UserError:
    print("The race on a GPU under these rules: not measured yet.")

# %% [markdown]
# ## And several GPUs?
#
# Each takes a part of every batch, all average their gradients, and all take the same step. PyTorch has this as
# `DistributedDataParallel`, and `train` uses it when torchrun starts several processes:
#
#     torchrun --nproc_per_node=2 -m course_lib train --data synthetic --out runs/two
#
# What scales is the work in a step; what does not is the exchange, which costs the same for a small batch as for a large
# one. That the gradients of two halves are those of the whole batch, with the norms left out, is a test of the course. Two
# processes can be tried on two cores, one thread each:

# %%
print(results.table(on_cpu("processes"), ["case", "ms", "times as fast"]))

# %% [markdown]
# The times are of one epoch at widths 8 to 128, and two processes are 1.72 times as fast as one. But they are not quite
# the same training. Batch norm takes its mean and variance over the images of its own process, 8 of the 16. On GPUs
# `nn.SyncBatchNorm` takes them over all, which costs one more exchange for each of the 30 layers, forward and backward.
# PyTorch has no such layer for the CPU. On several GPUs it was not measured yet.

# %%
results.record(
    share_of_peak=flops / taken / peak,
    times_as_fast=plain / statistics.median(turns[f"channels last, {low}"][2:]),
    time_over_work_of_level_1=times[1] / times[whole_net.depth] / shares[1],
)

# %% [markdown]
# ## What we found
#
# - A step is slow for one of four reasons: arithmetic, memory, calls, or kernels that leave the device idle. The profile
#   says which, and each has a lever of its own.
# - On a CPU number format and layout help at once. On a GPU with small batches half precision helps a training step once it
#   is recorded.
# - Folding changes a logit by less than a hundredth. Cutting changes none of the head that stays, and recording none where
#   kernels add in a fixed order.
# - The optimiser, its schedule and what is shown to the net gain far more than any way to compute.
#
# ## One honest limit
#
# The times are of one processor and one kind of GPU. Another card, Colab's T4 say, shifts the balance between arithmetic,
# memory and calls. On the H100 the goals were a step 6 times as fast and 20 % of the peak at 256 images; 2.9 times and
# 9 % were reached.
#
# ## The next question
#
# Fast is not better. [Lesson 10](10_the_verdict.ipynb) asks: **is it just more parameters?**
