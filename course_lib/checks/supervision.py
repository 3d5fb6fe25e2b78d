"""Lesson 07: the loss on every head, and the mask made from all of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.machinery import as_check
from course_lib.losses import bce_dice


@as_check
def check_deep_supervision_loss(fn: Callable[[list[Tensor], Tensor], Tensor]) -> None:
    """`fn(outputs, target) -> loss`: the mean of `bce_dice` over the heads, a scalar to call backward on."""
    outputs = [torch.randn(2, 1, 4, 6).mul(scale).requires_grad_() for scale in (1.0, 3.0, 0.5)]
    target = (torch.rand(2, 1, 4, 6) > 0.6).float()
    loss = fn(outputs, target)
    assert loss is not None, "it returns nothing: return the loss"
    assert isinstance(loss, Tensor), f"a tensor is wanted, whose backward() can be called, not {type(loss).__name__}"
    assert loss.numel() == 1, f"one number is wanted, this has shape {tuple(loss.shape)}: average over the heads"
    assert loss.requires_grad, "the loss has no path back to the logits: no .item(), detach or no_grad on the way"
    each = torch.stack([bce_dice(logits, target) for logits in outputs]).detach()
    mean_logits = torch.stack([logits.detach() for logits in outputs]).mean(0)
    mean_maps = torch.stack([logits.detach().sigmoid() for logits in outputs]).mean(0).logit()
    mistakes = {
        "the heads are added up: with the mean, the size of the loss does not depend on their number": each.sum(),
        "only the deepest head is trained, as without deep supervision: every head needs its loss": each[-1],
        "only the first head in the list is trained, the shallowest: every head needs its loss": each[0],
        "the deepest head is left out": each[:-1].mean(),
        "the first head in the list is left out": each[1:].mean(),
        "the worst head alone counts: take the mean, not the maximum": each.max(),
        "the logits are averaged first: then heads that are wrong in opposite ways look right, and none is "
        "held to the truth by itself": bce_dice(mean_logits, target),
        "the probability maps are averaged first: the mean belongs outside, over one loss for each head": bce_dice(
            mean_maps, target
        ),
        "bce_dice takes logits and applies the sigmoid itself": torch.stack(
            [bce_dice(logits.detach().sigmoid(), target) for logits in outputs]
        ).mean(),
        "bce_dice takes the logits first, then the target": torch.stack(
            [bce_dice(target, logits.detach()) for logits in outputs]
        ).mean(),
        "the loss is cross entropy alone: bce_dice is the loss of this course": torch.stack(
            [F.binary_cross_entropy_with_logits(logits.detach(), target) for logits in outputs]
        ).mean(),
    }
    for message, value in mistakes.items():
        assert not torch.allclose(loss, value, rtol=1e-4), message
    assert torch.allclose(loss, each.mean(), rtol=1e-5), (
        f"the heads' losses are {[round(v, 3) for v in each.tolist()]}, their mean {each.mean():.4f}: not {loss:.4f}"
    )
    loss.backward()
    for head, logits in enumerate(outputs, start=1):
        assert logits.grad is not None and logits.grad.any(), f"no gradient reaches head {head}: was it detached?"
    one = fn(outputs[:1], target)
    assert torch.allclose(one, each[:1].mean(), rtol=1e-5), "with a single head it is wrong: divide by len(outputs)"


@as_check
def check_accurate_mode(fn: Callable[[list[Tensor]], Tensor]) -> None:
    """`fn(outputs) -> map`: the mean of the heads' probability maps, (N, classes, H, W)."""
    outputs = [3 * torch.randn(2, 2, 4, 6) for _ in range(4)]
    given = [logits.clone() for logits in outputs]
    found = fn(outputs)
    assert all(torch.equal(a, b) for a, b in zip(outputs, given, strict=True)), (
        "the logits themselves were changed: use sigmoid(), not sigmoid_()"
    )
    assert isinstance(found, Tensor), f"a tensor is wanted, this is {type(found).__name__}"
    assert found.shape == outputs[0].shape, (
        f"one map for each image, {tuple(outputs[0].shape)}, not {tuple(found.shape)}: average over the heads alone"
    )
    maps = torch.stack(outputs).sigmoid()
    mistakes = {
        "only the deepest head is used, which is the fast mode at full depth": maps[-1],
        "only the first head in the list is used, which is the fast mode at level 1": maps[0],
        "the logits are averaged before the sigmoid: one head that is very sure then outvotes the others": torch.stack(
            outputs
        )
        .mean(0)
        .sigmoid(),
        "the logits are averaged and no sigmoid follows": torch.stack(outputs).mean(0),
        "the maps are added up: divide by the number of heads": maps.sum(0),
        "masks are averaged: keep the probabilities, the threshold comes last": (maps > 0.5).float().mean(0),
        "the median came out: the paper takes the mean": maps.median(0).values,
        "the highest probability came out: the paper takes the mean": maps.amax(0),
        "the softmax makes the heads compete: each map is a sigmoid of its own": torch.stack(outputs)
        .softmax(0)
        .mean(0),
        "a softmax over the classes: in this course each class has a sigmoid of its own": torch.stack(outputs)
        .softmax(2)
        .mean(0),
    }
    for message, value in mistakes.items():
        assert not torch.allclose(found.float(), value, atol=1e-5), message
    assert found.dtype != torch.bool, "a mask came out: return the probability map, the threshold comes last"
    assert torch.allclose(found, maps.mean(0), atol=1e-5), "the values are not the mean of the four sigmoids"
    assert torch.allclose(fn(outputs[:2]), maps[:2].mean(0), atol=1e-5), "with two heads it is wrong: no fixed number"
