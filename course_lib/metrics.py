"""Scores of masks. The same predictions score differently per image and pooled, so every name says which.

Masks are bool or {0, 1} tensors (N, ...): one image per first index.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Counts(NamedTuple):
    """Pixels of each image, int64 (N,): found (tp), invented (fp) and missed (fn)."""

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def pooled(self) -> "Counts":
        """All images as one: (1,). Pooled scores are made from these sums, never from means of means."""
        return Counts(*(count.sum(0, keepdim=True) for count in self))


def count(predicted: Tensor, true: Tensor) -> Counts:
    """Compare masks pixel by pixel. Both (N, ...), bool or {0, 1}.
    Raises ValueError: the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and true {tuple(true.shape)} differ in shape")
    p, t = predicted.bool().flatten(1), true.bool().flatten(1)
    return Counts((p & t).sum(1), (p & ~t).sum(1), (~p & t).sum(1))


def iou(counts: Counts) -> Tensor:
    """Intersection over union, tp / (tp + fp + fn), float64 (N,). Both masks empty: 1, nothing is wrong."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def dice(counts: Counts) -> Tensor:
    """2 tp / (2 tp + fp + fn), float64 (N,). Both masks empty: 1. For one mask, dice = 2 iou / (1 + iou)."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def boundary_iou(predicted: Tensor, true: Tensor, *, width: int = 2) -> Tensor:
    """IoU of the two rims alone, float64 (N,): it sees a blurred border that plain IoU forgives.

    A rim holds the mask's pixels within `width` pixels (chessboard distance) of its outside; beyond the
    image counts as outside (Cheng et al., Boundary IoU, CVPR 2021). Masks (N, 1, H, W).
    """
    return iou(count(_rim(predicted, width), _rim(true, width)))


def scores(predicted: Tensor, true: Tensor, *, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Every mask score of a data set, each under its full name. Masks (N, K, H, W).

    Of K > 1 classes, each class's own scores under "classes" by its name in `classes`, None for one that `true` shows
    nowhere, and the means over the others.
    """
    if true.shape[1] > 1:
        names = classes or [str(number) for number in range(1, true.shape[1] + 1)]
        each = {name: scores(predicted[:, k : k + 1], true[:, k : k + 1]) for k, name in enumerate(names)}
        each = {name: one if true[:, k].any() else None for k, (name, one) in enumerate(each.items())}
        shown = [one for one in each.values() if one]
        means = {key: fmean(one[key] for one in shown) for key in shown[0]} if shown else {}
        return means | {"classes": each}
    counts = count(predicted, true)
    return {
        "iou_pooled": iou(counts.pooled()).item(),
        "dice_pooled": dice(counts.pooled()).item(),
        "iou_per_image": iou(counts).mean().item(),
        "dice_per_image": dice(counts).mean().item(),
        "boundary_iou_per_image": boundary_iou(predicted, true).mean().item(),
    }


def average_precision(predicted: np.ndarray, true: np.ndarray, *, threshold: float = 0.5) -> float:
    """tp / (tp + fp + fn) over instances of one image; a pair with IoU > threshold is a tp.

    Above 0.5 no instance can pair twice, so no matching is needed. Labels are integer (H, W), 0 is
    background. Both empty: 1. This is the score of the 2018 Data Science Bowl at one threshold.
    Raises ValueError: a threshold below 0.5, or shapes that differ.
    """
    if threshold < 0.5:
        raise ValueError(f"threshold {threshold} is below 0.5, where one nucleus could match twice")
    if predicted.shape != true.shape:
        raise ValueError(f"predicted {predicted.shape} and true {true.shape} differ in shape")
    p, t = (np.unique(labels, return_inverse=True)[1].reshape(-1) for labels in (predicted, true))
    p, t = p + (predicted.min() > 0), t + (true.min() > 0)  # 0 stays background
    overlap = np.zeros((p.max() + 1, t.max() + 1), dtype=np.int64)
    np.add.at(overlap, (p, t), 1)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    tp = int((overlap / np.maximum(union, 1) > threshold)[1:, 1:].sum())
    total = sum(overlap.shape) - 2 - tp  # of both, without the background
    return tp / total if total else 1.0


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part.double() / whole.clamp(min=1), 1.0)


def _rim(mask: Tensor, width: int) -> Tensor:
    outside = F.pad(1 - mask.float(), (width,) * 4, value=1.0)
    return mask.bool() & F.max_pool2d(outside, 2 * width + 1, stride=1).bool()
