"""What a net costs and sees: published numbers, hand-made allocations, receptive fields and silent nodes."""

from functools import partial

import pytest
import torch
from torch import nn

from course_lib import measure
from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet, VGGBlock
from course_lib.losses import bce_dice, lovasz_hinge
from course_lib.measure import latency, macs, median_ms, node_gradients, parameters, peak_memory, receptive_field

DEFAULT = (32, 64, 128, 256, 512)


def make(**options):
    torch.manual_seed(0)
    return NestedUNet(**({"widths": (4, 6, 10)} | options))


# Parameters and MACs


def test_parameters_by_hand():
    # (3 * 9 + 1) * 4 and (4 * 9 + 1) * 4 for the convolutions, 2 * 4 for each norm
    assert parameters(VGGBlock(3, 4)) == 28 * 4 + 37 * 4 + 2 * 8


def test_macs_by_hand():
    assert macs(nn.Conv2d(3, 8, 3, padding=1), (4, 6)) == 4 * 6 * 8 * 27
    assert macs(nn.Conv2d(3, 8, 3, stride=2), (9, 7)) == 4 * 3 * 8 * 27
    assert macs(nn.Conv2d(4, 8, (1, 5), groups=2), (4, 6), in_channels=4) == 4 * 2 * 8 * 2 * 5
    assert macs(VGGBlock(3, 4), (4, 6)) == 24 * (4 * 27 + 4 * 36)
    assert macs(nn.BatchNorm2d(3), (4, 6)) == 0
    assert macs(nn.ConvTranspose2d(3, 8, 2, stride=2), (4, 6)) == 4 * 6 * 3 * 8 * 4  # (8, 12) pixels, one tap each


@pytest.mark.parametrize(
    ("wiring", "levels", "expected"),
    [
        ("unet++", 1, 0.560),
        ("unet++", 2, 1.452),
        ("unet++", 3, 2.854),
        ("unet++", 4, 4.850),
        ("unet", 1, 0.560),
        ("unet", 2, 1.027),
        ("unet", 3, 1.495),
        ("unet", 4, 1.962),
    ],
)
def test_gmacs_at_the_default_widths(wiring, levels, expected):
    with torch.device("meta"):
        net = NestedUNet(widths=DEFAULT[: levels + 1], wiring=wiring)
    assert macs(net, (96, 96)) / 1e9 == pytest.approx(expected, abs=0.0005)


def test_macs_grow_with_the_pixels_and_touch_nothing():
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert macs(net, (32, 48)) == 6 * macs(net, (16, 16))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


# Time


def test_latency_counts_the_calls_it_was_asked_for(monkeypatch):
    events = []
    monkeypatch.setattr(measure, "_finish", lambda: events.append("finish"))
    seconds = latency(lambda: events.append("run"), repeats=4, warm_up=2)
    assert len(seconds) == 4
    assert all(second >= 0 for second in seconds)
    assert events == ["run"] * 2 + ["finish", "run", "finish"] * 4  # the clock waits for the device


def test_median_in_milliseconds(monkeypatch):
    monkeypatch.setattr(measure, "latency", lambda run, *, repeats: [0.004, 0.001, 0.1][:repeats])
    assert median_ms(lambda: None, repeats=3) == pytest.approx(4)


# Memory, in bytes of float32


def two_alive():
    a, b = torch.ones(1000), torch.ones(500)
    return a, b


def freed_first():
    a = torch.ones(1000)
    del a
    return torch.ones(500)


def views_and_in_place():
    a = torch.ones(1000)
    b, c = a.view(10, 100), a[:5]
    a.add_(1)
    return b.T, c


def chain():
    x = torch.ones(1000)
    for _ in range(4):
        x = x + 1  # the old and the new one
    return x


def in_between():
    a = torch.ones(1000)
    b = a * 2
    c = b.sum()
    del a, b
    return c, torch.ones(1500)


@pytest.mark.parametrize(
    ("run", "expected"),
    [(two_alive, 6000), (freed_first, 4000), (views_and_in_place, 4000), (chain, 8000), (in_between, 8004)],
)
def test_peak_memory_of_allocations_made_by_hand(run, expected):
    assert peak_memory(run) == expected


def test_peak_memory_counts_only_what_is_new():
    old = torch.ones(1000)
    assert peak_memory(lambda: old.view(10, 100)) == 0
    assert peak_memory(lambda: old.double()) == 8000
    assert peak_memory(lambda: None) == 0


def test_peak_memory_keeps_what_backward_will_need():
    x = torch.ones(1000, requires_grad=True)

    def squares():
        return x.exp().exp().exp()

    with torch.no_grad():
        alone = peak_memory(squares)
    assert (peak_memory(squares), alone) == (12000, 8000)


def test_pruned_nets_need_less_memory():
    net, image = make(widths=(4, 6, 10, 12), deep_supervision=True).eval(), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        whole = peak_memory(lambda: net(image))
        peaks = [peak_memory(partial(net.prune(level), image)) for level in (1, 2, 3)]
    assert peaks[0] < peaks[1] < peaks[2] == whole


# Receptive fields


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nn.Conv2d(3, 2, 1), (1, 1)),
        (nn.Conv2d(3, 2, 3, padding=1), (3, 3)),
        (nn.Conv2d(3, 2, (1, 5), padding=(0, 2)), (1, 5)),
        (VGGBlock(3, 4), (5, 5)),
        (nn.Sequential(VGGBlock(3, 4), VGGBlock(4, 6)), (9, 9)),
        (nn.Sequential(VGGBlock(3, 4), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), VGGBlock(4, 6)), (10, 10)),
    ],
)
def test_receptive_fields_by_hand(net, expected):
    """The last: rows 14..18 after the up-sampling come from rows 7..9, these from 14..19, and those from 12..21."""
    torch.manual_seed(0)
    assert receptive_field(net, side=32) == expected


def test_receptive_fields_of_pooling_at_stride_1_and_of_up_convolutions():
    assert receptive_field(nn.Sequential(nn.MaxPool2d(5, stride=1, padding=2)), side=32) == (5, 5)
    torch.manual_seed(0)
    up = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, stride=2))
    assert receptive_field(nn.Sequential(up, nn.ReLU()), side=32) == (6, 6)


@pytest.mark.parametrize("wiring", ["unet", "unet-e", "unet+", "unet++"])
def test_receptive_field_of_depth_1_by_derivation(wiring):
    """Two convolutions widen by 4, pooling doubles: 5 rows after the last block read, with align_corners, 4 rows of
    the small map (between h/2 - 1.25 and h/2 + 0.75); its two convolutions make them 8, pooling 16, the first two 20.
    """
    assert receptive_field(make(widths=(4, 6), wiring=wiring), side=64) == (20, 20)


def test_receptive_field_is_what_a_changed_row_can_change():
    """Without gradients: new values in one row or column, does the middle change? (Shifts keep the ReLUs open.)"""
    net, side = make(widths=(2, 3, 3), in_channels=1).eval().double(), 64
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 20)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, side, side, dtype=torch.float64, generator=generator)
    brute_force = []
    with torch.no_grad():
        reference = net(image)[-1][0, 0, side // 2, side // 2]
        for axis in (1, 2):
            changed = image.repeat(side, 1, 1, 1)
            for n in range(side):
                changed[n].select(axis, n).uniform_(-3, 3, generator=generator)
            seen = (net(changed)[-1][:, 0, side // 2, side // 2] != reference).nonzero()
            brute_force.append(int(seen.max() - seen.min()) + 1)
    assert brute_force == [52, 52]
    assert receptive_field(net, side=side, in_channels=1) == (52, 52)


def test_receptive_field_of_every_head():
    """Deep supervision or not, it is the last head that is measured: the deepest."""
    fields = [receptive_field(make(deep_supervision=True).prune(level), side=64) for level in (1, 2)]
    assert fields == [(20, 20), (52, 52)]
    assert receptive_field(make(deep_supervision=True), side=64) == (52, 52)


def test_receptive_field_does_not_depend_on_what_was_learned():
    net = make(widths=(4, 6))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_mean, 9)
            nn.init.constant_(module.weight, -1)
            nn.init.constant_(module.bias, -9)
    assert receptive_field(net, side=64) == (20, 20)


def test_receptive_field_leaves_the_net_alone():
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    receptive_field(net, side=32)
    assert net.training
    assert isinstance(net.D, nn.MaxPool2d)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Gradients


def batch():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 1, 16, 24, generator=generator) < 0.4).float()
    return torch.rand(2, 3, 16, 24, generator=generator), masks


@pytest.mark.parametrize(
    ("options", "silent"),
    [
        ({"wiring": "unet"}, set()),
        ({"wiring": "unet-e"}, {(0, 1), (0, 2), (1, 1)}),
        ({"wiring": "unet+"}, set()),
        ({"wiring": "unet++"}, set()),
        ({"wiring": "unet-e", "deep_supervision": True}, set()),
    ],
)
def test_node_gradients_are_zero_exactly_where_no_head_depends(options, silent):
    net = make(widths=(4, 6, 10, 12), **options)
    found = node_gradients(net, *batch())
    assert list(found) == net.nodes
    assert {node for node, value in found.items() if value == 0} == silent


@pytest.mark.parametrize("loss", [bce_dice, lovasz_hinge])
def test_node_gradients_are_root_mean_squares(loss):
    net, (images, masks) = make(deep_supervision=True), batch()
    found = node_gradients(net, images, masks, loss=loss)
    assert all(p.grad is None for p in net.parameters())
    first, second = net(images)
    (0.5 * loss(first, masks) + 0.5 * loss(second, masks)).backward()
    for (i, j), value in found.items():
        gradient = getattr(net, f"conv{i}_{j}").conv1.weight.grad
        assert value == pytest.approx((gradient.norm() / gradient.numel() ** 0.5).item(), rel=1e-4)


def test_old_gradients_do_not_count():
    net, (images, masks) = make(), batch()
    expected = node_gradients(net, images, masks)
    net(images)[-1].sum().backward()
    assert node_gradients(net, images, masks) == pytest.approx(expected, rel=1e-5)


# Computed for every node


@pytest.mark.parametrize("wiring", SKIPS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_computed_receptive_field_is_the_measured_one(wiring, depth):
    net = NestedUNet(widths=(2,) * (depth + 1), wiring=wiring)
    first, last = measure.receptive_fields(net, side=128)[0, depth]
    assert measure.receptive_field(net, side=128) == (last - first + 1,) * 2


def test_computed_receptive_fields_by_hand():
    found = measure.receptive_fields(NestedUNet(widths=(2, 2)), side=32)
    assert found[0, 0] == (14, 18)  # two 3x3 convolutions around pixel 16
    assert found[1, 0] == (10, 23)  # pixel 8 of row 1: 6..10 there, twice as wide, and two on either side
    assert measure.receptive_fields(NestedUNet(widths=(2, 2)), side=32, at=0)[0, 0] == (0, 2)


@pytest.mark.parametrize(("side", "at"), [(30, None), (32, 32), (32, -1)])
def test_receptive_fields_refuse(side, at):
    with pytest.raises(UserError):
        measure.receptive_fields(NestedUNet(widths=(2, 2, 2)), side=side, at=at)


@pytest.mark.parametrize("wiring", SKIPS)
def test_node_costs_add_up_to_the_net(wiring):
    net = NestedUNet(widths=(4, 6, 10), wiring=wiring)
    costs = measure.node_costs(net, (16, 24))
    assert list(costs) == net.nodes
    assert sum(cost["parameters"] for cost in costs.values()) + 4 + 1 == measure.parameters(net)
    assert sum(cost["macs"] for cost in costs.values()) + 4 * 16 * 24 == measure.macs(net, (16, 24))


# Matched widths


@pytest.mark.parametrize("cost", [parameters, macs])
def test_a_net_matches_itself(cost):
    net = NestedUNet(widths=(6, 12, 24), wiring="unet+")
    assert measure.matched_widths(cost(net), cost, widths=(6, 12, 24), wiring="unet+") == (6, 12, 24)


def test_a_cost_out_of_reach_is_refused():
    with pytest.raises(UserError, match="the nearest costs"):
        measure.matched_widths(10, parameters, widths=(8, 16))


@pytest.mark.parametrize(("cost", "first"), [(parameters, 35), (macs, 50)])
def test_the_u_nets_that_cost_what_unetpp_costs(cost, first):
    widths = measure.matched_widths(cost(NestedUNet()), cost, widths=DEFAULT)
    assert widths[0] == first
    assert cost(NestedUNet(widths=widths, wiring="unet")) == pytest.approx(cost(NestedUNet()), rel=0.002)
