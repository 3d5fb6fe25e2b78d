"""Lesson 01: IoU, Dice, and the IoU of a whole data set."""

from collections.abc import Callable, Iterator
from math import isfinite, isnan, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from course_lib.checks.machinery import as_check
from course_lib.metrics import Counts, count, iou

TOLERANCE = 2e-6  # float32 may round; a smoothing constant of 1e-5 shows on a single missed pixel
Score = Callable[[Tensor, Tensor], float]
Mistakes = Iterator[tuple[float, str]]


class Areas(NamedTuple):
    """Numbers of pixels of one pair of masks."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def union(self) -> int:
        return self.tp + self.fp + self.fn

    @property
    def iou(self) -> float:
        return self.tp / self.union

    @property
    def dice(self) -> float:
        return 2 * self.tp / (self.union + self.tp)


@as_check
def check_iou(fn: Score) -> None:
    """`fn(predicted, true) -> float`: intersection over union of two masks of {0, 1}, 1 where both are empty."""
    _check_one_pair(fn, "IoU", lambda areas: (areas.tp, areas.union), _not_iou)


@as_check
def check_dice(fn: Score) -> None:
    """`fn(predicted, true) -> float`: 2 tp / (2 tp + fp + fn) of two masks of {0, 1}, 1 where both are empty."""
    _check_one_pair(fn, "Dice", lambda areas: (2 * areas.tp, areas.union + areas.tp), _not_dice)


@as_check
def check_pooled_iou(fn: Score) -> None:
    """`fn(predicted, true) -> float`: the IoU of all pixels of all images together, masks (N, 1, H, W)."""
    # So uneven that every known mistake gives a number of its own.
    areas = ((9, 3, 2), (2, 1, 4), (0, 0, 0), (0, 0, 4), (0, 5, 0), (3, 3, 1))
    few = [_pair(*image, (1, 4, 6)) for image in areas]
    predicted, true = (torch.stack(masks) for masks in zip(*few, strict=True))
    for p, t, kind in (
        (predicted, true, "uint8 masks"),
        (predicted.bool(), true.bool(), "bool masks"),
        (predicted.bool(), true, "bool predictions and uint8 truth"),
    ):
        _compare_pooled(fn, p, t, kind)
    many = torch.rand(2, 37, 1, 1, 1) * 0.9 > torch.rand(2, 37, 1, 5, 8)
    many[1] |= many[0] & (torch.rand(37, 1, 5, 8) > 0.3)
    _compare_pooled(fn, many[0].byte(), many[1].byte(), "37 images of uneven size of nuclei")
    value = _number(fn, many[0].byte().flip(0), many[1].byte().flip(0), "37 images")
    assert abs(value - iou(count(*many).pooled()).item()) <= TOLERANCE, (
        "the same images in another order give another score: sum over all images first, divide once"
    )
    _compare_pooled(fn, predicted[:1], true[:1], "a single image")
    _check_extremes(fn, (3, 1, 4, 6))


def _check_one_pair(
    fn: Score, name: str, ratio: Callable[[Areas], tuple[int, int]], mistakes: Callable[[Areas], Mistakes]
) -> None:
    areas = Areas(5, 2, 4, 17)
    part, whole = ratio(areas)
    predicted, true = _pair(*areas[:3], (4, 7))
    for p, t, kind in (
        (predicted, true, "uint8 masks"),
        (predicted.bool(), true.bool(), "bool masks"),
        (predicted.bool(), true, "a bool prediction and a uint8 truth"),
        (predicted.reshape(1, 1, 4, 7), true.reshape(1, 1, 4, 7), "masks of shape (1, 1, 4, 7)"),
        (predicted.flatten(), true.flatten(), "masks of shape (28,)"),
    ):
        value = _number(fn, p, t, kind)
        if abs(value - part / whole) > TOLERANCE:
            _explain(fn, value, mistakes(areas), kind, p, part, whole)
            raise AssertionError(
                f"5 pixels are found, 2 invented, 4 missed: the {name} is {part / whole:.6g}, "
                f"but {value:.6g} came out for {kind}"
            )
    for areas in (Areas(300, 20, 30, 34), Areas(260, 100, 0, 24)):
        value, (part, whole) = _number(fn, *_pair(*areas[:3], (16, 24)), "uint8 masks"), ratio(areas)
        assert abs(value - part / whole) <= TOLERANCE, (
            f"right for small masks, but {areas.tp} common pixels give {value:.4f} instead of {part / whole:.4f}: "
            "uint8 ends at 255, so do not count in it"
        )
    _check_extremes(fn, (4, 6))


def _check_extremes(fn: Score, shape: tuple[int, ...]) -> None:
    """What happens at 0 and at 1, and where there is nothing to divide by."""
    missed = _number(fn, *_pair(0, 0, 1, shape), "one missed pixel")
    _assert_ends(missed, _number(fn, *_pair(1, 0, 0, shape), "one found pixel"))
    full = torch.ones(shape, dtype=torch.uint8)
    value = _number(fn, full, full.clone(), "two full masks")
    assert abs(value - 1) <= TOLERANCE, f"two masks full of nucleus agree and must score 1, but {value:g} came out"
    for (tp, fp, missed), what in (
        ((0, 3, 5), "two masks that share no pixel"),
        ((0, 0, 5), "an empty prediction of 5 true pixels"),
        ((0, 3, 0), "a prediction of 3 pixels where the truth is empty"),
    ):
        value = _number(fn, *_pair(tp, fp, missed, shape), what)
        assert abs(value) <= TOLERANCE, f"{what} must score 0, but {value:.4f} came out"
    empty = torch.zeros(shape, dtype=torch.uint8)
    for masks in ((empty, empty.clone()), (empty.bool(), empty.bool())):
        value = _number(fn, *masks, "two empty masks")
        assert abs(value - 1) <= TOLERANCE, (
            f"both masks are empty: nothing is wrong, so the score is 1 by agreement, but {value:g} came out"
        )


def _assert_ends(missed: float, perfect: float) -> None:
    assert not TOLERANCE < missed < 0.99, (
        f"one true pixel, missed, scores {missed:.2g} instead of 0: a smoothing constant belongs in a loss, "
        "not in a score. Treat the case of two empty masks by itself"
    )
    assert not TOLERANCE < 1 - perfect < 0.999, (
        f"a perfect mask of one pixel scores {perfect:.6g} instead of 1: something was added below the fraction"
    )


def _compare_pooled(fn: Score, predicted: Tensor, true: Tensor, kind: str) -> None:
    counts = count(predicted, true)
    want = iou(counts.pooled()).item()
    value = _number(fn, predicted, true, kind)
    if abs(value - want) > TOLERANCE:
        tp, fp, missed = (int(part) for part in counts.pooled())
        _explain(fn, value, _not_pooled(predicted, true, counts), kind, predicted, tp, tp + fp + missed)
        raise AssertionError(
            f"in all images together {tp} pixels are found, {fp} invented, {missed} missed: the pooled IoU is "
            f"{want:.6g}, but {value:.6g} came out for {kind}"
        )


def _explain(fn: Score, value: float, mistakes: Mistakes, kind: str, like: Tensor, part: int, whole: int) -> None:
    """Raise the sentence about the known mistake that gives this very value in place of part / whole, if any."""
    for wrong, sentence in mistakes:
        if abs(value - wrong) <= TOLERANCE:
            raise AssertionError(f"{value:.4f} came out for {kind}. {sentence}")
    missed = _number(fn, *_pair(0, 0, 1, tuple(like.shape)), "one missed pixel")
    perfect = _number(fn, *_pair(1, 0, 0, tuple(like.shape)), "one found pixel")
    if 0 < missed < 1 and abs((part + (s := missed / (1 - missed))) / (whole + s) - value) < 1e-4:
        _assert_ends(missed, perfect)
    ends = [weight * (1 / perfect - 1) for weight in (1, 2)] if 0 < perfect < 1 else []
    if any(abs(part / (whole + below) - value) < 1e-4 for below in ends):
        _assert_ends(missed, perfect)


def _not_iou(areas: Areas) -> Mistakes:
    tp, fp, fn, _ = areas
    yield areas.dice, "That is Dice: IoU divides by the union, in which each pixel counts once"
    yield (
        tp / (areas.union + tp),
        "The denominator adds the two areas, so common pixels count twice: the union counts each once",
    )
    yield 2 * tp / areas.union, "The 2 belongs to Dice: the intersection counts each pixel once"
    yield tp / (fp + fn), "The denominator holds wrong pixels alone: the union holds the common ones too"
    yield from _other_ratios(areas, areas.iou)
    yield (tn_iou := areas.tn / (areas.tn + fp + fn)), "That is the IoU of the background: nuclei are the pixels with 1"
    yield (areas.iou + tn_iou) / 2, "That is the mean of the IoU of nuclei and that of background: nuclei alone"


def _not_dice(areas: Areas) -> Mistakes:
    tp, fp, fn, tn = areas
    yield areas.iou, "That is IoU: Dice divides by the sum of the two areas"
    yield tp / (areas.union + tp), "The factor 2 above the fraction is missing: two equal masks would score one half"
    sentence = (
        "The denominator is the union: Dice has the sum of the two areas, where common pixels count twice. "
        "(Between bool masks + means `or`, so they must be counted before they are added)"
    )
    yield 2 * tp / areas.union, sentence
    yield 2 * tp / (areas.union + tp + fp + fn), "The mistakes count double below: 2 tp / (2 tp + fp + fn)"
    yield from _other_ratios(areas, areas.dice)
    yield (
        (tn_dice := 2 * tn / (2 * tn + fp + fn)),
        "That is the Dice of the background: nuclei are the pixels with 1",
    )
    yield (areas.dice + tn_dice) / 2, "That is the mean of the Dice of nuclei and that of background: nuclei alone"


def _other_ratios(areas: Areas, right: float) -> Mistakes:
    tp, fp, fn, tn = areas
    yield tp / (tp + fp), "That is the precision, tp / (tp + fp): missed pixels cost nothing there"
    yield tp / (tp + fn), "That is the recall, tp / (tp + fn): invented pixels cost nothing there"
    yield (
        (tp + tn) / sum(areas),
        "That is the accuracy: right background pixels count, and an empty prediction scores well",
    )
    yield (tp + fn) / (tp + fp), "Only the areas are compared, not where they lie"
    yield (tp + fp) / (tp + fn), "Only the areas are compared, not where they lie"
    yield 1 - right, "That is one minus the score, a loss: 1 must be perfect"
    yield 100 * right, "Those are percent: a share between 0 and 1 is wanted"
    yield 1 / right, "The fraction is upside down"
    for part in (tp, 2 * tp):
        yield part / sum(areas), "The denominator holds every pixel of the image, background too"
    yield tp, "That is a number of pixels: divide it"
    yield 0.0, "A fraction was cut off to a whole number: divide with /, not //"
    for below in (fp + 255 * fn, 255 * fp + fn):
        for part, whole in ((tp, tp + below), (2 * tp, 2 * tp + below)):
            yield part / whole, "uint8 cannot go below zero, 0 - 1 is 255 there: compare instead of subtracting"
    for digits in (2, 3, 4):
        yield round(right, digits), "The score was rounded: return all digits and round when you print"


def _not_pooled(predicted: Tensor, true: Tensor, counts: Counts) -> Mistakes:
    each, n = iou(counts), len(true)
    union = counts.tp + counts.fp + counts.fn
    nuclei = counts.tp + counts.fn
    per_image = "the mean over images, in which a small image weighs as much as a full one"
    yield each.mean().item(), f"That is {per_image}: sum the pixels of all images first, divide once"
    yield each[union > 0].mean().item(), f"That is {per_image}, without the empty ones: sum first, divide once"
    yield each[nuclei > 0].mean().item(), f"That is {per_image}, without those whose truth is empty: sum first"
    yield (each * (union > 0)).mean().item(), f"That is {per_image}, with 0 for two empty masks: sum first"
    yield each.median().item(), "That is the median over images: sum the pixels of all images first"
    yield (
        (each * nuclei).sum().item() / max(int(nuclei.sum()), 1),
        ("That is a mean over images, weighted by their nuclei: sum intersections and unions, divide once"),
    )
    for size in range(2, min(n, 33)):
        scores = [iou(Counts(*(part[at : at + size] for part in counts)).pooled()).item() for at in range(0, n, size)]
        weights = [min(size, n - at) for at in range(0, n, size)]
        sentence = f"That is a mean over batches of {size}, which depends on size and order: sum first, divide once"
        yield sum(scores) / len(scores), sentence
        yield sum(w * s for w, s in zip(weights, scores, strict=True)) / n, sentence
    for left, what in _left_out(n, counts):
        if 0 < left.sum() < n:
            yield iou(Counts(*(part[~left] for part in counts)).pooled()).item(), f"{what}: every image counts"
    for wrong_truth in (true[:1], true[:, 0], predicted[:1]):
        p, t = torch.broadcast_tensors(predicted.bool(), wrong_truth.bool())
        yield (
            iou(count(p, t).pooled()).item(),
            ("Broadcasting compares images with the truth of others: both masks must have the shape (N, 1, H, W)"),
        )
    yield (
        iou(count(predicted.bool().any(0, keepdim=True), true.bool().any(0, keepdim=True)).pooled()).item(),
        "The images were laid on top of each other: a pixel of one image has nothing to do with that of another",
    )
    tp, fp, fn = (int(part) for part in counts.pooled())
    if tp and fp + fn:
        yield from _not_iou(Areas(tp, fp, fn, predicted.numel() - tp - fp - fn))
    over_rows = iou(Counts(*(part.flatten() for part in _per_row(predicted, true))))
    yield over_rows.mean().item(), "That is a mean over rows of pixels: sum over all axes"


def _left_out(n: int, counts: Counts) -> Iterator[tuple[Tensor, str]]:
    """Which images an answer may have ignored, and how that reads."""
    place = torch.arange(n)
    yield counts.tp + counts.fn == 0, "Images whose truth is empty were left out, and with them what was invented there"
    yield counts.tp + counts.fp == 0, "Images with an empty prediction were left out, and with them what was missed"
    yield counts.tp == 0, "Images in which nothing was found were left out"
    yield place == n - 1, "The last image was left out"
    for left in sorted({n % size for size in range(2, 33)} - {0, 1}):
        yield place >= n - left, f"The last {left} images were left out, perhaps an incomplete batch"
    yield place == 0, "The first image was left out"
    yield place > 0, "Only the first image was counted"
    yield place < n - 1, "Only the last image was counted"


def _per_row(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p, t = predicted.bool(), true.bool()
    return (p & t).sum(-1), (p & ~t).sum(-1), (~p & t).sum(-1)


def _pair(tp: int, fp: int, fn: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two uint8 masks with so many found, invented and missed pixels, strewn over the shape."""
    masks = torch.zeros(2, prod(shape), dtype=torch.uint8)
    masks[0, : tp + fp] = 1
    masks[1, :tp] = 1
    masks[1, tp + fp : tp + fp + fn] = 1
    predicted, true = masks[:, torch.randperm(prod(shape))]
    return predicted.reshape(shape).clone(), true.reshape(shape).clone()


def _number(fn: Score, predicted: Tensor, true: Tensor, kind: str) -> float:
    """What the answer returns for copies of two masks, as a plain number."""
    p, t = predicted.clone(), true.clone()
    try:
        value = fn(p, t)
    except ZeroDivisionError:
        raise AssertionError(
            f"{kind}: a division by zero. Where both masks are empty nothing is wrong: the score is 1 by agreement"
        ) from None
    except RuntimeError as problem:
        text = str(problem)
        assert "two bool tensors" not in text, (
            f"{kind} cannot be subtracted: with bool the questions are `and` (&), `or` (|) and `not` (~)"
        )
        assert "bitwise" not in text, (
            f"{kind} were turned into floats, which know no & and |: keep them bool, or make them bool first"
        )
        assert "must match the size" not in text, f"{kind}: the shapes of what is compared differ: {text}"
        raise
    assert p.equal(predicted) and t.equal(true), (
        f"{kind}: the masks themselves were changed; work on new tensors (& instead of &=)"
    )
    return _as_number(value, kind)


def _as_number(value: Any, kind: str) -> float:
    assert value is not None, "it returns nothing: return the score"
    if isinstance(value, Tensor):
        assert not value.requires_grad, (
            "the score carries a gradient: a score counts pixels, nothing is learned from it; return a plain number"
        )
    size = getattr(value, "numel", None)
    length = size() if callable(size) else getattr(value, "size", 1)
    assert length == 1 and not isinstance(value, list | tuple | dict | str), (
        f"{kind}: one number is wanted, {_describe(value)} came out: sum over all pixels"
    )
    value = float(value)
    assert not isnan(value), (
        f"{kind}: nan came out, from 0 / 0. Where both masks are empty nothing is wrong: the score is 1 by agreement"
        if "empty" in kind
        else f"{kind}: nan came out; is there a division of 0 by 0, such as a mean over images that have no nuclei?"
    )
    assert isfinite(value), f"{kind}: {value} came out, a division by zero"
    return value


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
