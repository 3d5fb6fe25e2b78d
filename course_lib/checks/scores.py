"""Lessons 00 and 01: a mask, its mistakes, and its scores: IoU, Dice, and the IoU of a whole data set."""

from collections.abc import Callable
from math import isfinite, prod

import torch
from torch import Tensor

from course_lib.checks.machinery import AnyOf, as_check, as_number, ask, told
from course_lib.metrics import count, dice, iou

TOLERANCE = 2e-6  # float32 may round; a smoothing constant of 1e-5 shows on a single missed pixel
BY_AGREEMENT = "both masks are empty: nothing is wrong, so the score is 1 by agreement"
SMOOTHED = "instead of 0: a smoothing constant belongs in a loss, not in a score; treat two empty masks by themselves"
BELOW = "instead of 1: something was added below the fraction"
BELOW_ZERO = "uint8 cannot go below zero, 0 - 1 is 255 there: compare instead of subtracting"
SCORES = {"IoU": iou, "Dice": dice, "pooled IoU": iou}
Score = Callable[[Tensor, Tensor], float]
Mistakes = dict[str, float | Tensor | AnyOf]


@as_check
def check_to_mask(fn: Callable[[Tensor], Tensor]) -> None:
    """`fn(logits) -> mask`: (N, 1, H, W) floats to bool, True where the probability is above one half."""
    logits = torch.tensor([-4.0, -0.3, 0.0, 0.05, 0.4, 0.6, 5.0, -1.0]).reshape(2, 1, 2, 2)
    mask = ask(fn, logits, changed="the logits themselves were changed: use sigmoid(), not sigmoid_()")
    assert mask.shape == logits.shape, f"the shape changed from {tuple(logits.shape)} to {tuple(mask.shape)}"
    assert mask.dtype == torch.bool, f"a mask answers yes or no, so its type is bool, not {mask.dtype}: compare with >"
    none, over_half = torch.zeros_like(mask), logits > 0.5
    mistakes = {
        "everything became background: an argmax over one channel is always 0": none,
        "everything became nucleus: perhaps a softmax, which over one channel is always 1? Take a sigmoid": ~none,
        "nucleus and background are swapped: True means nucleus": AnyOf([logits < 0, logits <= 0]),
        "a probability of exactly one half is not above it: > instead of >=": logits >= 0,
        "the threshold 0.5 belongs to probabilities, but these are logits: put them through a sigmoid first": over_half,
    }
    told(mask, logits > 0, mistakes, f"logits {logits.flatten().tolist()} became {mask.int().flatten().tolist()}")


@as_check
def check_count_mistakes(fn: Callable[[Tensor, Tensor], tuple[int, int]]) -> None:
    """`fn(predicted, true) -> (missed, invented)`: pixels, from masks of {0, 1} of type uint8 or bool."""
    true = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)
    predicted = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)  # misses 3, invents 1
    mistakes = {
        "missed and invented are swapped: a missed pixel is nucleus in `true` and background in `predicted`": (1, 3),
        "a difference of areas lets mistakes cancel each other: compare pixel by pixel": AnyOf([(2, -2), (2, 0)]),
        "both numbers count every wrong pixel: keep the two kinds apart": (4, 4),
    }
    for kind, masks in {"uint8": (predicted, true), "bool": (predicted.bool(), true.bool())}.items():
        answer = ask(fn, *masks, returns=object, what="(missed, invented)")
        assert isinstance(answer, tuple | list) and len(answer) == 2, "two numbers are wanted: (missed, invented)"
        missed, invented = (as_number(value, "each is one number: sum over all pixels") for value in answer)
        assert max(missed, invented) < 100, BELOW_ZERO
        assert missed == int(missed) and invented == int(invented), "shares came out: count pixels, do not average"
        shown = f"3 pixels are missed and 1 is invented, but ({missed:g}, {invented:g}) came out"
        told((missed, invented), (3, 1), mistakes, f"{kind} masks give wrong numbers: {shown}")


@as_check
def check_iou(fn: Score) -> None:
    """`fn(predicted, true) -> float`: intersection over union of two masks of {0, 1}, 1 where both are empty."""
    _check_one_pair(fn, "IoU")


@as_check
def check_dice(fn: Score) -> None:
    """`fn(predicted, true) -> float`: 2 tp / (2 tp + fp + fn) of two masks of {0, 1}, 1 where both are empty."""
    _check_one_pair(fn, "Dice")


@as_check
def check_pooled_iou(fn: Score) -> None:
    """`fn(predicted, true) -> float`: the IoU of all pixels of all images together, masks (N, 1, H, W)."""
    # So uneven that every known mistake gives a number of its own.
    areas = ((9, 3, 2), (2, 1, 4), (0, 0, 0), (0, 0, 4), (0, 5, 0), (3, 3, 1))
    p, t = (torch.stack(masks) for masks in zip(*(_pair(*image, (1, 4, 6)) for image in areas), strict=True))
    many = torch.rand(2, 37, 1, 1, 1) * 0.9 > torch.rand(2, 37, 1, 5, 8)
    many[1] |= many[0] & (torch.rand(37, 1, 5, 8) > 0.3)
    _compare(fn, "pooled IoU", (p, t), "uint8 masks")
    _compare(fn, "pooled IoU", (p.bool(), t.bool()), "bool masks")
    _compare(fn, "pooled IoU", many.byte(), "37 images of uneven size of nuclei")
    _compare(fn, "pooled IoU", (many[0].flip(0), many[1].flip(0).byte()), "37 bool predictions and uint8 truths")
    _compare(fn, "pooled IoU", (p[:1], t[:1]), "a single image")
    _check_extremes(fn, "pooled IoU", (4, 1, 8, 12))


def _check_one_pair(fn: Score, name: str) -> None:
    p, t = _pair(5, 2, 4, (4, 7))
    _compare(fn, name, (p, t), "uint8 masks")
    _compare(fn, name, (p.bool(), t.bool()), "bool masks")
    _compare(fn, name, (p.bool().flatten(), t.flatten()), "a bool prediction and a uint8 truth of shape (28,)")
    _compare(fn, name, (p[None, None], t[None, None]), "masks of shape (1, 1, 4, 7)")
    _check_extremes(fn, name, (16, 24))


def _compare(fn: Score, name: str, masks: tuple[Tensor, Tensor], kind: str) -> None:
    """Accept the right score of these masks; else say which mistake gives what came out."""
    value, right = _number(fn, *masks, kind), _score(name, *masks)
    tp, fp, missed = (int(pixels) for pixels in count(*(mask[None] for mask in masks)))
    mistakes = _wrong_ratios(name.removeprefix("pooled "), tp, fp, missed, masks[0].numel())
    shown = f"{tp} pixels are found, {fp} invented, {missed} missed: the {name} is {right:.6g}"
    if name == "pooled IoU":
        mistakes, shown = _not_pooled(*masks) | mistakes, f"in all images together {shown}"
    mistakes = {f"{value:.4f} came out for {kind}. {sentence}": wrong for sentence, wrong in mistakes.items()}
    told(value, right, mistakes, f"{shown}, but {value:.6g} came out for {kind}", tol=TOLERANCE)


def _check_extremes(fn: Score, name: str, shape: tuple[int, ...]) -> None:
    """What happens with many pixels, at 0 and at 1, and where there is nothing to divide by."""
    for areas, what, words in (
        ((300, 20, 30), "300 common pixels", "right for small masks, but {} give {:.4f}: uint8 ends at 255"),
        ((prod(shape), 0, 0), "two masks full of nucleus", "{} agree and must score 1, but {:.4f} came out"),
        ((0, 3, 5), "two masks that share no pixel", "{} must score 0, but {:.4f} came out"),
        ((0, 0, 5), "an empty prediction of 5 true pixels", "{} must score 0, but {:.4f} came out"),
        ((0, 3, 0), "a prediction of 3 pixels where the truth is empty", "{} must score 0, but {:.4f} came out"),
        ((0, 0, 1), "one true pixel, missed,", "{} scores {:.2g} " + SMOOTHED),
        ((1, 0, 0), "a perfect mask of one pixel", "{} scores {:.6g} " + BELOW),
        ((0, 0, 0), "two empty masks", BY_AGREEMENT + ", but {1:g} came out"),
    ):
        masks = _pair(*areas, shape)
        score, tol = _number(fn, *masks, what), TOLERANCE if sum(areas) < 2 else 0.01
        told(score, _score(name, *masks), {}, words.format(what, score), tol=tol)


def _wrong_ratios(name: str, tp: int, fp: int, fn: int, every: int) -> Mistakes:
    """What other fractions of the numbers of pixels give, of `every` pixel."""
    union, areas, tn, weight = tp + fp + fn, 2 * tp + fp + fn, every - tp - fp - fn, 2 if name == "Dice" else 1
    part, whole, background = weight * tp, weight * tp + fp + fn, weight * tn / (weight * tn + fp + fn)
    right, wrapped = part / whole, (fp + 255 * fn, 255 * fp + fn)
    return {
        "That is Dice: IoU divides by the union, in which each pixel counts once": 2 * tp / areas,
        "That is IoU: Dice divides by the sum of the two areas": tp / union,
        "The denominator adds the two areas, so common pixels count twice. For Dice the factor 2 above the fraction is "
        "missing": tp / areas,
        "The denominator is the union. The 2 belongs to Dice, which adds the two areas. (Between bool masks + means "
        "`or`: count before you add)": 2 * tp / union,
        "The denominator holds wrong pixels alone: the union holds the common ones too": tp / (fp + fn),
        "That is the precision, tp / (tp + fp): missed pixels cost nothing there": tp / (tp + fp),
        "That is the recall, tp / (tp + fn): invented pixels cost nothing there": tp / (tp + fn),
        "That is the accuracy: right background pixels count, and an empty prediction scores well": (tp + tn) / every,
        "Only the areas are compared, not where they lie": AnyOf([(tp + fn) / (tp + fp), (tp + fp) / (tp + fn)]),
        "That is one minus the score, a loss: 1 must be perfect": 1 - right,
        "Those are percent: a share between 0 and 1 is wanted": 100 * right,
        "The fraction is upside down": 1 / right,
        "The denominator holds every pixel of the image, background too": AnyOf([tp / every, 2 * tp / every]),
        "That is a number of pixels: divide it": tp,
        "A fraction was cut off to a whole number: divide with /, not //": 0.0,
        BELOW_ZERO: AnyOf(n * tp / (n * tp + wrong) for n in (1, 2) for wrong in wrapped),
        "The score was rounded: return all digits and round when you print": AnyOf(round(right, n) for n in (2, 3, 4)),
        f"That is the {name} of the background: nuclei are the pixels with 1": background,
        f"That is the mean of the {name} of nuclei and that of background: nuclei alone": (right + background) / 2,
        f"One true pixel, missed, scores 0.5 {SMOOTHED}": (part + 1) / (whole + 1),
        f"A perfect mask of one pixel scores {weight / (weight + 1):.6g} {BELOW}": part / (whole + 1),
    }


def _not_pooled(p: Tensor, t: Tensor) -> Mistakes:
    """What other ways to put images together give."""
    n, counts, rows = len(t), count(p, t), count(p.flatten(0, 2), t.flatten(0, 2))
    (tp, fp, fn), each, either, place = counts, iou(counts), sum(counts), torch.arange(n)
    broadcast, laid = (
        AnyOf([_score("IoU", p, t[:1]), _score("IoU", p, t[:, 0]), _score("IoU", p[:1], t)]),
        _score("IoU", p.amax(0), t.amax(0)),
    )
    mean = "That is the mean over images, in which a small image weighs as much as a full one"
    mistakes: Mistakes = {
        f"{mean}: sum the pixels of all images first, divide once": each.mean(),
        f"{mean}, without the empty ones: sum first, divide once": each[either > 0].mean(),
        f"{mean}, with 0 for two empty masks: sum first": (each * (either > 0)).mean(),
        "That is the median over images: sum the pixels of all images first": each.median(),
        "That is a mean over rows of pixels: sum over all axes": iou(rows).mean(),
        "Broadcasting compares images with the truth of others: both masks must have the shape (N, 1, H, W)": broadcast,
        "The images were laid on top of each other: a pixel of one image has nothing to do with that of another": laid,
        f"One true pixel, missed, scores {n / (n + 1):.2g} {SMOOTHED}": (tp + 1).sum() / (either + 1).sum(),
    }
    for size in range(2, n):
        scores = torch.tensor([_score("IoU", *batch) for batch in zip(p.split(size), t.split(size), strict=True)])
        shares = torch.tensor([len(batch) / n for batch in p.split(size)])
        sentence = f"That is a mean over batches of {size}, which depends on size and order: sum first, divide once"
        mistakes[sentence] = AnyOf([scores.mean(), scores @ shares])
    kept = {
        "Images whose truth is empty were left out, and with them what was invented there": tp + fn > 0,
        "Images with an empty prediction were left out, and with them what was missed": tp + fp > 0,
        "The last image was left out": place < n - 1,
        "Only the first image was counted": place == 0,
    }
    for rest in range(2, n - 1):
        kept[f"The last {rest} images were left out, perhaps an incomplete batch"] = place < n - rest
    return mistakes | {
        f"{what}: every image counts": _score("IoU", p[images], t[images]) for what, images in kept.items()
    }


def _score(name: str, p: Tensor, t: Tensor) -> float:
    """Of all pixels together."""
    return SCORES[name](count(*(mask[None] for mask in torch.broadcast_tensors(p, t)))).item()


def _pair(tp: int, fp: int, fn: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two uint8 masks with so many found, invented and missed pixels, strewn over the shape."""
    place = torch.randperm(prod(shape)).reshape(shape)
    missed = (place >= tp + fp) & (place < tp + fp + fn)
    return (place < tp + fp).byte(), ((place < tp) | missed).byte()


def _number(fn: Score, predicted: Tensor, true: Tensor, kind: str) -> float:
    """What the answer returns for two masks, as a plain number."""
    stops = {
        "division by zero": f": a division by zero; where {BY_AGREEMENT}",
        "two bool tensors": " cannot be subtracted: with bool the questions are `and` (&), `or` (|) and `not` (~)",
        "bitwise": " were turned into floats, which know no & and |: keep them bool, or make them bool first",
    }
    changed = f"{kind}: the masks themselves were changed; work on new tensors (& instead of &=)"
    try:
        value = ask(fn, predicted, true, returns=object, what="the score", changed=changed)
    except (ArithmeticError, RuntimeError) as problem:
        for words, sentence in stops.items():
            if words in str(problem):
                raise AssertionError(kind + sentence) from None
        raise
    assert not getattr(value, "requires_grad", False), "the score carries a gradient: return a plain number"
    came = f"a {type(value).__name__}" + (f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else "")
    number = as_number(value, f"{kind}: one number is wanted, {came} came out: sum over all pixels")
    zeros = "; is there a division of 0 by 0, such as a mean over images that have no nuclei?"
    zeros = f", from 0 / 0; where {BY_AGREEMENT}" if "empty" in kind else zeros
    assert isfinite(number), f"{kind}: {number} came out{zeros}"
    return number
