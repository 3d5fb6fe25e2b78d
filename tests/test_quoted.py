"""Numbers in the text of lessons that come from measured tables: each is computed again from its table."""

import json
import os
import re
from functools import cache
from itertools import pairwise
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from course_lib.data import load
from course_lib.metrics import scores
from course_lib.predict.baseline import otsu_masks
from course_lib.results import load_results
from course_lib.results.compare import bootstrap, holm, paired_interval
from course_lib.results.race import standings
from tools.checkout import ROOT


@cache
def lesson(number):
    return json.loads(next((ROOT / "notebooks").glob(f"{number}_*.ipynb")).read_text(encoding="utf-8"))


def text_of(number):
    """All markdown of a lesson, or the README, in one line."""
    if number == "README":
        return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    cells = [cell for cell in lesson(number)["cells"] if cell["cell_type"] == "markdown"]
    return " ".join(" ".join("".join(cell["source"]).split()).replace(" - ", " ") for cell in cells)


def column(name, key, **wanted):
    """The values of one column over the seeds of one kind of run."""
    rows = load_results(name)["rows"]
    return [row[key] for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def gain(name, a, b, key="iou_pooled"):
    """Mean difference of two kinds of runs, seed by seed."""
    return paired_interval(column(name, key, **a), column(name, key, **b))


def depth(kind, a, b):
    return gain("depth", {"kind": kind, "net": a}, {"kind": kind, "net": b}).mean


HEADS = {"wiring": "unet++", "deep_supervision": True}


def level(n):
    return column("supervision", f"test_iou_L{n}", **HEADS)


def alone(n):
    return column("pruning", f"test_iou_L{n}", depth=n)


def verdict(a, b, key="iou_of_images", table="verdict"):
    return bootstrap(np.array(column(table, key, net=a)), np.array(column(table, "iou_of_images", net=b)))[0]


def wide(a, b):
    """The difference at the papers' widths."""
    return verdict(a, b, table="verdict_gpu").mean


def cell(name, stage, case, key="ms"):
    """One number of a benchmark: of the first row of this case."""
    return column(name, key, stage=stage, case=case)[0]


def cpu(stage, case, key="times as fast"):
    return cell("speed", stage, case, key)


def day(stage, case, key="ms"):
    """A number of the day on a rented GPU; of a profile, that of all kernels."""
    return cell("gpu_day", stage, case, key)


def upsampling():
    """Milliseconds of the largest kernel of a plain step."""
    return next(row["ms"] for row in load_results("gpu_day")["rows"] if "upsample" in row.get("kernel", ""))


def share(name, level, key):
    """Of the whole net's, of one cut to this level."""
    return 100 * cell(name, "pruning", f"L{level}", key) / cell(name, "pruning", "L4", key)


def recorded_gain(batch):
    by_hand = f"{BEST}, search"
    return day("batch", f"{by_hand}, batch {batch}") / day("batch", f"{by_hand}, recorded, batch {batch}")


def at_the_roof():
    """Milliseconds of the convolutions of a training step of 16 images in half precision."""
    return day("batch", f"{BEST}, search, batch 16", "roofline ms")


def race(name, key="times as fast"):
    lines = standings(load_results("race")["rows"], load_results("race_clock")["rows"])
    return next(line[key] for line in lines if line["entrant"] == name)


def depths_of_the_paper():
    """p of each deeper net minus the one before it, in the journal paper's table, and the same corrected for nine."""
    table = {
        "EM": [(86.83, 0.43), (87.59, 0.34), (88.16, 0.29), (88.30, 0.24)],
        "Cell": [(88.58, 1.68), (89.39, 1.64), (90.14, 1.57), (88.73, 1.64)],
        "Brain tumor": [(86.90, 2.25), (88.71, 1.45), (89.62, 1.41), (89.21, 1.55)],
    }
    steps = [(name, *pair) for name, found in table.items() for pair in pairwise(found)]
    p = [stats.ttest_ind_from_stats(*a, 20, *b, 20, equal_var=False).pvalue for _, a, b in steps]
    return p[5], holm(p)[5]


BEST = "bf16, channels last, fused"


def relative(name, key="iou_pooled"):
    return gain("relatives", {"net": name}, {"net": "unet++"}, key).mean


def work_of(name):
    return column("relatives", "macs", net=name)[0] / column("relatives", "macs", net="unet++")[0]


def drawn(kind, net, versus="unet"):
    return gain("wirings", {"kind": kind, "net": net}, {"kind": kind, "net": versus}).mean


WORK, WEIGHTS = "unet, work of unet++", "unet, parameters of unet++"

# Lesson, what it says with {} for the number, and the number.
QUOTED = [
    ("00", "one H100 needs {:.0f} s for", lambda: column("lessons_gpu", "seconds", lesson="00_start_here")[0]),
    ("01", "one H100 needs {:.0f} s for", lambda: column("lessons_gpu", "seconds", lesson="01_images_and_scores")[0]),
    ("06", "one H100 needs {:.0f} s for", lambda: column("lessons_gpu", "seconds", lesson="06_nested_skips")[0]),
    ("09", "one H100 needs {:.0f} s for", lambda: column("lessons_gpu", "seconds", lesson="09_fast_on_a_gpu")[0]),
    ("05", "the second halving brings {:.3f}. We think", lambda: depth("large-blurred", "L2", "L1")),
    ("05", "of the Cell line is {:.3f} by itself", lambda: depths_of_the_paper()[0]),
    ("05", "by itself and {:.3f} among nine", lambda: depths_of_the_paper()[1]),
    ("05", "costs what L4 costs and stays {:.2f} below it", lambda: depth("large-blurred", "L4", "L1 wide")),
    ("05", "{:.3f} for the second halving, nothing after it", lambda: depth("small-sharp", "L2", "L1")),
    ("06", "on both looks, by {:.3f}", lambda: drawn("small-sharp", "unet++")),
    ("06", "and {:.3f}. But", lambda: drawn("large-blurred", "unet++")),
    ("06", "as much work gains {:.3f}", lambda: drawn("small-sharp", WORK)),
    ("06", "and {:.3f}, and UNet++ minus", lambda: drawn("large-blurred", WORK)),
    ("06", "minus that one is {:.3f} on both", lambda: abs(drawn("small-sharp", "unet++", WORK))),
    ("06", "minus that one is {:.3f} on both", lambda: abs(drawn("large-blurred", "unet++", WORK))),
    ("08", "alone is {:.3f} better", lambda: fmean(alone(1)) - fmean(level(1))),
    ("08", "gives up {:.3f}, a difference that is clear and small", lambda: fmean(level(4)) - fmean(level(2))),
    ("08", "Level 1 gives up {:.3f}.", lambda: fmean(level(4)) - fmean(level(1))),
    ("09", "multiplies {:.0f} trillion times", lambda: day("peaks", "matrix product fp32", "FLOP/s") / 2e12),
    ("09", "gets {:.0f} % of it.", lambda: 100 * day("step", "plain fp32", "of peak")),
    ("09", "its kernels need {:.1f} ms", lambda: day("profile", BEST)),
    ("09", "the step still takes {:.1f}:", lambda: day("step", BEST)),
    ("09", "could come down to {:.1f} ms", at_the_roof),
    ("09", "most: together {:.1f} times.", lambda: cpu("step", BEST)),
    ("09", "little: {:.1f} ms.", lambda: day("step", "channels last, fused")),
    ("09", "both pay: {:.1f} ms", lambda: day("step", f"{BEST}, recorded")),
    (
        "09",
        "ms, {:.1f} times as fast as plain fp32. In",
        lambda: day("step", "plain fp32") / day("step", f"{BEST}, recorded"),
    ),
    ("09", "work in {:.0f} % of the time. On", lambda: share("speed", 1, "ms")),
    ("09", "On the H100 it takes {:.0f} % of the time", lambda: share("gpu_day", 1, "ms")),
    ("09", "would need {:.0f} % of the whole net", lambda: share("gpu_day", 1, "roofline ms")),
    (
        "09",
        "Channels last alone makes inference {:.0f} times",
        lambda: day("inference", "channels last, batch 16", "times as fast"),
    ),
    (
        "09",
        "and a recording it is {:.1f} times",
        lambda: max(column("gpu_day", "times as fast", stage="inference", batch=16)),
    ),
    ("09", "one image a step is {:.0f} times as fast", lambda: recorded_gain(1)),
    ("09", "of 100 and is {:.0f} times as fast", lambda: race("AdamW")),
    ("09", "layout** make it {:.0f} times.", lambda: race("fast setting")),
    ("09", "The score stays: {:.3f} before", lambda: race("AdamW", "IoU")),
    ("09", "before, {:.3f} after", lambda: race("fast setting", "IoU")),
    ("09", "six epochs reach {:.3f}", lambda: race("colours kept", "IoU")),
    ("09", "and it is {:.0f} times as fast", lambda: race("colours kept")),
    ("09", "as well: {:.0f} times.", lambda: race("small first")),
    ("09", "per epoch, make it {:.0f} times.", lambda: race("small batches")),
    ("09", "full size make it {:.0f} times", lambda: race("smaller still")),
    ("09", "the same epochs, at {:.3f}", lambda: race("all heads", "IoU")),
    ("09", "popular recipe ends at {:.3f} here", lambda: race("popular recipe", "IoU")),
    ("README", "The record, {:.0f} times", lambda: race("smaller still")),
    ("09", "two processes are {:.2f} times as fast as one", lambda: cpu("processes", "2 processes")),
    ("09", "at 256 images; {:.1f} times and", lambda: day("step", "plain fp32") / day("step", f"{BEST}, recorded")),
    ("README", "widths takes {:.1f} ms in plain fp32", lambda: day("step", "plain fp32")),
    ("README", "and {:.1f} ms in half precision", lambda: day("step", f"{BEST}, recorded")),
    ("README", "Inference takes {:.1f} ms", lambda: day("inference", "plain fp32, batch 16")),
    ("README", "and {:.1f} in the best way", lambda: min(column("gpu_day", "ms", stage="inference", batch=16))),
    ("README", "CPU the step takes {:.1f} s", lambda: cpu("step", "plain fp32", "ms") / 1000),
    ("README", "s and {:.1f}. Lesson 09", lambda: cpu("step", BEST, "ms") / 1000),
    (
        "09",
        "times and {:.0f} % were reached",
        lambda: 100 * day("batch", f"{BEST}, search, recorded, batch 256", "of peak"),
    ),
    ("10", "ahead of the plain U-Net by {:.3f} and", lambda: wide("unet-e, all heads", "unet")),
    ("10", "with more work than its own by {:.3f},", lambda: wide("unet-e, all heads", WORK)),
    ("10", "times the weights is {:.3f} below the plain one", lambda: -wide(WORK, "unet")),
    ("10", "**UNet++** is {:.3f} ahead of U-Net without supervision", lambda: wide("unet++", "unet")),
    ("10", "and {:.3f} with it,", lambda: wide("unet++, all heads", "unet")),
    ("10", "it is {:.3f} lower;", lambda: wide("unet-e, all heads", "unet++, all heads")),
    ("10", "a lead of {:.3f}. In the first", lambda: wide("unet-e, all heads", "unet")),
    ("10", "experiment it was {:.3f}, which", lambda: verdict("unet-e, all heads", "unet").mean),
    ("README", "no dense skips, by {:.3f} and", lambda: wide("unet-e, all heads", "unet")),
    ("README", "and {:.3f}. UNet++ is not.", lambda: wide("unet-e, all heads", WORK)),
    ("10", "U-Net^e with all heads, by {:.3f}.", lambda: wide("unet-e, all heads", "unet")),
    ("10", "**UNet++ against the plain U-Net**: {:+.3f}", lambda: verdict("unet++", "unet").mean),
    ("10", "**UNet++ against the U-Net that does its work**: {:+.3f}", lambda: verdict("unet++", WORK).mean),
    ("10", "tells another story ({:+.3f}, two cells", lambda: gain("verdict", {"net": WORK}, {"net": "unet"}).mean),
    ("10", "A difference of up to {:.3f} is not excluded", lambda: -verdict("unet++", WORK).low),
    ("10", "UNet++ is {:.3f} ahead of the U-Net with its weights", lambda: verdict("unet++", WEIGHTS).mean),
    ("10", "{:.3f} behind the one that does its work", lambda: -verdict("unet++", WORK).mean),
    ("11", "the U-Net of 2015, by {:.3f}.", lambda: -relative("original-unet")),
    ("11", "UNet 3+ with one head, by {:.3f},", lambda: relative("unet3+")),
    ("11", "at {:.1f} times the work of UNet++", lambda: work_of("unet3+")),
    ("11", "pooled lead is gone: {:.3f} below one head", lambda: relative("unet3+") - relative("unet3+, all heads")),
    ("11", "Per image it is {:.3f} and not clear", lambda: relative("unet3+", "iou_per_image")),
    ("11", "0.014, and {:.3f} per image", lambda: relative("dense-unet++", "iou_per_image")),
    ("11", "are ahead by more, {:.3f},", lambda: relative("dense-unet++")),
    ("10", "(its mean is {:.3f} lower)", lambda: -verdict("unet++, all heads", "unet", "iou_of_images_L2").mean),
]


@pytest.mark.parametrize(("number", "sentence", "value"), QUOTED)
def test_numbers_from_measured_tables(number, sentence, value):
    assert sentence.format(value()) in text_of(number)


@pytest.mark.real
@pytest.mark.skipif("COURSE_BBBC038_ARCHIVE" not in os.environ, reason="COURSE_BBBC038_ARCHIVE is not set")
def test_otsu_beside_the_mark_of_the_race():
    val = load("bbbc038", 64, progress=False).val
    assert f"has {scores(otsu_masks(val), val.masks)['iou_pooled']:.3f} on the same images" in text_of("09")


DEFINED = ("0.05", "0.001", "0.715")  # the level of a test, a learning rate, and Otsu's score, which has a test above

# Sections that read a table of data/results; elsewhere a decimal number is a definition, a citation or the run's own.
READ_FROM_TABLES = {
    "05": "Mind the scales",
    "06": "Here UNet++ is clear",
    "08": "No difference is clear of zero",
    "09": "All seven entrants pass",
    "10": "Read the `p` at the end of each line first",
}


@pytest.mark.parametrize("number", READ_FROM_TABLES)
def test_no_number_of_such_a_section_is_left_out(number):
    said = [sentence.format(value()) for n, sentence, value in QUOTED if n == number]
    texts = (" ".join("".join(cell["source"]).split()) for cell in lesson(number)["cells"])
    section = next(text for text in texts if READ_FROM_TABLES[number] in text)
    for quoted in re.findall(r"[+-]?\d\.\d{2,3}", section):
        assert any(quoted in sentence for sentence in said) or quoted in DEFINED, f"{quoted} is not in QUOTED"


def printed(number):
    """Every decimal number in the stored outputs of a lesson, without its sign."""
    outputs = [output for cell in lesson(number)["cells"] for output in cell.get("outputs", [])]
    text = " ".join("".join(output.get("text", "")) for output in outputs)
    return [float(decimal) for decimal in re.findall(r"\d+\.\d+", text)]


@pytest.mark.parametrize("number", [path.name[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))])
def test_numbers_of_the_stored_run_stand_in_its_outputs(number):
    """What a text says of "the stored run" a cell has printed, to the digits of the text, whatever its sign."""
    texts = ["".join(cell["source"]) for cell in lesson(number)["cells"] if cell["cell_type"] == "markdown"]
    for paragraph in "\n\n".join(texts).split("\n\n"):
        if "stored run" not in paragraph:
            continue
        outputs = [value for n in (number, *re.findall(r"lesson (\d\d)", paragraph)) for value in printed(n)]
        for quoted in re.findall(r"\d+\.\d+", paragraph):
            digits = len(quoted.partition(".")[2])
            close = (abs(round(value, digits) - float(quoted)) < 1e-9 for value in outputs)
            assert any(close), f"{quoted}: {paragraph}"
