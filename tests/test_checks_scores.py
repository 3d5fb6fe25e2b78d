"""The checks of lesson 01 accept every right way to write the three scores."""

import numpy as np
import pytest
import torch

from course_lib import metrics
from course_lib.checks import check_dice, check_iou, check_pooled_iou


def counts_of_pixels(predicted, true):
    p, t = predicted.bool(), true.bool()
    tp, fp, fn = (p & t).sum().item(), (p & ~t).sum().item(), (~p & t).sum().item()
    return 1.0 if tp + fp + fn == 0 else tp / (tp + fp + fn)


def a_tensor_of_no_dimension(predicted, true):
    both, either = torch.logical_and(predicted, true).sum(), torch.logical_or(predicted, true).sum()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def in_numpy(predicted, true):
    p, t = np.asarray(predicted, dtype=bool), np.asarray(true, dtype=bool)
    return np.mean(p[p | t] & t[p | t]) if (p | t).any() else np.float64(1)


def union_from_areas(predicted, true):
    p, t = predicted.float(), true.float()
    both = (p * t).sum()
    union = p.sum() + t.sum() - both
    return both / union if union else 1


def from_dice(predicted, true):
    d = dice_of_areas(predicted, true)
    return d / (2 - d)


def a_constant_that_does_not_show(predicted, true):
    both, either = (predicted.bool() & true.bool()).sum(), (predicted.bool() | true.bool()).sum()
    return ((both + 1e-7) / (either + 1e-7)).item()


def of_the_package(predicted, true):
    return metrics.iou(metrics.count(predicted.reshape(1, -1), true.reshape(1, -1)))


def dice_of_areas(predicted, true):
    p, t = predicted.int(), true.int()
    return 2 * int((p * t).sum()) / int(p.sum() + t.sum()) if p.any() or t.any() else 1.0


def dice_from_iou(predicted, true):
    i = counts_of_pixels(predicted, true)
    return 2 * i / (1 + i)


def dice_as_a_tensor(predicted, true):
    p, t = predicted.flatten().double(), true.flatten().double()
    return torch.nan_to_num(2 * p @ t / (p.sum() + t.sum()), nan=1.0)


def summed_image_by_image(predicted, true):
    tp = union = 0
    for p, t in zip(predicted.bool(), true.bool(), strict=True):
        tp += (p & t).sum()
        union += (p | t).sum()
    return tp / union if union > 0 else torch.tensor(1.0)


def summed_in_batches(predicted, true):
    parts = [metrics.count(p, t).pooled() for p, t in zip(predicted.split(16), true.split(16), strict=True)]
    return metrics.iou(metrics.Counts(*(sum(part) for part in zip(*parts, strict=True)))).item()


IOU = [counts_of_pixels, a_tensor_of_no_dimension, in_numpy, union_from_areas, from_dice]
IOU += [a_constant_that_does_not_show, of_the_package]
ANSWERS = [(check_iou, answer) for answer in IOU]
ANSWERS += [(check_dice, answer) for answer in (dice_of_areas, dice_from_iou, dice_as_a_tensor)]
ANSWERS += [(check_pooled_iou, answer) for answer in (*IOU, summed_image_by_image, summed_in_batches)]  # as one image


@pytest.mark.parametrize(("check", "answer"), ANSWERS)
def test_a_right_way_to_write_a_score_is_accepted(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out == f"{answer.__name__}: correct\n"
