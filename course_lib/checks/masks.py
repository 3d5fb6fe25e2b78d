"""Lessons 00 and 01: masks and their scores."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks.machinery import as_check


@as_check
def check_to_mask(fn: Callable[[Tensor], Tensor]) -> None:
    """`fn(logits) -> mask`: (N, 1, H, W) floats to bool, True where the probability is above one half."""
    logits = torch.tensor([-4.0, -0.3, 0.0, 0.05, 0.4, 0.6, 5.0, -1.0]).reshape(2, 1, 2, 2)
    given = logits.clone()
    mask = fn(given)
    assert given.equal(logits), "the logits themselves were changed: use sigmoid(), not sigmoid_()"
    assert isinstance(mask, Tensor), f"a tensor is wanted, this is {type(mask).__name__}"
    assert mask.shape == logits.shape, f"the shape changed from {tuple(logits.shape)} to {tuple(mask.shape)}"
    assert mask.dtype == torch.bool, f"a mask answers yes or no, so its type is bool, not {mask.dtype}: compare with >"
    want = logits > 0
    assert mask.any(), "everything became background: an argmax over one channel is always 0"
    assert not mask.all(), (
        "everything became nucleus: perhaps a softmax, which over one channel is always 1? One logit needs a sigmoid"
    )
    assert not (mask.equal(logits < 0) or mask.equal(~want)), "nucleus and background are swapped: True means nucleus"
    assert not mask.equal(logits >= 0), "a probability of exactly one half is not above it: > instead of >="
    assert not mask.equal(logits > 0.5), (
        "the threshold 0.5 belongs to probabilities, but these are logits: put them through a sigmoid first"
    )
    assert mask.equal(want), f"logits {logits.flatten().tolist()} became {mask.int().flatten().tolist()}"


@as_check
def check_count_mistakes(fn: Callable[[Tensor, Tensor], tuple[int, int]]) -> None:
    """`fn(predicted, true) -> (missed, invented)`: pixels, from masks of {0, 1} of type uint8 or bool."""
    true = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)
    predicted = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)  # misses 3, invents 1
    answer = fn(predicted, true)
    assert isinstance(answer, tuple | list) and len(answer) == 2, "two numbers are wanted: (missed, invented)"
    assert all(getattr(value, "numel", lambda: 1)() == 1 for value in answer), "each is one number: sum over all pixels"
    missed, invented = (float(value) for value in answer)
    assert (missed, invented) != (1, 3), (
        "missed and invented are swapped: a missed pixel is nucleus in `true` and background in `predicted`"
    )
    assert missed < 100 and invented < 100, (
        "uint8 cannot go below zero, 0 - 1 is 255 there: turn the masks into bool, or compare instead of subtracting"
    )
    assert (missed, invented) not in {(2, -2), (2, 0)}, (
        "a difference of areas lets mistakes cancel each other: compare pixel by pixel"
    )
    assert not (missed == invented == 4), "both numbers count every wrong pixel: keep the two kinds apart"
    assert missed == int(missed) and invented == int(invented), "shares came out: count pixels, do not average"
    assert (missed, invented) == (3, 1), (
        f"3 pixels are missed and 1 is invented, but ({missed:g}, {invented:g}) came out"
    )
    answer = tuple(float(value) for value in fn(predicted.bool(), true.bool()))
    assert answer == (3, 1), f"bool masks give {answer} where uint8 masks gave (3, 1)"
