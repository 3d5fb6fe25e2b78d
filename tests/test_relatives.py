"""The relatives: their formulas against nets written out by hand, and the one interface that they all share."""

from math import exp, prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.data import Split, Splits
from course_lib.errors import UserError
from course_lib.grid import NestedUNet, VGGBlock
from course_lib.losses import bce_dice, deep_supervision
from course_lib.measure import macs, parameters
from course_lib.predict import predict, probabilities, standardise
from course_lib.predict.setting import Setting
from course_lib.relatives import (
    RELATIVES,
    AttentionUNetPlusPlus,
    DenseBlock,
    DenseUNetPlusPlus,
    Fusion,
    Gate,
    OriginalUNet,
    Pooling,
    RefineNet,
    ResidualUnit,
    UNet3Plus,
    border_weights,
)
from course_lib.train import Recipe, fit

WIDTHS = (4, 6, 10)
NESTED = [AttentionUNetPlusPlus, DenseUNetPlusPlus]
EVERY = [
    *((cls, {}) for cls in RELATIVES.values()),
    *((cls, {"deep_supervision": True}) for cls in [*NESTED, UNet3Plus]),
    (UNet3Plus, {"deep_supervision": True, "classification": True, "cat_width": 5}),
]


def make(cls, seed=0, **options):
    torch.manual_seed(seed)
    return cls(**({"in_channels": 3, "classes": 1, "widths": WIDTHS} | options))


def live(net, seed=1):
    """Batch norm with statistics, scales and shifts of its own, as after training: no map fades out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            for shift in (norm.bias, norm.running_mean):
                shift.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.1, 0.4, generator=generator)
    return net.eval()


def picture(*, batch=2, channels=3, size=(16, 24), seed=2):
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def conv(x, weights, name, padding=1):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)


def norm(x, weights, name):
    statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics)


def up(x, times=2):
    return F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=True)


def encoder(image, weights, rows):
    """The first column written out: x^{0,0}, x^{1,0} ..."""
    x = []
    for i in range(rows):
        y = F.max_pool2d(x[-1], 2) if x else image
        for n in (1, 2):
            y = F.relu(norm(conv(y, weights, f"encoder.H.{i}.conv{n}"), weights, f"encoder.H.{i}.bn{n}"))
        x.append(y)
    return x


# Values known from the papers, the released code and by hand


@pytest.mark.parametrize(
    ("cls", "options", "expected"),
    [
        (AttentionUNetPlusPlus, {"deep_supervision": True}, 9_163_428 + 229_020),
        (AttentionUNetPlusPlus, {}, 9_163_329 + 229_020),
        (UNet3Plus, {}, 26_971_777),
        (UNet3Plus, {"cat_width": 64, "deep_supervision": True}, 26_989_637),
        (UNet3Plus, {"deep_supervision": True, "classification": True}, 26_991_687),
        (UNet3Plus, {"widths": (32, 64, 128, 256, 512)}, 6_748_993),
        (OriginalUNet, {}, 31_030_658),
    ],
)
def test_parameters_at_the_default_widths(cls, options, expected):
    with torch.device("meta"):
        assert parameters(cls(**options)) == expected


def test_parameters_of_a_dense_block_by_hand():
    block = DenseBlock(3, 8)
    first, second = 2 * 3 + (9 * 3 + 1) * 4, 2 * 7 + (9 * 7 + 1) * 4
    assert parameters(block) == first + second + (11 + 1) * 8


def test_parameters_of_refinenet_by_hand():
    def c3(c_in, c_out):
        return (9 * c_in + 1) * c_out

    encoder = sum(parameters(VGGBlock(*pair)) for pair in ((3, 4), (4, 6), (6, 10)))
    units = sum(2 * c3(c, c) * (2 + 1) for c in WIDTHS) + sum(2 * c3(c, c) * 2 for c in WIDTHS[1:])
    pooling = sum(2 * c3(c, c) for c in WIDTHS)
    fusion = c3(4, 4) + c3(6, 4) + c3(6, 6) + c3(10, 6)
    assert parameters(make(RefineNet)) == encoder + units + pooling + fusion + 5


# Attention UNet++


def test_a_gate_on_every_skip():
    net = make(AttentionUNetPlusPlus, widths=(4, 6, 10, 12, 14))
    assert sum(isinstance(module, Gate) for module in net.modules()) == 20
    assert {len(net.gate(i, k, j).W_f[0].weight) for i, j in net.nodes if i == 0 for k in range(j)} == {2}
    assert make(AttentionUNetPlusPlus, widths=(1, 1)).gate(0, 0, 1).W_g[0].out_channels == 1


def test_a_gate_by_hand():
    gate = Gate(2, 1).eval()
    weights = {"W_g": [[2.0]], "W_f": [[1.0, -3.0]], "W_psi": [[0.5]]}
    with torch.no_grad():
        for name, values in weights.items():
            layer, normalise = getattr(gate, name)
            layer.weight.copy_(torch.tensor(values)[:, :, None, None])
            layer.bias.fill_(0.25)
            normalise.eps = 0.0
    f, g = torch.tensor([4.0, 1.0]).reshape(1, 2, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    alpha = 1 / (1 + exp(-(0.5 * ((2 * 3 + 0.25) + (4 - 3 + 0.25)) + 0.25)))
    assert gate(f, g).flatten().tolist() == pytest.approx([4 * alpha, alpha])
    assert gate.alpha(f, -3 * g).item() == pytest.approx(1 / (1 + exp(-0.25)))  # the ReLU: 1.25 - 17.75 counts as 0


def test_every_gate_sees_its_skip_and_what_comes_from_below():
    net, x, seen = live(make(AttentionUNetPlusPlus, widths=(4, 6, 10, 12))), {}, {}
    for i, j in net.nodes:
        net.node(i, j).register_forward_hook(lambda _, __, output, node=(i, j): x.update({node: output}))
        for k in range(j):
            net.gate(i, k, j).register_forward_hook(lambda _, inputs, __, edge=(i, k, j): seen.update({edge: inputs}))
    net(picture())
    assert len(seen) == 10
    for (i, k, j), (f, g) in seen.items():
        assert torch.equal(f, x[i, k])
        assert torch.equal(g, up(x[i + 1, j - 1]))


def set_gate(gate, value):
    torch.nn.init.constant_(gate.W_psi[1].bias, value)


@pytest.mark.parametrize("edge", [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1)])
def test_a_closed_gate_is_a_skip_of_zeros(edge):
    i, k, j = edge
    net, other = (live(make(AttentionUNetPlusPlus, deep_supervision=True)) for _ in range(2))
    set_gate(net.gate(*edge), -1e4)
    with torch.no_grad():
        other.node(i, j).conv1.weight[:, k * WIDTHS[i] : (k + 1) * WIDTHS[i]] = 0
    open_ = live(make(AttentionUNetPlusPlus, deep_supervision=True))(picture())
    for found, expected in zip(net(picture()), other(picture()), strict=True):
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(net(picture())[-1], open_[-1])


def test_open_gates_are_unetpp():
    net = live(make(AttentionUNetPlusPlus, deep_supervision=True))
    for i, j in net.nodes:
        for k in range(j):
            set_gate(net.gate(i, k, j), 1e4)
    plain = make(NestedUNet, seed=1, deep_supervision=True).eval()
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "gate" not in name})
    assert all(torch.equal(one, other) for one, other in zip(net(picture()), plain(picture()), strict=True))


# UNet 3+


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_unet3plus_of_any_depth(depth):
    net = make(UNet3Plus, widths=(4, 6, 10, 3, 7)[: depth + 1], deep_supervision=True, classes=2)
    assert [tuple(logits.shape) for logits in net(picture(size=(16, 32)))] == [(2, 2, 16, 32)] * (depth + 1)


def test_unet3plus_is_the_net_written_out():
    net = live(make(UNet3Plus, widths=(4, 6, 10, 12), cat_width=5, deep_supervision=True))
    weights = net.state_dict()

    def unit(x, name):
        return F.relu(norm(conv(x, weights, f"{name}.0"), weights, f"{name}.1"))

    def node(row, *scales):
        return unit(torch.cat([unit(x, f"C.{row}.{k}") for k, x in enumerate(scales)], dim=1), f"H.{row}")

    e0, e1, e2, d3 = encoder(picture(), weights, 4)
    d2 = node(2, F.max_pool2d(e0, 4), F.max_pool2d(e1, 2), e2, up(d3))
    d1 = node(1, F.max_pool2d(e0, 2), e1, up(d2), up(d3, 4))
    d0 = node(0, e0, up(d1), up(d2, 4), up(d3, 8))
    deep = [up(conv(x, weights, f"heads.{i}"), 2**i) for i, x in ((3, d3), (2, d2), (1, d1))]
    expected = [*deep, conv(d0, weights, "heads.0")]
    found = net(picture())
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert one.std() > 0.01


def test_one_head_of_unet3plus_is_the_last_of_all():
    deep, net = live(make(UNet3Plus, deep_supervision=True)), make(UNet3Plus, seed=1).eval()
    net.load_state_dict({name: deep.state_dict()[name] for name in net.state_dict()})
    assert len(net(picture())) == 1
    assert torch.equal(net(picture())[0], deep(picture())[-1])


def guided():
    return live(make(UNet3Plus, deep_supervision=True, classification=True))


class Verdicts(torch.nn.Module):
    """The second image alone is empty."""

    def forward(self, x):
        return torch.tensor([[0.0, 1.0], [0.2, 0.1], [-2.0, -1.0]])


def test_an_image_judged_empty_gets_an_empty_map_and_the_others_their_own():
    net, plain = guided(), make(UNet3Plus, seed=1, deep_supervision=True).eval()
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "classifier" not in name})
    net.classifier, images = Verdicts(), picture(batch=3)
    for logits, own in zip(net(images), plain(images), strict=True):
        assert torch.equal(logits[[0, 2]], own[[0, 2]])
        assert logits[1].sigmoid().max() < 1e-6


def test_an_untrained_verdict_is_not_empty_in_both_modes():
    net = guided()
    for mode in (True, False):
        assert net.train(mode).presence(picture(batch=5)).tolist() == [[0, 1]] * 5  # whatever the image shows


def test_presence_is_dropout_convolution_and_maximum():
    net = guided()
    torch.nn.init.normal_(net.classifier[1].weight, generator=torch.Generator().manual_seed(0))
    deepest = encoder(picture(), net.state_dict(), 3)[-1]
    expected = conv(deepest, net.state_dict(), "classifier.1", padding=0).amax((2, 3))
    torch.testing.assert_close(net.presence(picture()), expected)
    assert not torch.allclose(net.train().presence(picture()), net.presence(picture()))  # dropout


def test_presence_learns():
    net = make(UNet3Plus, classification=True)
    images = picture(batch=8)
    images[::2, :, 3:9, 4:12] += 2
    there = torch.tensor([1, 0] * 4)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(25):
        optimiser.zero_grad()
        F.cross_entropy(net.presence(images), there).backward()
        optimiser.step()
    assert net.presence(images).argmax(1).tolist() == there.tolist()


def test_presence_is_refused_without_its_module():
    with pytest.raises(UserError, match="no classification module: make it with classification=True"):
        make(UNet3Plus).presence(picture())
    with pytest.raises(UserError, match="17x24 cannot be halved 2 times"):
        guided().presence(picture(size=(17, 24)))


def test_a_cat_width_without_channels_is_refused():
    with pytest.raises(UserError, match="cat_width is 0: give a positive number"):
        make(UNet3Plus, cat_width=0)


# RefineNet


def test_a_residual_unit_with_zero_weights_is_the_identity():
    unit, x = ResidualUnit(3), picture() - 0.5
    torch.nn.init.zeros_(unit.conv2.weight)
    torch.nn.init.zeros_(unit.conv2.bias)
    assert torch.equal(unit(x), x)


def test_a_residual_unit_by_hand():
    unit = ResidualUnit(1)
    with torch.no_grad():
        for layer, weight, bias in ((unit.conv1, -2.0, 7.0), (unit.conv2, 3.0, -1.0)):
            torch.nn.init.zeros_(layer.weight)
            layer.weight[0, 0, 1, 1], layer.bias[0] = weight, bias
    x = torch.tensor([-5.0, 1.0, 4.0]).reshape(1, 1, 1, 3)
    # relu x = 0, 1, 4 -> 7 - 2 x = 7, 5, -1 -> relu 7, 5, 0 -> 3 x - 1 = 20, 14, -1
    assert unit(x).flatten().tolist() == [15, 15, 3]


def test_fusion_is_a_sum():
    torch.manual_seed(0)
    fusion, x, y = Fusion(4, 6), picture(channels=4), picture(channels=6, size=(8, 12))
    weights = fusion.state_dict()
    expected = conv(x, weights, "conv_x") + up(conv(y, weights, "conv_y"))
    torch.testing.assert_close(fusion(x, y), expected)
    assert fusion(x, y).shape == x.shape


def test_chained_pooling_by_hand():
    pooling = Pooling(1)
    with torch.no_grad():
        for layer, weight in zip(pooling.convs, (2.0, 10.0), strict=True):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            layer.weight[0, 0, 1, 1] = weight
    x = torch.tensor([3.0, -7.0, 0, 0, 0, 0, 1.0, 0]).reshape(1, 1, 1, 8)
    p_0 = [3, 0, 0, 0, 0, 0, 1, 0]
    p_1 = [6, 6, 6, 0, 2, 2, 2, 2]  # twice the maximum of two to either side
    p_2 = [60, 60, 60, 60, 60, 20, 20, 20]
    assert pooling(x).flatten().tolist() == [sum(terms) for terms in zip(p_0, p_1, p_2, strict=True)]


def test_refinenet_is_the_net_written_out():
    net = live(make(RefineNet))
    weights = net.state_dict()

    def unit(x, name):
        return x + conv(F.relu(conv(F.relu(x), weights, f"{name}.conv1")), weights, f"{name}.conv2")

    def twice(x, name):
        return unit(unit(x, f"{name}.0"), f"{name}.1")

    def refine(x, row):
        out = p = F.relu(x)
        for n in (0, 1):
            p = conv(F.max_pool2d(p, 5, 1, 2), weights, f"refine.{row}.0.convs.{n}")
            out = out + p
        return unit(out, f"refine.{row}.1")

    def fuse(x, y, row):
        return conv(x, weights, f"fuse.{row}.conv_x") + up(conv(y, weights, f"fuse.{row}.conv_y"))

    x0, x1, x2 = encoder(picture(), weights, 3)
    y2 = refine(twice(x2, "adapt_x.2"), 2)
    y1 = refine(fuse(twice(x1, "adapt_x.1"), twice(y2, "adapt_y.1"), 1), 1)
    y0 = refine(fuse(twice(x0, "adapt_x.0"), twice(y1, "adapt_y.0"), 0), 0)
    torch.testing.assert_close(net(picture())[0], conv(y0, weights, "head", padding=0), rtol=1e-4, atol=1e-5)


def test_refinenet_of_two_scales_is_refused():
    with pytest.raises(UserError, match=r"widths \(4, 6\) make no RefineNet: give 3 or more positive numbers"):
        RefineNet(widths=(4, 6))


# DenseNet blocks


def test_a_dense_block_is_its_formula():
    torch.manual_seed(0)
    block, x_0 = live(DenseBlock(3, 8)), picture() - 0.5
    weights = block.state_dict()
    x_1 = conv(F.relu(norm(x_0, weights, "bn1")), weights, "conv1")
    x_2 = conv(F.relu(norm(torch.cat([x_0, x_1], 1), weights, "bn2")), weights, "conv2")
    expected = conv(torch.cat([x_0, x_1, x_2], 1), weights, "transition", padding=0)
    torch.testing.assert_close(block(x_0), expected)


def test_a_dense_block_sees_as_far_as_a_vgg_block():
    for block in (live(DenseBlock(3, 8)), live(VGGBlock(3, 8))):
        image = picture(batch=1, size=(11, 13)).requires_grad_()
        block(image)[0, :, 5, 6].sum().backward()
        seen = image.grad[0].abs().sum(0).nonzero()
        assert (seen.min(0).values.tolist(), seen.max(0).values.tolist()) == ([3, 4], [7, 8])


def test_every_node_of_the_dense_grid_is_dense():
    net = make(DenseUNetPlusPlus)
    assert {type(net.node(i, j)) for i, j in net.nodes} == {DenseBlock}
    assert not any(isinstance(module, VGGBlock) for module in net.modules())


# Pruning


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("cls", NESTED)
def test_pruning_keeps_the_logits_bit_for_bit(cls, level):
    net = live(make(cls, widths=(4, 6, 10, 12), deep_supervision=True))
    state = torch.get_rng_state()
    pruned = net.prune(level)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(pruned) is cls
    assert pruned.config == {**net.config, "widths": (4, 6, 10, 12)[: level + 1]}
    assert set(pruned.nodes) == {(i, j) for i, j in net.nodes if i + j <= level}
    whole, kept = net(picture()), pruned(picture())
    assert len(kept) == level
    assert all(torch.equal(one, other) for one, other in zip(kept, whole[:level], strict=True))
    assert kept[-1].std() > 0.01


@pytest.mark.parametrize("cls", NESTED)
def test_pruned_weights_are_copies_and_the_mode_stays(cls):
    net = make(cls, deep_supervision=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    pruned = net.prune(1)
    assert all(module.training for module in pruned.modules())
    with torch.no_grad():
        for value in pruned.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.eval().prune(1).modules())


@pytest.mark.parametrize("cls", NESTED)
def test_what_the_grid_refuses_to_prune_is_refused(cls):
    with pytest.raises(UserError, match="prune needs deep supervision"):
        make(cls).prune(1)
    with pytest.raises(UserError, match="level 3 does not exist: choose 1 to 2"):
        make(cls, deep_supervision=True).prune(3)


# The original U-Net


def test_572_pixels_become_388():
    with torch.device("meta"):
        net = OriginalUNet()
        assert (net.rim, net.valid(torch.empty(1, 1, 572, 572)).shape) == (92, (1, 2, 388, 388))


def test_valid_convolutions_written_out():
    net = make(OriginalUNet)
    weights = net.state_dict()

    def block(x, name):
        for n in (0, 2):
            x = F.relu(conv(x, weights, f"{name}.{n}", padding=0))
        return x

    def doubled(x, row):
        return F.conv_transpose2d(x, weights[f"U.{row}.weight"], weights[f"U.{row}.bias"], stride=2)

    x0 = block(picture(size=(44, 52)), "down.0")  # 40x48
    x1 = block(F.max_pool2d(x0, 2), "down.1")  # 16x20
    x2 = block(F.max_pool2d(x1, 2), "down.2")  # 4x6
    y1 = block(torch.cat([x1[:, :, 4:12, 4:16], doubled(x2, 1)], 1), "up.1")  # 4x8
    y0 = block(torch.cat([x0[:, :, 16:24, 16:32], doubled(y1, 0)], 1), "up.0")  # 4x12
    found = net.valid(picture(size=(44, 52)))
    assert found.shape == (2, 1, 4, 12)
    torch.testing.assert_close(found, conv(y0, weights, "head", padding=0))


@pytest.mark.parametrize("size", [(40, 44), (44, 43), (44, 46), (8, 8)])
def test_sizes_that_unpadded_convolutions_cannot_take_are_refused(size):
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]} does not fit .* sides of 44, 48, 52 \.\.\. pixels"):
        make(OriginalUNet).valid(picture(size=size))


@pytest.mark.parametrize("size", [(16, 24), (25, 31), (30, 4), (4, 2), (3, 5), (1, 7), (1, 1)])
def test_an_image_of_any_size_is_continued_by_its_mirror_image(size):
    net, image = make(OriginalUNet), picture(size=size)
    extra = [(20, 20 + (4 - side if side < 4 else -side % 4)) for side in size]  # numpy mirrors as often as it takes
    continued = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), *extra], mode="reflect"))
    found = net(image)[-1]
    assert found.shape == (2, 1, *size)
    torch.testing.assert_close(found, net.valid(continued)[:, :, : size[0], : size[1]])


def test_one_pooling_takes_one_pixel_too():
    assert make(OriginalUNet, widths=(4, 6))(picture(size=(1, 2)))[-1].shape == (2, 1, 1, 2)


def test_overlapping_tiles_agree_with_one_pass():
    net, image = make(OriginalUNet), picture(size=(60, 76))
    whole = net.valid(image)  # 20x36
    for y, x in ((0, 0), (4, 8), (8, 0), (12, 24)):
        tile = net.valid(image[:, :, y : y + 48, x : x + 52])  # 8x12
        torch.testing.assert_close(tile, whole[:, :, y : y + 8, x : x + 12], rtol=1e-5, atol=1e-5)
    inner = net(image)[0][:, :, 20:40, 20:56]  # where no mirrored pixel is in sight
    torch.testing.assert_close(inner, whole, rtol=1e-5, atol=1e-5)


def test_weights_have_the_deviation_of_he():
    net = make(OriginalUNet, widths=(16, 32, 48))
    for name, inputs in {"down.1.2": 9 * 32, "up.0.0": 9 * 32, "U.1": 48}.items():
        weights = net.state_dict()[f"{name}.weight"]
        assert weights.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
    assert all(not value.any() for name, value in net.state_dict().items() if name.endswith("bias"))


# Border weights

ROW = torch.tensor([[1, 1, 0, 0, 0, 2, 0, 0, 0, 0]])


def test_border_weights_by_hand():
    sums = [5, 4, 4, 4, 4, 4, 6, 8, 10, 12]  # distance to nucleus 1 plus distance to nucleus 2
    w_c = [10 / 6 if label else 10 / 14 for label in ROW[0]]  # 3 of 10 pixels are nucleus
    expected = [c + 7 * exp(-(d**2) / 8) for c, d in zip(w_c, sums, strict=True)]
    found = border_weights(ROW, w0=7.0, sigma=2.0)
    assert (found.shape, found.dtype) == ((1, 10), torch.float32)
    assert found[0].tolist() == pytest.approx(expected)


def test_only_the_two_nearest_nuclei_count():
    labels = torch.zeros(9, 9, dtype=torch.int32)
    labels[4, 0], labels[4, 4], labels[0, 8], labels[8, 8] = 5, 9, 2, 7
    w = border_weights(labels) - border_weights(labels, w0=0.0)
    assert w[4, 2].item() == pytest.approx(10 * exp(-((2 + 2) ** 2) / 50), rel=1e-5)
    assert w[4, 8].item() == pytest.approx(10 * exp(-((4 + 4) ** 2) / 50), rel=1e-5)
    assert w[1, 6].item() == pytest.approx(10 * exp(-((5**0.5 + 13**0.5) ** 2) / 50), rel=1e-5)


def test_class_weights_balance_and_have_mean_1():
    labels = torch.zeros(8, 12, dtype=torch.int64)
    labels[1:3, 1:4], labels[5:7, 6:11] = 1, 2
    w_c = border_weights(labels, w0=0.0)
    assert w_c[labels > 0].sum().item() == pytest.approx(w_c[labels == 0].sum().item())
    assert w_c.mean().item() == pytest.approx(1)


def test_fewer_than_two_nuclei_have_no_border():
    labels = torch.zeros(3, 6, 8, dtype=torch.int32)
    labels[1, 2:4, 3:5] = labels[2] = 6
    assert torch.equal(border_weights(labels), border_weights(labels, w0=0.0))
    assert torch.equal(border_weights(labels)[[0, 2]], torch.ones(2, 6, 8))


def test_border_weights_of_a_batch_are_those_of_its_images():
    batch = torch.stack([ROW, ROW.flip(1), 3 * ROW])
    assert torch.equal(border_weights(batch), torch.stack([border_weights(one) for one in batch]))
    assert torch.equal(border_weights(batch)[0], border_weights(batch)[2])  # numbers are names only


def test_border_weights_refuse():
    with pytest.raises(UserError, match=r"the labels have shape \(2, 1, 4, 4\): give \(height, width\)"):
        border_weights(torch.zeros(2, 1, 4, 4))
    with pytest.raises(UserError, match="sigma is 0: give a positive number of pixels"):
        border_weights(ROW, sigma=0)


# What all share


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_the_config_builds_the_same_net_again(cls, options):
    net = live(make(cls, classes=2, widths=list(WIDTHS), **options))
    again = cls(**net.config)
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.config == net.config
    assert net.config["widths"] == WIDTHS
    found, expected = again.eval()(picture()), net(picture())
    heads = {UNet3Plus: 3}.get(cls, 2) if "deep_supervision" in options else 1
    assert isinstance(found, list)
    assert [tuple(logits.shape) for logits in found] == [(2, 2, 16, 24)] * heads
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(logits.std() > 1e-3 for logits in found)


@pytest.mark.parametrize("cls", RELATIVES.values())
def test_same_seed_same_net(cls):
    one, other, third = make(cls, seed=5), make(cls, seed=5), make(cls, seed=6)
    assert torch.equal(one(picture())[-1], other(picture())[-1])
    assert not torch.equal(one(picture())[-1], third(picture())[-1])


@pytest.mark.parametrize("cls", RELATIVES.values())
def test_images_that_do_not_fit_are_refused(cls):
    net = make(cls)
    assert net.depth == (0 if cls is OriginalUNet else 2)
    with pytest.raises(UserError, match="the image has 1 channels and this net takes 3"):
        net(picture(channels=1))
    with pytest.raises(UserError, match=r"the images have shape \(3, 16, 24\)"):
        net(picture()[0])
    if net.depth:
        with pytest.raises(UserError, match=r"16x26 cannot be halved 2 times: .* multiples of 4"):
            net(picture(size=(16, 26)))


@pytest.mark.parametrize("widths", [(), (4,), (4, 0, 6), (4, -6, 10)])
@pytest.mark.parametrize("cls", RELATIVES.values())
def test_widths_that_make_no_net_are_refused(cls, widths):
    with pytest.raises(UserError, match=r"widths \(.*\) make no .*: give .* or more positive numbers"):
        cls(widths=widths)


@pytest.mark.parametrize("cls", RELATIVES.values())
def test_macs_are_those_of_the_convolutions_that_run(cls):
    net, counted = make(cls), make(cls).eval()
    total = []
    for module in counted.modules():
        if isinstance(module, torch.nn.Conv2d):
            taps = prod(module.weight.shape[1:])
            module.register_forward_hook(lambda _, __, output, taps=taps: total.append(output.numel() * taps))
        if isinstance(module, torch.nn.ConvTranspose2d):  # 2x2 at stride 2: each output value has one tap
            module.register_forward_hook(lambda conv, _, out: total.append(out.numel() * conv.in_channels))
    counted(picture(batch=1))
    assert macs(net, (16, 24)) == sum(total)


def blobs():
    """Bright blobs in noise: six images (3, 16, 24) and their masks."""
    masks = torch.zeros(6, 1, 16, 24)
    for n in range(6):
        masks[n, :, 2 + n : 8 + n, 3 * n : 3 * n + 7] = 1
    return 0.7 * masks + 0.3 * picture(batch=6, seed=0), masks


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_it_learns(cls, options):
    net, (images, masks) = make(cls, widths=(8, 10, 14), **options), blobs()
    optimiser, loss = torch.optim.Adam(net.parameters(), lr=0.01), deep_supervision(bce_dice)
    losses = []
    for _ in range(20):
        losses.append(loss(net(standardise(images)), masks))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_training_and_prediction_take_every_net(cls, options):
    net, (images, masks) = make(cls, **options), blobs()
    pixels = (255 * images).round().to(torch.uint8)
    split = Split(pixels, masks.to(torch.uint8), masks[:, 0].int(), [str(n) for n in range(6)])
    cpu = Setting(device="cpu")
    recipe = Recipe(batch_size=3, augment=False)
    rows = list(fit(net, Splits(split, split, split), epochs=3, recipe=recipe, setting=cpu))
    assert rows[-1]["loss"] < rows[0]["loss"]
    maps = probabilities(net, pixels, head=-1, setting=cpu)
    assert maps.shape == masks.shape
    torch.testing.assert_close(predict(net, pixels[0], head=-1, setting=cpu), maps[0], rtol=1e-3, atol=1e-4)
    assert predict(net, pixels[0, :, :13, :21], tile=8, overlap=4, setting=cpu).shape == (1, 13, 21)
