"""Lesson 04: one step of training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks.machinery import as_check
from course_lib.losses import bce_dice


@as_check
def check_training_step(fn: Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], float]) -> None:
    """`fn(net, optimiser, images, masks) -> loss`: one step of gradient descent on `bce_dice`."""
    images = torch.rand(4, 3, 8, 8)
    masks = (images.mean(1, keepdim=True) > 0.5).float()

    def train(step: Callable) -> tuple[list[Any], Tensor]:
        torch.manual_seed(1)
        net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, padding=1))
        optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
        losses = [step(net, optimiser, images, masks) for _ in range(3)]
        return losses, net[1].weight.detach()

    try:
        losses, weights = train(fn)
    except RuntimeError as problem:
        assert "modified by an inplace operation" not in str(problem), (
            "the weights change before loss.backward() has used them: call optimiser.step() after it"
        )
        assert "does not require grad" not in str(problem), (
            "the loss has no path back to the weights: no threshold, detach or no_grad before it"
        )
        raise
    start = train(lambda *_: None)[1]
    assert all(loss is not None for loss in losses), "it returns nothing: return the loss as a number"
    assert not any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses), (
        "the loss that comes back still holds the whole graph, and memory fills up: return loss.item()"
    )
    assert not any(isinstance(loss, Tensor) for loss in losses), (
        "a tensor comes back: return loss.item(), a plain number"
    )
    assert not torch.equal(weights, start), (
        "the weights did not change in three steps: the gradient is computed by loss.backward() and used by "
        "optimiser.step(), in this order"
    )
    for step, message in _MISTAKEN_STEPS.items():
        assert not torch.allclose(weights, train(step)[1]), message
    right_losses, right_weights = train(_right_step)
    assert torch.allclose(weights, right_weights), (
        "after three steps the weights differ from those of forward, loss, zero_grad, backward, step"
    )
    ours = [float(loss) for loss in losses]
    assert torch.allclose(torch.tensor(ours), torch.tensor(right_losses)), (
        f"the weights are right, but the losses {ours} should be {right_losses}: return the loss of this batch"
    )


def _right_step(net, optimiser, images, masks) -> float:
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def _without_zero_grad(net, optimiser, images, masks) -> None:
    bce_dice(net(images), masks).backward()
    optimiser.step()


def _sigmoid_twice(net, optimiser, images, masks) -> None:
    loss = bce_dice(net(images).sigmoid(), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _arguments_swapped(net, optimiser, images, masks) -> None:
    loss = bce_dice(masks, net(images))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _in_evaluation_mode(net, optimiser, images, masks) -> None:
    net.eval()
    _right_step(net, optimiser, images, masks)


def _uphill(net, optimiser, images, masks) -> None:
    loss = -bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


_MISTAKEN_STEPS = {
    _arguments_swapped: "bce_dice takes the logits first, then the masks",
    _in_evaluation_mode: "the net is put into evaluation mode, where batch norm does not learn: leave its mode alone",
    _uphill: "the loss grows: minimise bce_dice, not its negative",
    _without_zero_grad: "gradients of earlier steps add up: call optimiser.zero_grad() before loss.backward()",
    _sigmoid_twice: "bce_dice takes logits and applies the sigmoid itself: give it the net's output as it is",
}
