"""Folding: the same logits, no norms, and the net that was given left alone."""

import copy

import pytest
import torch
from torch import nn

from course_lib.grid import SKIPS, NestedUNet
from course_lib.predict.setting import folded
from tests.weights import same_weights


def worn(**options):
    """A net whose norms have seen something: statistics, scales and shifts far from their start."""
    torch.manual_seed(0)
    net = NestedUNet(widths=(4, 6, 10), **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net


@pytest.mark.parametrize("wiring", [*SKIPS, "pruned"])
@torch.no_grad()
def test_the_logits_stay_and_so_does_the_given_net(wiring):
    if wiring == "pruned":
        net = worn(deep_supervision=True).prune(1)
    else:
        net = worn(wiring=wiring, deep_supervision=wiring != "unet")
    before, image = copy.deepcopy(net), torch.rand(2, 3, 16, 24)
    small = folded(net.train())
    assert net.training and not small.training and same_weights(net, before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    for logits, expected in zip(small(image), net.eval()(image), strict=True):
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_one_block_by_hand():
    net = worn(wiring="unet")
    block = net.eval().node(0, 0)
    scale = block.bn1.weight / (block.bn1.running_var + block.bn1.eps).sqrt()
    conv = folded(net).node(0, 0).conv1
    torch.testing.assert_close(conv.weight, block.conv1.weight * scale[:, None, None, None])
    torch.testing.assert_close(conv.bias, (block.conv1.bias - block.bn1.running_mean) * scale + block.bn1.bias)
