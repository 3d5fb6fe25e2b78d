"""Losses of a predicted disk against a true one."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from course_lib import metrics, show
from course_lib.losses import Loss, bce_dice, lovasz_hinge, soft_dice, soft_iou
from course_lib.show.palette import BLACK, BLUE, GREY
from course_lib.show.views.view import View

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
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = ((row - (SIDE - 1) / 2) ** 2 + (column - (SIDE - 1) / 2 - shift) ** 2).sqrt()
    return ((radius - distance) / blur)[None, None]


def loss_view(shift: float = 6, radius: float = RADIUS, *, blur: float = 1, loss: str = "Dice") -> View:
    """A predicted disk against a true one: the losses, where one of them pushes, and how all change with the shift.

    Args:
        shift, radius: of the predicted disk, in pixels; the true one has shift 0 and radius 12.
        blur: pixels over which the logit of the predicted disk changes by 1.
        loss: a key of `LOSSES`, the one whose gradient is drawn.
    """
    true = (disk() > 0).float()
    logits = disk(shift, radius, blur=blur).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[loss](logits, true), logits)
    most = gradient.abs().max().item() or 1.0
    figure, axes = show.canvas(3, width=6.4, height=2.7)
    _prediction(axes[0], logits, true)
    _push(axes[1], gradient, loss)
    _curves(axes[2], true, shift, radius, blur)
    values = {name: f(logits.detach(), true).item() for name, f in LOSSES.items()}
    values["mask"] = 1 - metrics.iou(metrics.count(logits > 0, true)).item()  # a step: it has no gradient
    text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
    share = (gradient.abs() > 0.01 * most).float().mean().item()
    felt = f"−gradient of {loss}: purple pushes up, orange down; {share:.0%} of the pixels get more than a hundredth"
    alt = f"Predicted disk shifted by {shift:g}; the gradient of {loss}; losses against the shift."
    return View(figure, alt, f"{text}\n{felt} of the largest, {most:.1e}")


def gradients_of_losses(shift: float = 6, losses: Sequence[str] = ("BCE", "Dice", "Lovász")) -> View:
    """Where several losses push, for the same predicted disk: the loss playground in print."""
    true = (disk() > 0).float()
    logits = disk(shift).requires_grad_()
    figure, axes = show.canvas(1 + len(losses), height=1.9)
    _prediction(axes[0], logits, true)
    for axis, loss in zip(axes[1:], losses, strict=True):
        (gradient,) = torch.autograd.grad(LOSSES[loss](logits, true), logits)
        _push(axis, gradient, loss)
    alt = f"A disk {shift:g} pixels right of the true one, and where {', '.join(losses)} push its pixels up or down."
    return View(figure, alt, "purple pushes up, orange down; each picture has a scale of its own")


def _prediction(axis: Axes, logits: Tensor, true: Tensor) -> None:
    axis.imshow(logits.detach().sigmoid()[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    axis.contour(true[0, 0].numpy(), levels=[0.5], colors=[BLUE], linewidths=1.4)
    axis.set_title("p, and the true rim", fontsize=9)
    axis.axis("off")


def _push(axis: Axes, gradient: Tensor, loss: str) -> None:
    most = gradient.abs().max().item() or 1.0
    axis.imshow(-gradient[0, 0].numpy(), cmap="PuOr", vmin=-most, vmax=most)
    axis.set_title(f"−gradient of {loss}", fontsize=9)
    axis.axis("off")


def _curves(axis: Axes, true: Tensor, shift: float, radius: float, blur: float) -> None:
    """Each loss against the shift, divided by its largest value, so that shapes can be compared."""
    shifts = np.arange(0, SIDE / 2 + 1, 1.5)
    disks = [disk(s, radius, blur=blur) for s in shifts]
    curves = {name: [f(logits, true).item() for logits in disks] for name, f in LOSSES.items() if "+" not in name}
    for (name, values), (colour, dash) in zip(curves.items(), show.LINES, strict=False):
        axis.plot(shifts, np.array(values) / max(values), color=colour, linestyle=dash, label=name)
    hard = [1 - metrics.iou(metrics.count(logits > 0, true)).item() for logits in disks]
    axis.plot(shifts, np.array(hard) / (max(hard) or 1), color=BLACK, linewidth=0.8, label="mask")
    axis.axvline(abs(shift), color=GREY, linewidth=0.8)
    axis.set(xlabel="shift, pixels", yticks=[0, 1], ylim=(0, 1.05))
    axis.set_title("losses / their largest", fontsize=9)
    axis.legend(frameon=False, fontsize=9, loc="lower right", handlelength=1.2, borderpad=0, labelspacing=0.1)
