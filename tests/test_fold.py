"""Folding: the same logits, no norms, and the net that was given left alone."""

import pytest
import torch
from torch import nn

from course_lib.grid import SKIPS, NestedUNet
from course_lib.predict.fold import folded
from course_lib.train.checkpoint import same_weights


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


@pytest.mark.parametrize("wiring", SKIPS)
def test_the_logits_stay_the_same(wiring):
    net = worn(wiring=wiring, deep_supervision=wiring != "unet")
    image = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        before, after = net.eval()(image), folded(net)(image)
    assert len(before) == len(after)
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_one_block_by_hand():
    net = worn(wiring="unet")
    block = net.eval().node(0, 0)
    scale = block.bn1.weight / (block.bn1.running_var + block.bn1.eps).sqrt()
    conv = folded(net).node(0, 0).conv1
    torch.testing.assert_close(conv.weight, block.conv1.weight * scale[:, None, None, None])
    torch.testing.assert_close(conv.bias, (block.conv1.bias - block.bn1.running_mean) * scale + block.bn1.bias)


def test_no_norm_is_left_and_the_given_net_is_as_it_was():
    net = worn().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    small = folded(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert net.training and not small.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not same_weights(net, small)


def test_a_pruned_net_can_be_folded():
    net = worn(deep_supervision=True).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(folded(net.prune(1))(image)[0], net(image)[0], rtol=1e-4, atol=1e-4)
