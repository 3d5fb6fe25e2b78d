"""Losses of a predicted disk against a true one."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from course_lib import metrics, show
from course_lib.losses import Loss, bce_dice, lovasz_hinge, soft_dice, soft_iou

LOSSES: dict[str, Loss] = {
    "BCE": F.binary_cross_entropy_with_logits,
    "Dice": soft_dice,
    "IoU": soft_iou,
    "Lovász": lovasz_hinge,
    "BCE/2 + Dice": bce_dice,
}
SIDE, RADIUS = 48, 12  # the image and the true disk of the loss playground, in pixels


def disk(shift: float = 0, radius: float = RADIUS, *, blur: float = 1) -> Tensor:
    """Logits (1, 1, 48, 48) of a disk, `shift` pixels right of the middle: the distance inside its rim over `blur`."""
    from_middle = torch.arange(SIDE) - (SIDE - 1) / 2
    distance = (from_middle[:, None] ** 2 + (from_middle - shift) ** 2).sqrt()
    return ((radius - distance) / blur)[None, None]


TRUE = (disk() > 0).float()


def loss_view(shift: float = 6, radius: float = RADIUS, *, blur: float = 1, loss: str = "Dice") -> show.View:
    """A predicted disk against a true one: the losses, where one of them pushes, and how all change with the shift.

    `shift` and `radius` of the predicted disk are in pixels (of the true one: 0 and 12), and over `blur` pixels its
    logit changes by 1. `loss`, a key of `LOSSES`, is the one whose gradient is drawn.
    """
    logits, functions = disk(shift, radius, blur=blur), LOSSES | {"mask": _hard}
    figure, (*pictures, axis) = show.canvas(3, width=6.4, height=2.7)
    (gradient,) = _pushes(pictures, logits, losses=[loss])
    shifts = np.arange(0, SIDE / 2 + 1, 1.5)
    disks = [disk(s, radius, blur=blur) for s in shifts]
    styles = [*show.LINES[:4], (show.BLACK, "solid")]  # a sum of two is not drawn
    for name, (colour, dash) in zip([name for name in functions if "+" not in name], styles, strict=True):
        values = np.array([functions[name](one, TRUE).item() for one in disks])
        width = 0.8 if name == "mask" else None
        axis.plot(shifts, values / (values.max() or 1), color=colour, linestyle=dash, linewidth=width, label=name)
    axis.axvline(abs(shift), color=show.GREY, linewidth=0.8)
    axis.set(xlabel="shift, pixels", yticks=[0, 1], ylim=(0, 1.05))
    axis.set_title("losses / their largest", fontsize=9)
    axis.legend(frameon=False, fontsize=9, loc="lower right", handlelength=1.2, borderpad=0, labelspacing=0.1)
    text = "  ".join(f"{name} {f(logits, TRUE).item():.3f}" for name, f in functions.items())
    most = gradient.abs().max().item() or 1.0
    share = (gradient.abs() > 0.01 * most).float().mean().item()
    felt = f"−gradient of {loss}: purple pushes up, orange down; {share:.0%} of the pixels get more than a hundredth"
    alt = f"Predicted disk shifted by {shift:g}; the gradient of {loss}; losses against the shift."
    return show.View(figure, alt, f"{text}\n{felt} of the largest, {most:.1e}")


def gradients_of_losses(shift: float = 6, losses: Sequence[str] = ("BCE", "Dice", "Lovász")) -> show.View:
    """Where several losses push, for the same predicted disk: the loss playground in print."""
    figure, axes = show.canvas(1 + len(losses), height=1.9)
    _pushes(axes, disk(shift), losses=losses)
    alt = f"A disk {shift:g} pixels right of the true one, and where {', '.join(losses)} push its pixels up or down."
    return show.View(figure, alt, "purple pushes up, orange down; each picture has a scale of its own")


def _pushes(axes: Sequence[Axes], logits: Tensor, *, losses: Sequence[str]) -> list[Tensor]:
    """The predicted disk and the true rim, then the gradient of each loss, in a scale of its own; returns these."""
    axes[0].imshow(logits.sigmoid()[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    axes[0].contour(TRUE[0, 0].numpy(), levels=[0.5], colors=[show.BLUE], linewidths=1.4)
    show.bare(axes[0], "p, and the true rim")
    moved = logits.clone().requires_grad_()
    gradients = [torch.autograd.grad(LOSSES[loss](moved, TRUE), moved)[0] for loss in losses]
    for axis, loss, gradient in zip(axes[1:], losses, gradients, strict=True):
        most = gradient.abs().max().item() or 1.0
        axis.imshow(-gradient[0, 0].numpy(), cmap="PuOr", vmin=-most, vmax=most)
        show.bare(axis, f"−gradient of {loss}")
    return gradients


def _hard(logits: Tensor, true: Tensor) -> Tensor:
    """1 - IoU of the mask: a step, which has no gradient."""
    return 1 - metrics.iou(metrics.count(logits > 0, true))
