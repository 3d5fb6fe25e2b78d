"""Losses as functions of logits and a true mask. Lower is better, 0 is perfect or nearly so."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Half the binary cross entropy plus one minus the soft Dice, both averaged over images and classes.

        1/2 BCE(y, p) + 1 - 2 Σ y p / (Σ y + Σ p)

    The loss of UNet++ (2018), with the full cross entropy that its released code uses. One is added above
    and below the fraction, so an empty image that is predicted empty costs nothing.
    Logits of any float type and a target of 0 and 1, both (N, C, H, W) -> a scalar, float32.
    """
    logits, target = logits.float(), target.float()
    overlap, total = _overlap_and_total(logits, target)
    dice = (2 * overlap + 1) / (total + 1)
    return 0.5 * F.binary_cross_entropy_with_logits(logits, target) + 1 - dice.mean()


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice, the second half of `bce_dice`. Shapes and types as there."""
    overlap, total = _overlap_and_total(logits.float(), target.float())
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft IoU, 1 - Σ y p / (Σ y + Σ p - Σ y p), with the 1 of `bce_dice`. Shapes and types as there."""
    overlap, total = _overlap_and_total(logits.float(), target.float())
    return 1 - ((overlap + 1) / (total - overlap + 1)).mean()


def lovasz_hinge(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász hinge: a convex surrogate of 1 - IoU, of each image and class, then averaged. As in `bce_dice`.

    Pixels are sorted by their hinge error; each weighs what it adds to the Jaccard loss when it joins the
    wrong ones (Berman, Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018).
    """
    logits, target = (field.float().flatten(0, 1).flatten(1) for field in (logits, target))  # (N C, pixels)
    errors, order = (1 - logits * (2 * target - 1)).sort(dim=1, descending=True)
    truth = target.gather(1, order)
    positives = truth.sum(1, keepdim=True)
    intersection = positives - truth.cumsum(1)
    union = positives + (1 - truth).cumsum(1)
    jaccard = 1 - intersection / union
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (errors.relu() * steps).sum(1).mean()


def deep_supervision(loss: Loss) -> Callable[[list[Tensor], Tensor], Tensor]:
    """The same loss on every head, averaged: (1/J) Σ_j loss(x^{0,j}, y).

    The journal paper sums with equal weights (UNet++, TMI 2020, η = 1); the mean has the same minimum and
    keeps the scale of a loss independent of the number of heads.
    """

    def mean_over_heads(outputs: list[Tensor], target: Tensor) -> Tensor:
        return torch.stack([loss(logits, target) for logits in outputs]).mean()

    return mean_over_heads


def _overlap_and_total(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Σ y p and Σ y + Σ p of each image and class, (N, C) each."""
    p = logits.sigmoid()
    return (p * target).sum(dim=(2, 3)), p.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
