"""What tells one loss from another: what it computes, not where it was written."""

from functools import partial

import pytest
import torch
from torch import nn

from course_lib.losses import bce_dice
from course_lib.train.identity import name_of


def as_written(x, y, weight=1.0):
    return weight * bce_dice(x, y)


def closing_over(weight):
    return lambda x, y: weight * bce_dice(x, y)


def closing_over_a_function(weight):
    inner = closing_over(weight)
    return lambda x, y: inner(x, y)


def keyword(number):
    def loss(x, y, *, weight=number):
        return weight * bce_dice(x, y)

    return loss


class Weighted(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x, y):
        return self.weight * bce_dice(x, y)


class Called:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x, y):
        return self.weight * bce_dice(x, y)

    def method(self, x, y):
        return self(x, y)


LOSSES = {  # all alike but for a number
    "lambda": [lambda: lambda x, y: 1.0 * bce_dice(x, y), lambda: lambda x, y: 2.0 * bce_dice(x, y)],
    "inner": [
        lambda: lambda x, y: (lambda: 1.0)() * bce_dice(x, y),
        lambda: lambda x, y: (lambda: 2.0)() * bce_dice(x, y),
    ],
    "closure": [lambda: closing_over(1.0), lambda: closing_over(2.0)],
    "tensor": [lambda: closing_over(torch.ones(1)), lambda: closing_over(torch.ones(1) + 1)],
    "default": [lambda: keyword(1.0), lambda: keyword(2.0)],
    "other function": [lambda: closing_over_a_function(1.0), lambda: closing_over_a_function(2.0)],
    "partial": [lambda: partial(as_written, weight=1.0), lambda: partial(as_written, weight=2.0)],
    "module": [lambda: Weighted(1.0), lambda: Weighted(2.0)],
    "state": [lambda: Weighted(nn.Parameter(torch.ones(1))), lambda: Weighted(nn.Parameter(torch.ones(1) + 1))],
    "of torch": [nn.BCEWithLogitsLoss, lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))],
    "object": [lambda: Called(1.0), lambda: Called(2.0)],
    "method": [lambda: Called(1.0).method, lambda: Called(2.0).method],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_told_apart_by_what_they_compute(kind):
    one, two = LOSSES[kind]
    assert name_of(one()) == name_of(one()) != name_of(two())
    assert name_of(bce_dice) == "bce_dice" and name_of(nn.functional.mse_loss) == "mse_loss"
