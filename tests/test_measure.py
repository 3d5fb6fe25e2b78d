"""What a net costs and sees: published numbers, hand-made allocations, receptive fields and silent nodes."""

from functools import partial

import pytest
import torch
from torch import nn

from course_lib import measure
from course_lib.errors import UserError
from course_lib.grid import SKIPS, WIDTHS, NestedUNet, VGGBlock
from course_lib.losses import bce_dice, lovasz_hinge
from course_lib.measure import latency, macs, median_ms, node_gradients, parameters, peak_memory, receptive_field


def make(**options):
    torch.manual_seed(0)
    return NestedUNet(**({"widths": (4, 6, 10)} | options))


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
    assert macs(nn.ConvTranspose2d(3, 9, 3, stride=2, groups=3), (4, 6)) == 4 * 6 * 3 * 3 * 9  # no other group's


@pytest.mark.parametrize(
    ("wiring", "expected"), [("unet++", [0.560, 1.452, 2.854, 4.850]), ("unet", [0.560, 1.027, 1.495, 1.962])]
)
def test_gmacs_at_the_default_widths_of_every_depth(wiring, expected):
    with torch.device("meta"):
        nets = [NestedUNet(widths=WIDTHS[: depth + 1], wiring=wiring) for depth in (1, 2, 3, 4)]
    assert [macs(net, (96, 96)) / 1e9 for net in nets] == pytest.approx(expected, abs=0.0005)


@pytest.mark.parametrize("look", [partial(macs, size=(32, 32)), partial(receptive_field, side=32)])
def test_to_measure_leaves_the_net_alone(look):
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    look(net)
    assert net.training
    assert isinstance(net.D, nn.MaxPool2d)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_latency_counts_the_calls_it_was_asked_for(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("finish"))
    assert [second >= 0 for second in latency(lambda: events.append("run"), repeats=4, warm_up=2)] == [True] * 4
    assert events == ["run"] * 2 + ["finish", "run", "finish"] * 4  # the clock waits for the device


def test_median_in_milliseconds(monkeypatch):
    monkeypatch.setattr(measure, "latency", lambda run, *, repeats: [0.004, 0.001, 0.1][:repeats])
    assert median_ms(lambda: None, repeats=3) == pytest.approx(4)


OLD, LEARNED = torch.ones(1000), torch.ones(1000, requires_grad=True)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: (torch.ones(1000), torch.ones(500)), 6000),  # bytes of float32
        (lambda: torch.ones(torch.ones(1000).numel() // 2), 4000),  # the first is freed
        (lambda: torch.ones(1000).exp().exp().exp().exp(), 8000),  # the old and the new one
        (lambda: (OLD.view(10, 100).T, OLD[:5], OLD.mul_(OLD)), 0),  # nothing is new
        (lambda: OLD.double(), 8000),
        (lambda: OLD.exp().exp().exp(), 8000),
        (lambda: LEARNED.exp().exp().exp(), 12000),  # backward will need them
        (lambda: None, 0),
    ],
)
def test_peak_memory_of_allocations_made_by_hand(run, expected, capfd):
    assert peak_memory(run) == expected
    assert capfd.readouterr().err == ""  # the profiler is silent


def test_pruned_nets_need_less_memory():
    net, image = make(widths=(4, 6, 10, 12), deep_supervision=True).eval(), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        whole = peak_memory(lambda: net(image))
        peaks = [peak_memory(partial(net.prune(level), image)) for level in (1, 2, 3)]
    assert peaks[0] < peaks[1] < peaks[2] == whole


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nn.Conv2d(3, 2, 1), (1, 1)),
        (nn.Conv2d(3, 2, 3, padding=1), (3, 3)),
        (nn.Conv2d(3, 2, (1, 5), padding=(0, 2)), (1, 5)),
        (VGGBlock(3, 4), (5, 5)),
        (nn.Sequential(VGGBlock(3, 4), VGGBlock(4, 6)), (9, 9)),
        (nn.Sequential(VGGBlock(3, 4), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), VGGBlock(4, 6)), (10, 10)),
        (nn.Sequential(nn.MaxPool2d(5, stride=1, padding=2)), (5, 5)),
        (
            nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 1, 2, 2), nn.ReLU()),
            (6, 6),
        ),
    ],
)
def test_receptive_fields_by_hand(net, expected):
    """10: rows 14..18 after the up-sampling come from rows 7..9, these from 14..19, and those from 12..21."""
    for learned in net.parameters():
        nn.init.constant_(learned, -1)
    assert receptive_field(net, side=32) == expected


@pytest.mark.parametrize("wiring", SKIPS)
def test_receptive_field_of_depth_1_by_derivation(wiring):
    """Two convolutions widen by 4, pooling doubles: 5 rows after the last block read, with align_corners, 4 rows of
    the small map (between h/2 - 1.25 and h/2 + 0.75); its two convolutions make them 8, pooling 16, the first two 20.
    """
    net = make(widths=(4, 6), wiring=wiring)
    assert receptive_field(net, side=64) == (20, 20)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):  # whatever it learned
        for learned, value in ((norm.running_mean, 9), (norm.weight, -1), (norm.bias, -9)):
            nn.init.constant_(learned, value)
    assert receptive_field(net, side=64) == (20, 20)


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


def batch():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 1, 16, 24, generator=generator) < 0.4).float()
    return torch.rand(2, 3, 16, 24, generator=generator), masks


@pytest.mark.parametrize(
    ("wiring", "deep", "silent"),
    [
        *((wiring, False, set()) for wiring in ("unet", "unet+", "unet++")),
        ("unet-e", False, {(0, 1), (0, 2), (1, 1)}),
        ("unet-e", True, set()),
    ],
)
def test_node_gradients_are_zero_exactly_where_no_head_depends(wiring, deep, silent):
    net = make(widths=(4, 6, 10, 12), wiring=wiring, deep_supervision=deep)
    gradients = node_gradients(net, *batch())
    assert list(gradients) == net.nodes
    assert {node for node, value in gradients.items() if value == 0} == silent


@pytest.mark.parametrize("loss", [bce_dice, lovasz_hinge])
def test_node_gradients_are_root_mean_squares(loss):
    net, (images, masks) = make(deep_supervision=True), batch()
    net(images)[-1].sum().backward()  # old gradients do not count
    measured = node_gradients(net, images, masks, loss=loss)
    assert all(p.grad is None for p in net.parameters())
    first, second = net(images)
    (0.5 * loss(first, masks) + 0.5 * loss(second, masks)).backward()
    for (i, j), value in measured.items():
        gradient = net.node(i, j).conv1.weight.grad
        assert value == pytest.approx((gradient.norm() / gradient.numel() ** 0.5).item(), rel=1e-4)


@pytest.mark.parametrize("wiring", SKIPS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_computed_receptive_field_is_the_measured_one(wiring, depth):
    net = NestedUNet(widths=(2,) * (depth + 1), wiring=wiring)
    first, last = measure.receptive_fields(net, side=128)[0, depth]
    assert measure.receptive_field(net, side=128) == (last - first + 1,) * 2


def test_computed_receptive_fields_by_hand():
    reach = measure.receptive_fields(NestedUNet(widths=(2, 2)), side=32)
    assert reach[0, 0] == (14, 18)  # two 3x3 convolutions around pixel 16
    assert reach[1, 0] == (10, 23)  # pixel 8 of row 1: 6..10 there, twice as wide, and two on either side
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


@pytest.mark.parametrize("cost", [parameters, macs])
def test_a_net_matches_itself(cost):
    net = NestedUNet(widths=(6, 12, 24), wiring="unet+")
    assert measure.matched_widths(cost(net), cost, widths=(6, 12, 24), wiring="unet+") == (6, 12, 24)


def test_a_cost_out_of_reach_is_refused():
    with pytest.raises(UserError, match="the nearest costs"):
        measure.matched_widths(10, parameters, widths=(8, 16))


@pytest.mark.parametrize(("cost", "first"), [(parameters, 35), (macs, 50)])
def test_the_u_nets_that_cost_what_unetpp_costs(cost, first):
    widths = measure.matched_widths(cost(NestedUNet()), cost, widths=WIDTHS)
    assert widths[0] == first
    assert cost(NestedUNet(widths=widths, wiring="unet")) == pytest.approx(cost(NestedUNet()), rel=0.002)


def test_the_costs_of_a_convolution_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 1)).to(torch.bfloat16)
    found = measure.convolution_costs(net, (2, 3, 8, 6), number=2)
    flop, moved = 2 * (2 * 5 * 48) * 27, 2 * (2 * 3 * 48 + 2 * 5 * 48 + 5 * 27)
    assert list(found) == ["0", "2"] and found["0"] == (flop, moved)
    assert next(net.parameters()).dtype == torch.bfloat16 and next(net.parameters()).device.type == "cpu"
    assert measure.roofline_seconds(flop, moved, peak=flop, bandwidth=2 * moved) == 1
    assert measure.roofline_seconds(flop, moved, peak=flop, bandwidth=moved / 4) == 4


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void at::native::upsample_bilinear2d_out_frame<float>", "up-sampling"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>", "norm"),
        ("at::native::batch_norm_transform_input_kernel", "norm"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("aten::convolution_backward", "convolution"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimiser"),
        ("void at::native::vectorized_elementwise_kernel<4>", "else"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel, kind):
    assert measure.kind_of(kernel) == kind
