"""Lesson 04: a U-Net."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.checks.machinery import as_check
from course_lib.checks.nets import (
    assert_every_channel_is_used,
    assert_gradients_are_true,
    assert_no_plain_lists,
    assert_same_function,
    sizes_of_feature_maps,
)
from course_lib.grid import NestedUNet


@as_check
def check_unet(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: a U-Net of blocks that returns logits at the size of the input."""
    widths, image = (4, 6, 10), torch.randn(2, 3, 16, 24)
    net = cls(3, 2, widths)
    assert_no_plain_lists(net)
    try:
        sizes, logits = sizes_of_feature_maps(net, image)
    except RuntimeError as problem:
        assert "Sizes of tensors must match" not in str(problem), (
            "what comes from below and the skip beside it differ in size: the way up begins at the lowest row, so "
            "skips are read from the back, and the lowest map itself is no skip"
        )
        raise
    assert isinstance(logits, Tensor), f"a tensor of logits is wanted, this is {type(logits).__name__}"
    assert logits.shape == (2, 2, 16, 24), (
        f"an image of 16x24 with 2 classes gives logits (2, 2, 16, 24), these are {tuple(logits.shape)}"
    )
    smallest = min(sizes)
    assert smallest == (4, 6), (
        f"the smallest feature map of 16x24 is {smallest[0]}x{smallest[1]}: with three widths the image is halved "
        "twice, to 4x6, and the first block works at full size"
    )
    assert logits.any(), "every logit is 0: does the last line return what the decoder made?"
    assert logits.min() < 0 or logits.max() > 1, (
        "all values lie between 0 and 1: return logits, the loss takes the sigmoid by itself"
    )
    assert logits.min() < 0, "no logit is below 0: is there a ReLU behind the head?"
    assert not any(
        isinstance(value, list) and any(isinstance(x, Tensor) for x in value) for value in vars(net).values()
    ), "a list in self keeps feature maps from one call to the next: make it a local variable of forward"
    deeper, _ = sizes_of_feature_maps(cls(3, 2, (4, 5, 6, 7)), image)
    assert min(deeper) == (2, 3), (
        "with four widths the image is halved three times: loop over the blocks, do not write them out for three"
    )
    assert_every_channel_is_used(net, image)
    assert_gradients_are_true(net, image)
    reference = NestedUNet(3, 2, widths, wiring="unet")
    ours, theirs = (sum(p.numel() for p in n.parameters()) for n in (net, reference))
    assert ours == theirs, (
        f"{ours} parameters, but two convolutions a node, skips concatenated, and a 1x1 head make {theirs}: "
        "is a skip missing, or added instead of concatenated?"
    )
    assert_same_function(net, reference, image)
