"""The losses: by hand on four pixels, the Lovász extension from its definition, per image and not pooled."""

from itertools import pairwise
from math import log

import pytest
import torch

from course_lib.losses import bce_dice, deep_supervision, lovasz_hinge, soft_dice, soft_iou

LOSSES = [bce_dice, soft_dice, soft_iou, lovasz_hinge]


def one_image(values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def random_batch(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 1, 4, 6, generator=generator)
    return logits, (torch.rand(count, 1, 4, 6, generator=generator) < 0.4).float()


def test_bce_dice_by_hand():
    logits, target = one_image([0, log(3), -log(3), log(3)]), one_image([1, 1, 0, 0])
    # probabilities 1/2, 3/4, 1/4, 3/4: they sum to 9/4, and to 5/4 inside the mask of 2 pixels
    bce = (log(2) + log(4 / 3) + log(4 / 3) + log(4)) / 4
    dice = (2 * 5 / 4 + 1) / (9 / 4 + 2 + 1)
    assert bce_dice(logits, target).item() == pytest.approx(0.5 * bce + 1 - dice, abs=1e-6)


def test_bce_dice_at_its_ends():
    mask, empty = one_image([1, 1, 0, 0]), one_image([0, 0, 0, 0])
    assert bce_dice(40 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)
    assert bce_dice(empty - 40, empty).item() == pytest.approx(0, abs=1e-6)
    # all of it wrong: the cross entropy is the logit, the Dice term is 1 - 1 / (4 + 1)
    assert bce_dice(-40 * (2 * mask - 1), mask).item() == pytest.approx(20 + 0.8, abs=1e-5)


def jaccard_loss(wrong, mask):
    """1 - IoU of the prediction that is wrong exactly in these pixels: wrong / (mask or wrong)."""
    return len(wrong) / len(mask | wrong) if wrong else 0.0


def by_definition(logits, target):
    """The Lovász extension as an integral: the Jaccard loss of the pixels with error >= t, over all t > 0."""
    truth = target.flatten().tolist()
    errors = [max(0.0, 1 - f * (2 * y - 1)) for f, y in zip(logits.flatten().tolist(), truth, strict=True)]
    mask = {n for n, y in enumerate(truth) if y}
    levels = sorted({0.0, *errors})
    return sum(
        (high - low) * jaccard_loss({n for n, error in enumerate(errors) if error >= high}, mask)
        for low, high in pairwise(levels)
    )


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_hinge_is_the_lovasz_extension(seed):
    logits, target = random_batch(seed=seed)
    expected = sum(by_definition(f, y) for f, y in zip(logits, target, strict=True)) / len(logits)
    assert lovasz_hinge(logits, target).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_lovasz_hinge_of_equally_sure_pixels_is_one_minus_iou(strength):
    """Every wrong pixel has the error 1 + strength, every right one none: that times 1 - IoU is left."""
    predicted, target = one_image([1, 1, 0, 0, 1]), one_image([1, 0, 0, 1, 1])  # IoU 2/4
    loss = lovasz_hinge(strength * (2 * predicted - 1), target)
    assert loss.item() == pytest.approx((1 + strength) * 0.5, abs=1e-6)


def test_lovasz_hinge_at_its_ends():
    mask, empty = one_image([1, 1, 0, 0]), one_image([0, 0, 0, 0])
    assert lovasz_hinge(2 * mask - 1, mask) == 0  # a margin of 1 is enough
    assert lovasz_hinge(0 * mask, mask) == 1  # undecided everywhere
    assert lovasz_hinge(empty - 1, empty) == 0
    assert lovasz_hinge(one_image([-5, -5, 4, -5]), empty) == 5  # one pixel invented in an empty image: 1 + 4


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_costs_the_mean_of_its_images(loss):
    logits = torch.tensor([[5.0, -5, -5, -5], [1, 2, -1, 3]]).reshape(2, 1, 2, 2)
    target = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]]).reshape(2, 1, 2, 2)
    alone = [loss(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
    torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())
    pooled = loss(logits.reshape(1, 1, 2, 4), target.reshape(1, 1, 2, 4))
    assert abs(loss(logits, target) - pooled) > 0.02  # the images do differ, so pooling would show


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mask_type", [torch.uint8, torch.bool])
def test_any_float_type_and_any_mask_give_float32(loss, dtype, mask_type):
    logits, target = random_batch()
    logits = logits.to(dtype)
    value = loss(logits, target.to(mask_type))
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), target))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_does_not_overflow(loss):
    """70000 pixels are more than the largest float16, 65504."""
    logits, target = torch.full((1, 1, 280, 250), 9.0, dtype=torch.float16), torch.ones(1, 1, 280, 250)
    assert 0 <= loss(logits, target) < 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_and_point_downhill(loss):
    logits, target = random_batch()
    logits = torch.cat([logits, torch.full_like(logits, -1e4), torch.full_like(logits, 1e4)])
    target = torch.cat([target] * 2 + [torch.zeros_like(target)])
    logits.requires_grad_()
    loss(logits, target).backward()
    assert logits.grad.isfinite().all()
    wrong = (logits > 0) != target.bool()
    assert ((logits.grad * (1 - 2 * target))[wrong] >= 0).all()  # never away from the truth
    better = (logits - 0.1 * logits.grad / logits.grad.norm()).detach()
    assert loss(better, target) < loss(logits, target)


@pytest.mark.parametrize("count", [1, 3])
def test_deep_supervision_is_the_mean_over_heads(count):
    heads, target = [random_batch(seed=seed)[0].requires_grad_() for seed in range(count)], random_batch()[1]
    mean = deep_supervision(bce_dice)(heads, target)
    assert mean.shape == ()
    assert mean.item() == pytest.approx(sum(bce_dice(logits, target).item() for logits in heads) / count, abs=1e-6)
    mean.backward()
    assert all(logits.grad.abs().sum() > 0 for logits in heads)


def test_soft_dice_and_soft_iou_by_hand():
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1], [0, 0]]]])  # p = 1/2 everywhere
    assert soft_dice(logits, target).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    assert soft_iou(logits, target).item() == pytest.approx(1 - (1 + 1) / (2 + 2 - 1 + 1))
