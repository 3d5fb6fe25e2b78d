"""What the numbers of masks mean: one value, numbers of objects or classes, told from all masks of a data set at once.

Nothing ambiguous is guessed: what has two readings is refused in a sentence, here, for loading and for the mask doctor.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from skimage.measure import label

from course_lib.data.decode import JPG, decode
from course_lib.data.pixels import consecutive
from course_lib.errors import UserError

BORDERS, VOID, WRAPPED = "grey borders", "void", "wrapped numbers"
BACKGROUND, CLASSES, PIECES = "no background", "numbers or classes", "numbers in pieces"
UNSMOOTHED = "save it without smoothing or JPEG, as 0 and 255 or as instance numbers"


class Doubt(NamedTuple):
    """Why the numbers of a mask have no one meaning."""

    where: str  # the mask
    problem: str  # a short name that stays
    text: str  # what is so and what to do


class Numbers(NamedTuple):
    """What is kept of one mask."""

    where: str
    values: tuple[int, ...]  # without 0, sorted
    background: float  # the share of 0
    most: int  # the most frequent number, 0 among them
    share: float  # of the pixels that have it
    pieces: int  # connected regions of one number (8 neighbours), without 0
    touching: bool  # whether each number lies beside another
    doubt: Doubt | None


def read_mask(data: bytes, where: str) -> np.ndarray:
    """The bytes of a mask file -> its numbers: bool or integers >= 0, (H, W). Raises UserError for anything else."""
    pixels, alpha = decode(data, where, as_mask=True)
    colours, same = pixels.reshape(-1, pixels.shape[2]), (pixels == pixels[..., :1]).all() or pixels.shape[2] == 1
    mask = pixels[..., 0]
    varies = alpha is not None and (alpha != alpha.flat[0]).any()
    if varies and ((colours == colours[0]).all() or (same and ((alpha > 0) != (mask > 0)).any())):
        raise UserError(f"{where} has an alpha channel that says another thing than its colour: save one of the two")
    if not same:
        kind = "in colour" if pixels.shape[2] == 3 else f"of {pixels.shape[2]} channels"
        raise UserError(f"{where} is a mask {kind}: save one image of one channel, 0 and 255 or instance numbers")
    if data.startswith(JPG):  # it smears numbers around every border: only 0 and 255 survive it
        if mask.any() and not (mask.max() >= 192 and two_levels(mask, 255)):
            raise UserError(f"{where} is a jpg of other values than 0 and 255, which jpg does not keep: save it as png")
        mask = mask > 127
    if mask.dtype.kind in "bu":
        return mask
    whole = mask.dtype.kind in "if" and bool(((mask >= 0) & (mask < 2**31)).all())  # also False for nan
    numbers = mask.astype(np.int64) if whole else None
    if numbers is None or (numbers != mask).any():
        raise UserError(f"{where} is a mask with fractions or negative values: save 0 and 255, or instance numbers")
    return numbers


def look_at(mask: np.ndarray, where: str) -> Numbers:
    """What is to know of a mask of whole numbers (H, W) before its meaning is decided."""
    values, index, counts = np.unique(mask, return_inverse=True, return_counts=True)
    index = index.reshape(mask.shape) + (values[0] > 0)  # 0 is background, as in the mask
    kept = tuple(int(value) for value in values if value > 0)
    known = where, kept, (index == 0).mean(), int(values[counts.argmax()]), counts.max() / mask.size
    if len(kept) < 2:
        return Numbers(*known, pieces=len(kept), touching=False, doubt=None)
    pieces, beside = int(label(index).max()), _neighbours(index)
    doubt = _rims(where, kept, index, beside)
    scattered = pieces > 2 * len(kept)
    grey = len(kept) > 64 or (len(kept) > 2 and kept[-1] >= 128 and two_levels(mask, kept[-1]))
    if not doubt and scattered and grey:
        doubt = Doubt(where, BORDERS, f"has {len(kept)} grey values in {pieces} pieces: {UNSMOOTHED}")
    if not doubt and mask.dtype == np.uint8 and len(kept) > 250 and pieces > 1.2 * len(kept):
        text = f"has {len(kept)} numbers in {pieces} pieces, as if they began again at 256: save it with 16 bits"
        doubt = Doubt(where, WRAPPED, text)
    return Numbers(*known, pieces=pieces, touching=len(set(beside[0])) == len(kept), doubt=doubt)


def _neighbours(index: np.ndarray) -> np.ndarray:
    """The pairs of different numbers above 0 that lie side by side, (2, P), each in both orders."""
    pairs = [index[:, :-1], index[:, 1:]], [index[:-1], index[1:]]
    found = [np.stack([one, two])[:, (one != two) & (one > 0) & (two > 0)] for one, two in pairs]
    found = np.unique(np.concatenate(found, axis=1), axis=1)
    return np.concatenate([found, found[::-1]], axis=1)


def _rims(where: str, values: tuple[int, ...], index: np.ndarray, beside: np.ndarray) -> Doubt | None:
    """Numbers that are rims of others: grey borders, or a void margin. `index` holds places in `values`, from 1."""
    thin = np.setdiff1d(np.arange(1, len(values) + 1), solid(index))
    rims, top = np.intersect1d(thin, beside[0]), len(values)
    within = np.unique(beside[0][beside[0] < beside[1]])  # numbers beside a larger one
    rings = len(values) > 3 and len(within) == top - 1 and 2 * (index == top).sum() > (index > 0).sum()
    if 2 * len(rims) > len(values) or rings:
        return Doubt(where, BORDERS, f"has {len(values)} grey values, most of them rims of others: {UNSMOOTHED}")
    if values[-1] == 255 and values[-2] < 128 and 2 * len(set(beside[0][beside[1] == top])) > top - 1:
        text = "holds 255 around its other numbers, as PASCAL VOC marks void pixels: make them 0 or part of an object"
        return Doubt(where, VOID, text)
    return None


def solid(index: np.ndarray) -> np.ndarray:
    """The numbers above 0 that fill 2 x 2 pixels somewhere: smoothed borders are thinner."""
    corner, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.unique(corner[(corner == right) & (corner == below) & (corner == across) & (corner > 0)])


def two_levels(mask: np.ndarray, top: int) -> bool:
    """Whether few pixels lie between a quarter and three quarters of `top`."""
    bright, high = mask > 0.25 * top, mask >= 0.75 * top
    return bool((bright & ~high).sum() <= min(mask.size / 5, bright.sum() / 2))


def doubts(masks: Iterable[Numbers]) -> list[Doubt]:
    """All that has no one meaning in the masks of a data set, which are not said to hold classes."""
    masks = list(masks)
    found = [one.doubt for one in masks if one.doubt]
    full = [one for one in masks if one.background == 0]
    if len(full) == len(masks) or any(len(one.values) > 1 and one.share > 0.5 for one in full):
        advice = "make the background's number 0, or name the classes (--classes)"
        found += [
            Doubt(one.where, BACKGROUND, f"has no 0, which means background, and mostly {one.most}: {advice}")
            for one in full
        ]
    return found + _classes([one for one in masks if len(one.values) > 1 and not one.doubt])


def _classes(masks: list[Numbers]) -> list[Doubt]:
    """Whether these masks of several numbers look like masks of classes."""
    advice = "so they may be classes or smoothed: name classes (--classes), or give each object one number of its own"
    if sum(one.pieces for one in masks) > 2 * sum(len(one.values) for one in masks):
        masks = sorted(masks, key=lambda one: len(one.values) / one.pieces)  # the clearest first
        return [
            Doubt(one.where, CLASSES, f"has {len(one.values)} numbers in {one.pieces} pieces, {advice}")
            for one in masks
        ]
    if (
        len(masks) > 2
        and len({one.values for one in masks}) == 1
        and 2 * sum(one.touching for one in masks) > len(masks)
    ):
        text = f"has the numbers of all others, {', '.join(map(str, masks[0].values[:4]))}, side by side, {advice}"
        return [Doubt(one.where, CLASSES, text) for one in masks]
    return []


def label_mask(mask: np.ndarray, where: str) -> np.ndarray:
    """Mask numbers (H, W) -> instance labels, int32 (H, W): 0 is background, objects count from 1.

    The connected regions (8 neighbours) of a mask of one number are its objects. Several are numbers of objects.
    Raises UserError for more than 65,535 objects, which is noise.
    """
    values = np.unique(mask)
    labels = label(mask > 0).astype(np.int32) if np.count_nonzero(values) < 2 else consecutive(mask)
    if (count := labels.max(initial=0)) >= 2**16:
        raise UserError(f"{where} holds {count} pieces, too many for objects: check that it is a mask")
    return labels


def label_classes(mask: np.ndarray, classes: int, where: str) -> np.ndarray:
    """A mask of class numbers 1..K (H, W) -> int32 (K, H, W): the connected regions of each class, counted from 1.
    Raises UserError for other numbers.
    """
    values = np.unique(mask)
    if (top := int(values[-1])) > classes:
        void = "pixels that PASCAL VOC calls void: make them 0 or part of a class"
        text = f"{where} holds {top} beside classes 1 to {classes}: "
        raise UserError(text + (void if top == 255 else "name as many classes as it has, or correct it"))
    return np.stack([label(mask == number) for number in range(1, classes + 1)]).astype(np.int32)
